-- Which runs had the largest gradients, and where?
SELECT
    runs.name AS run,
    norm.max_value AS highest_norm,
    norm.max_iteration AS at_iteration,
    norm.last_value AS newest_norm,
    round(norm.max_value / nullif(norm.last_value, 0), 1) AS times_newest,
    json_extract(runs.config, '$.max_grad_norm') AS clipped_at,
    norm.not_finite
FROM runs
CROSS JOIN series AS norm
    ON norm.run_id = runs.id
    AND norm.name_id = (SELECT id FROM metric_names WHERE name = 'gradient_norm')
ORDER BY norm.max_value DESC, run;
