-- Which runs have the lowest validation loss, and at which iteration?
SELECT name, best_validation_loss, best_iteration, iteration, status, model
FROM run_summary
WHERE best_validation_loss IS NOT NULL
ORDER BY best_validation_loss, name;
