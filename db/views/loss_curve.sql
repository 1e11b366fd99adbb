-- The losses side by side: one row for each iteration that has a training or a validation loss.
-- Two arms instead of GROUP BY, so that `WHERE run = ...` reaches the key of the points.
CREATE VIEW loss_curve AS
SELECT
    runs.name AS run,
    train.iteration,
    train.value AS train_loss,
    validation.value AS validation_loss,
    error.value AS validation_standard_error
FROM runs
CROSS JOIN metrics AS train
    ON train.run_id = runs.id
    AND train.name_id = (SELECT id FROM metric_names WHERE name = 'train_loss')
LEFT JOIN metrics AS validation
    ON validation.run_id = runs.id
    AND validation.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
    AND validation.iteration = train.iteration
LEFT JOIN metrics AS error
    ON error.run_id = runs.id
    AND error.name_id = (SELECT id FROM metric_names WHERE name = 'validation_standard_error')
    AND error.iteration = train.iteration
UNION ALL
SELECT
    runs.name,
    validation.iteration,
    NULL,
    validation.value,
    error.value
FROM runs
CROSS JOIN metrics AS validation
    ON validation.run_id = runs.id
    AND validation.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
LEFT JOIN metrics AS error
    ON error.run_id = runs.id
    AND error.name_id = (SELECT id FROM metric_names WHERE name = 'validation_standard_error')
    AND error.iteration = validation.iteration
WHERE NOT EXISTS (
    SELECT 1
    FROM metrics AS train
    WHERE train.run_id = runs.id
        AND train.name_id = (SELECT id FROM metric_names WHERE name = 'train_loss')
        AND train.iteration = validation.iteration
);
