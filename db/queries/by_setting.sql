-- How do loss and speed depend on a setting?
-- Losses are the best of each run that began with fresh weights, however far it went. A run's speed is the median of
-- the last 25 reports of its newest attempt, without those of 0 and without runs that failed; of several devices it is
-- a mean. Models and data are told apart by what they are, not by their paths.
-- :setting a setting, as batch_size, lora_rank or optimizer; learning_rate unless given
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
    SELECT run_id, attempt_id, avg(value) AS median
    FROM report
    WHERE 2 * place BETWEEN reports AND reports + 2
    GROUP BY run_id
),
tried AS (
    SELECT
        runs.model,
        runs.data,
        runs.model_identity,
        runs.data_identity,
        json_extract(runs.config, '$."' || coalesce(:setting, 'learning_rate') || '"') AS value,
        iif(
            json_extract(runs.config, '$.origin') IS NULL
                AND NOT EXISTS (
                    SELECT 1 FROM attempts WHERE run_id = runs.id AND number = 1 AND start_kind IN ('branch', 'warm')
                ),
            runs.best_validation_loss,
            NULL
        ) AS loss,
        speed.median AS speed,
        attempts.device
    FROM runs
    LEFT JOIN speed ON speed.run_id = runs.id
    LEFT JOIN attempts ON attempts.id = speed.attempt_id
)
SELECT
    model,
    data,
    value,
    count(*) AS runs,
    min(loss) AS lowest_loss,
    avg(loss) AS mean_loss,
    avg(speed) AS tokens_per_second,
    group_concat(DISTINCT device) AS devices
FROM tried
GROUP BY model_identity, data_identity, value
ORDER BY model, data, value;
