-- Which runs have the same settings, and how far are their losses apart?
-- The settings are all that decides the weights; how far a run went is none, so it stands beside them.
SELECT
    count(*) AS runs,
    group_concat(name, ', ') AS names,
    min(iteration) AS fewest_iterations,
    max(iteration) AS most_iterations,
    min(best_validation_loss) AS lowest_loss,
    max(best_validation_loss) AS highest_loss,
    max(best_validation_loss) - min(best_validation_loss) AS spread
FROM (SELECT * FROM runs ORDER BY name)
GROUP BY fingerprint
HAVING count(*) > 1
ORDER BY runs DESC, names;
