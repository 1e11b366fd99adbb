-- Which runs continued after their best validation loss, and what did it cost?
SELECT
    name,
    best_iteration,
    best_validation_loss,
    validation_loss,
    validation_loss - best_validation_loss AS lost_since,
    iteration - best_iteration AS iterations_since
FROM run_summary
WHERE validation_loss > best_validation_loss
ORDER BY lost_since DESC, name;
