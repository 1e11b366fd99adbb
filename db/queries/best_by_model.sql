-- Which run is the best of each model and data?
-- By the lowest validation loss, the older of two that are equal. Losses on other validation rows, or with another
-- masking, do not measure the same: @significant looks at that. Models and data are told apart by what they are, not by
-- their paths.
WITH ranked AS (
    SELECT
        *,
        count(*) OVER alike AS runs,
        row_number() OVER (alike ORDER BY best_validation_loss, id) AS place
    FROM runs
    WHERE best_validation_loss IS NOT NULL
    WINDOW alike AS (PARTITION BY model_identity, data_identity)
)
SELECT model, data, name AS run, best_validation_loss, best_iteration, runs
FROM ranked
WHERE place = 1
ORDER BY model, data, run;
