-- How did each attempt of a run start and end?
SELECT
    attempts.number,
    attempts.start_kind,
    attempts.from_iteration,
    attempts.to_iteration,
    attempts.end_reason,
    round(86400 * (julianday(coalesce(attempts.ended_at, attempts.heartbeat_at)) - julianday(attempts.started_at)), 1)
        AS seconds,
    attempts.host,
    attempts.device,
    attempts.start_note,
    attempts.error
FROM runs
CROSS JOIN attempts ON attempts.run_id = runs.id
WHERE runs.name = :run
ORDER BY attempts.number;
