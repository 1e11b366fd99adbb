-- How long did each run take to reach a validation loss?
SELECT run, min(iteration) AS iteration, min(elapsed_seconds) AS elapsed_seconds
FROM metric
WHERE name = 'validation_loss' AND value <= CAST(:loss AS REAL)
GROUP BY run
ORDER BY elapsed_seconds;
