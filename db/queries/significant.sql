-- Is the best run of each model and data really better than the next?
-- It is where the difference is more than 1.96 of its standard errors. It is unknown without these, and where the two
-- did not validate on the same rows (val_batches, and batch_size and seed unless that is all of them) with the same
-- tokens.
WITH ranked AS (
    SELECT
        runs.*,
        coalesce(
            (
                SELECT metrics.value
                FROM metrics
                WHERE metrics.run_id = runs.id
                    AND metrics.name_id = (SELECT id FROM metric_names WHERE name = 'validation_standard_error')
                    AND metrics.iteration = runs.best_iteration
            ),
            (
                SELECT checkpoints.closing_standard_error
                FROM checkpoints
                WHERE checkpoints.run_id = runs.id AND checkpoints.iteration = runs.best_iteration
            )
        ) AS error,
        json_extract(config, '$.validation_identity') AS validated_on,
        json_array(
            json_extract(config, '$.val_batches'),
            iif(json_extract(config, '$.val_batches') = -1, NULL, json_extract(config, '$.batch_size')),
            iif(json_extract(config, '$.val_batches') = -1, NULL, json_extract(config, '$.seed')),
            json_extract(config, '$.mask_prompt'),
            json_extract(config, '$.max_seq_length')
        ) AS validated_how,
        row_number() OVER (PARTITION BY model_identity, data_identity ORDER BY best_validation_loss, id) AS place
    FROM runs
    WHERE best_validation_loss IS NOT NULL
)
SELECT
    best.model,
    best.data,
    best.name AS best_run,
    next.name AS next_run,
    best.best_validation_loss AS best_loss,
    next.best_validation_loss - best.best_validation_loss AS difference,
    CASE
        WHEN best.error IS NULL OR next.error IS NULL OR best.validated_on IS NULL
            OR best.validated_on IS NOT next.validated_on OR best.validated_how <> next.validated_how THEN 'unknown'
        -- squares, since not every SQLite has sqrt()
        WHEN (next.best_validation_loss - best.best_validation_loss)
            * (next.best_validation_loss - best.best_validation_loss)
            > 1.96 * 1.96 * (best.error * best.error + next.error * next.error) THEN 'yes'
        ELSE 'no'
    END AS is_better
FROM ranked AS best
JOIN ranked AS next
    ON next.model_identity = best.model_identity
    AND next.data_identity = best.data_identity
    AND next.place = 2
WHERE best.place = 1
ORDER BY best.model, best.data, best_run;
