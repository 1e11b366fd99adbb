-- How much of the work was padding?
-- The mean of the last 100 reports, beside the highest of all.
SELECT
    runs.name AS run,
    json_extract(runs.config, '$.batch_size') AS batch_size,
    (
        SELECT round(100 * avg(newest.value), 1)
        FROM (
            SELECT value
            FROM metrics
            WHERE run_id = runs.id AND name_id = padding.name_id
            ORDER BY iteration DESC
            LIMIT 100
        ) AS newest
    ) AS mean_percent,
    round(100 * padding.max_value, 1) AS highest_percent,
    padding.max_iteration AS highest_at
FROM runs
CROSS JOIN series AS padding
    ON padding.run_id = runs.id
    AND padding.name_id = (SELECT id FROM metric_names WHERE name = 'padding_share')
ORDER BY mean_percent DESC, run;
