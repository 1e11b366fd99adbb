-- How much memory did training take?
SELECT
    runs.model,
    json_extract(runs.config, '$.batch_size') AS batch_size,
    json_extract(runs.config, '$.max_seq_length') AS max_seq_length,
    json_extract(runs.config, '$.grad_checkpoint') AS grad_checkpoint,
    count(*) AS runs,
    round(max(peak.max_value) / 1e9, 3) AS peak_gigabytes
FROM runs
CROSS JOIN series AS peak
    ON peak.run_id = runs.id
    AND peak.name_id = (SELECT id FROM metric_names WHERE name = 'peak_memory')
GROUP BY runs.model, batch_size, max_seq_length, grad_checkpoint
ORDER BY peak_gigabytes DESC, runs.model;
