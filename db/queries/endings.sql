-- Why did attempts end?
SELECT
    coalesce(attempts.end_reason, 'at work, or nobody has looked since') AS end_reason,
    attempts.error,
    count(*) AS attempts,
    count(DISTINCT attempts.run_id) AS runs,
    max(coalesce(attempts.ended_at, attempts.heartbeat_at)) AS last_at
FROM attempts
GROUP BY attempts.end_reason, attempts.error
ORDER BY attempts DESC, end_reason, attempts.error;
