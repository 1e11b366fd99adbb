-- Every point by its names. CROSS JOIN pins the order: run, then name, then a range of the points' key.
CREATE VIEW metric AS
SELECT
    runs.name AS run,
    metric_names.name AS name,
    metrics.iteration,
    metrics.value,
    metrics.elapsed_ms / 1000.0 AS elapsed_seconds
FROM runs
CROSS JOIN metric_names
CROSS JOIN metrics ON metrics.run_id = runs.id AND metrics.name_id = metric_names.id;
