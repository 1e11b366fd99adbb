-- What happened in a run, in order?
-- :run name of the run; the newest unless given
SELECT time, attempt, iteration, level, kind, message
FROM event
WHERE run = coalesce(:run, (SELECT name FROM runs ORDER BY id DESC LIMIT 1))
ORDER BY time, id;
