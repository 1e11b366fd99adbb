-- How far is the validation loss above the training loss?
-- Both at the newest validation: the train loss is that of the last report up to it.
SELECT
    runs.name,
    validation.last_iteration AS iteration,
    train.value AS train_loss,
    validation.last_value AS validation_loss,
    validation.last_value - train.value AS gap,
    runs.data
FROM runs
CROSS JOIN series AS validation
    ON validation.run_id = runs.id
    AND validation.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
CROSS JOIN metrics AS train
    ON train.run_id = runs.id
    AND train.name_id = (SELECT id FROM metric_names WHERE name = 'train_loss')
    AND train.iteration = (
        SELECT max(iteration)
        FROM metrics
        WHERE run_id = runs.id AND name_id = train.name_id AND iteration <= validation.last_iteration
    )
WHERE gap IS NOT NULL
ORDER BY gap DESC, runs.name;
