-- How does the best validation loss depend on the learning rate?
-- Of runs that began with fresh weights, the best of each, however far it went: from the fewest to the most iterations.
-- Models and data are told apart by what they are, not by their paths.
SELECT
    model,
    data,
    json_extract(config, '$.learning_rate') AS learning_rate,
    count(*) AS runs,
    min(best_validation_loss) AS lowest_loss,
    avg(best_validation_loss) AS mean_loss,
    max(best_validation_loss) AS highest_loss,
    min(iteration) AS fewest_iterations,
    max(iteration) AS most_iterations
FROM runs
WHERE best_validation_loss IS NOT NULL
    AND json_extract(config, '$.origin') IS NULL
    AND NOT EXISTS (
        SELECT 1 FROM attempts WHERE run_id = runs.id AND number = 1 AND start_kind IN ('branch', 'warm')
    )
GROUP BY model_identity, data_identity, learning_rate
ORDER BY model, data, learning_rate;
