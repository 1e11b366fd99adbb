-- Which runs ended while they still improved?
-- Finished runs whose last validation was their best; more iterations may give more.
SELECT
    runs.name AS run,
    runs.iteration,
    series.last_value AS validation_loss,
    (
        SELECT metrics.value
        FROM metrics
        WHERE metrics.run_id = runs.id
            AND metrics.name_id = series.name_id
            AND metrics.iteration < series.last_iteration
        ORDER BY metrics.iteration DESC
        LIMIT 1
    ) - series.last_value AS gained_last
FROM runs
CROSS JOIN series
    ON series.run_id = runs.id
    AND series.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
WHERE runs.status = 'completed' AND series.count > 1 AND series.min_iteration = series.last_iteration
ORDER BY gained_last DESC, run;
