-- How much was trained each day?
-- A day is one of UTC. An attempt that went past midnight counts on each of its days, its iterations by the time; those
-- that were done again after an interruption count again.
-- :limit how many days, a whole number from 1; 30 unless given
WITH RECURSIVE piece (run_id, day, begun, started, ended, iterations) AS (
    SELECT
        runs.id,
        date(attempts.started_at),
        julianday(attempts.started_at),
        julianday(attempts.started_at),
        julianday(max(attempts.started_at, coalesce(attempts.ended_at, attempts.heartbeat_at))),
        coalesce(attempts.to_iteration, runs.iteration) - attempts.from_iteration
    FROM runs
    CROSS JOIN attempts ON attempts.run_id = runs.id
    UNION ALL
    SELECT run_id, date(day, '+1 day'), julianday(day, '+1 day'), started, ended, iterations
    FROM piece
    WHERE julianday(day, '+1 day') < ended
),
part AS (
    SELECT
        run_id,
        day,
        min(ended, julianday(day, '+1 day')) - begun AS days,
        -- what was done up to the end of the piece, less what was done up to its begin: the sum is exact
        CAST(iterations * coalesce((min(ended, julianday(day, '+1 day')) - started) / nullif(ended - started, 0), 1)
            AS INTEGER)
            - CAST(iterations * coalesce((begun - started) / nullif(ended - started, 0), 0) AS INTEGER) AS iterations
    FROM piece
)
SELECT
    day,
    count(DISTINCT run_id) AS runs,
    count(*) AS attempts,
    round(24 * sum(days), 2) AS hours,
    sum(iterations) AS iterations
FROM part
GROUP BY day
ORDER BY day DESC
LIMIT coalesce(:limit, 30);
