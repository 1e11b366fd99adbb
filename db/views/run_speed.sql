-- How fast each run trained: the median of the last 25 reports of its newest attempt, without those of 0 and without
-- runs that failed. A run without such a report has no row.
CREATE VIEW run_speed AS
WITH reporter AS (
    SELECT
        runs.id AS run_id,
        attempts.id AS attempt_id,
        series.name_id,
        max(
            attempts.from_iteration + 1,
            coalesce(
                (
                    SELECT iteration
                    FROM metrics
                    WHERE run_id = runs.id AND name_id = series.name_id
                    ORDER BY iteration DESC
                    LIMIT 1 OFFSET 24
                ),
                0
            )
        ) AS first_iteration
    FROM runs
    CROSS JOIN series
        ON series.run_id = runs.id
        AND series.name_id = (SELECT id FROM metric_names WHERE name = 'tokens_per_second')
    CROSS JOIN attempts
        ON attempts.id = (
            SELECT id
            FROM attempts
            WHERE run_id = runs.id AND from_iteration < series.last_iteration
            ORDER BY number DESC
            LIMIT 1
        )
    WHERE runs.status <> 'failed'
),
report AS (
    SELECT
        reporter.run_id,
        reporter.attempt_id,
        metrics.value,
        row_number() OVER (PARTITION BY reporter.run_id ORDER BY metrics.value) AS place,
        count(*) OVER (PARTITION BY reporter.run_id) AS reports
    FROM reporter
    CROSS JOIN metrics
        ON metrics.run_id = reporter.run_id
        AND metrics.name_id = reporter.name_id
        AND metrics.iteration >= reporter.first_iteration
    WHERE metrics.value > 0
),
speed AS (
    -- the value in the middle, or the mean of the two there
    SELECT run_id, attempt_id, avg(value) AS tokens_per_second, max(reports) AS reports
    FROM report
    WHERE 2 * place BETWEEN reports AND reports + 2
    GROUP BY run_id
)
SELECT
    speed.run_id,
    runs.name AS run,
    speed.attempt_id,
    attempts.device,
    speed.tokens_per_second,
    speed.reports
FROM speed
CROSS JOIN runs ON runs.id = speed.run_id
CROSS JOIN attempts ON attempts.id = speed.attempt_id;
