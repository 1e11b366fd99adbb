-- How do loss and speed depend on a setting?
-- Losses are the best of each run that began with fresh weights, however far it went. A run's speed is the median of
-- the last 25 reports of its newest attempt, without those of 0 and without runs that failed; of several devices it is
-- a mean. Models and data are told apart by what they are, not by their paths.
-- :setting a setting, as batch_size, lora_rank or optimizer; learning_rate unless given
WITH tried AS (
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
        speed.tokens_per_second AS speed,
        speed.device
    FROM runs
    LEFT JOIN run_speed AS speed ON speed.run_id = runs.id
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
