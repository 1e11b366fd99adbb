-- What went wrong, in which run and when?
-- :run name of the run; all runs unless given
-- :limit how many, a whole number from 1; 100 unless given
SELECT time, run, attempt, iteration, level, kind, message
FROM event
WHERE level IN ('warning', 'error') AND (:run IS NULL OR run = :run)
ORDER BY time DESC, id DESC
LIMIT coalesce(:limit, 100);
