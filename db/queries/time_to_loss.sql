-- How long did each run take to reach a validation loss?
-- Seconds at work: the pauses between attempts do not count, what was done again does. A branch, and a run that took an
-- adapter over, counts from where it began itself (from_iteration); what was trained before that is not in its time.
-- :loss the loss to reach, a number
WITH reached AS (
    SELECT
        runs.id,
        runs.name,
        runs.imported_from,
        julianday(runs.created_at) AS created,
        metrics.iteration,
        metrics.elapsed_ms / 86400000.0 AS elapsed
    FROM runs
    CROSS JOIN series
        ON series.run_id = runs.id
        AND series.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
        AND series.min_value <= CAST(:loss AS REAL)
    CROSS JOIN metrics
        ON metrics.run_id = runs.id
        AND metrics.name_id = series.name_id
        AND metrics.iteration = (
            SELECT min(iteration)
            FROM metrics
            WHERE run_id = runs.id AND name_id = series.name_id AND value <= CAST(:loss AS REAL)
        )
)
SELECT
    name AS run,
    coalesce((SELECT from_iteration FROM attempts WHERE run_id = reached.id AND number = 1), 0) AS from_iteration,
    iteration,
    round(
        86400 * iif(
            -- an import counts time at work from the start; when that was, it can only guess
            imported_from IS NOT NULL,
            elapsed,
            (
                SELECT sum(
                    max(
                        0,
                        min(created + elapsed, coalesce(julianday(ended_at), created + elapsed)) - julianday(started_at)
                    )
                )
                FROM attempts
                WHERE run_id = reached.id
            )
        ),
        3
    ) AS seconds
FROM reached
ORDER BY seconds, run;
