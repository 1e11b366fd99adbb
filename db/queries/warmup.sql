-- Did a warm-up help?
-- Runs that ended, of the same model, data, learning rate and target, with a warm-up and without, all begun with fresh
-- weights; a negative difference is a gain.
WITH tried AS (
    SELECT
        model,
        data,
        model_identity,
        data_identity,
        target_iterations,
        json_extract(config, '$.learning_rate') AS learning_rate,
        json_extract(config, '$.warmup') > 0 AS is_warm,
        best_validation_loss AS loss
    FROM runs
    WHERE best_validation_loss IS NOT NULL
        AND status IN ('completed', 'failed')
        AND json_extract(config, '$.origin') IS NULL
        AND NOT EXISTS (
            SELECT 1 FROM attempts WHERE run_id = runs.id AND number = 1 AND start_kind IN ('branch', 'warm')
        )
)
SELECT
    model,
    data,
    learning_rate,
    target_iterations,
    count(CASE WHEN is_warm THEN 1 END) AS runs_with,
    count(CASE WHEN NOT is_warm THEN 1 END) AS runs_without,
    avg(CASE WHEN is_warm THEN loss END) AS mean_loss_with,
    avg(CASE WHEN NOT is_warm THEN loss END) AS mean_loss_without,
    avg(CASE WHEN is_warm THEN loss END) - avg(CASE WHEN NOT is_warm THEN loss END) AS difference
FROM tried
GROUP BY model_identity, data_identity, learning_rate, target_iterations
HAVING runs_with > 0 AND runs_without > 0
ORDER BY difference, model;
