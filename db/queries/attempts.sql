-- How did each attempt of a run start and end?
-- Of an attempt at work the iteration is where the run is, and the time is that up to its last heartbeat.
-- :run name of the run; the newest unless given
SELECT
    attempts.number,
    attempts.start_kind,
    attempts.from_iteration,
    coalesce(attempts.to_iteration, runs.iteration) AS to_iteration,
    attempts.end_reason,
    round(86400 * (julianday(coalesce(attempts.ended_at, attempts.heartbeat_at)) - julianday(attempts.started_at)), 1)
        AS seconds,
    attempts.host,
    attempts.device,
    attempts.start_note,
    attempts.error
FROM runs
CROSS JOIN attempts ON attempts.run_id = runs.id
WHERE runs.name = coalesce(:run, (SELECT name FROM runs ORDER BY id DESC LIMIT 1))
ORDER BY attempts.number;
