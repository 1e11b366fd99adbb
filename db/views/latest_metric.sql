-- The newest point of every curve, from its summary row.
CREATE VIEW latest_metric AS
SELECT
    runs.name AS run,
    metric_names.name AS name,
    series.last_iteration AS iteration,
    series.last_value AS value,
    series.last_elapsed_ms / 1000.0 AS elapsed_seconds,
    metric_names.unit
FROM runs
CROSS JOIN series ON series.run_id = runs.id
CROSS JOIN metric_names ON metric_names.id = series.name_id;
