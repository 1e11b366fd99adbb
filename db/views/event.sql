-- What happened, each thing once. An event is left out where a later attempt went over its iteration again (it
-- started before it) and wrote an event of the same kind there: the newer telling stands for both.
CREATE VIEW event AS
SELECT
    events.id,
    events.run_id,
    runs.name AS run,
    attempts.number AS attempt,
    events.iteration,
    events.time,
    events.level,
    events.kind,
    events.message,
    events.detail
FROM runs
CROSS JOIN events ON events.run_id = runs.id
LEFT JOIN attempts ON attempts.id = events.attempt_id
WHERE NOT EXISTS (
    SELECT 1
    FROM events AS again
    CROSS JOIN attempts AS later ON later.id = again.attempt_id
    WHERE again.run_id = events.run_id
        AND again.iteration = events.iteration
        AND again.kind = events.kind
        AND later.number > attempts.number
        AND later.from_iteration < events.iteration
);
