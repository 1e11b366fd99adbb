-- What went wrong, in which run and when?
SELECT time, run, attempt, iteration, level, kind, message
FROM event
WHERE level IN ('warning', 'error')
ORDER BY time DESC, id DESC;
