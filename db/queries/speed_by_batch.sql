-- How fast is training by batch size?
-- A run's speed is the median of the last 25 reports of its newest attempt, without those of 0 and without runs that
-- failed; the speed here is the mean over the runs, beside the fastest of them.
SELECT
    runs.model,
    speed.device,
    json_extract(runs.config, '$.batch_size') AS batch_size,
    json_extract(runs.config, '$.max_seq_length') AS max_seq_length,
    count(*) AS runs,
    avg(speed.tokens_per_second) AS tokens_per_second,
    max(speed.tokens_per_second) AS fastest
FROM run_speed AS speed
CROSS JOIN runs ON runs.id = speed.run_id
GROUP BY runs.model, speed.device, batch_size, max_seq_length
ORDER BY runs.model, speed.device, tokens_per_second DESC;
