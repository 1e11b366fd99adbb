-- Which machines did the work?
SELECT
    host,
    device,
    json_extract(environment, '$.cpu') AS cpu,
    count(*) AS attempts,
    count(DISTINCT run_id) AS runs,
    round(24 * sum(julianday(coalesce(ended_at, heartbeat_at)) - julianday(started_at)), 2) AS hours,
    max(started_at) AS last_used
FROM attempts
GROUP BY host, device, cpu
ORDER BY hours DESC, host, device;
