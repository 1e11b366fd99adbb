-- Which runs have the lowest validation loss, and at which iteration?
-- :model only models with this in their name; all unless given
-- :limit how many runs, a whole number from 1; 20 unless given
SELECT name, best_validation_loss, best_iteration, iteration, status, model
FROM run_summary
WHERE best_validation_loss IS NOT NULL AND (:model IS NULL OR instr(lower(model), lower(:model)))
ORDER BY best_validation_loss, name
LIMIT coalesce(:limit, 20);
