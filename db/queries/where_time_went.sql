-- Where did the time go?
-- Seconds at work by run, those of iterations that were done again, and those between attempts. Of an imported run the
-- times are those of its files, and what was done again is not known.
-- :limit how many runs, a whole number from 1; 20 unless given
WITH span AS (
    SELECT
        run_id,
        86400 * (julianday(coalesce(ended_at, heartbeat_at)) - julianday(started_at)) AS seconds,
        86400 * (julianday(started_at) - julianday(lag(coalesce(ended_at, heartbeat_at)) OVER attempt)) AS waited,
        to_iteration - from_iteration AS done,
        to_iteration - max(from_iteration, min(from_iteration) OVER (
            PARTITION BY run_id ORDER BY number ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        )) AS again
    FROM attempts
    WINDOW attempt AS (PARTITION BY run_id ORDER BY number)
)
SELECT
    runs.name AS run,
    round(sum(span.seconds), 1) AS seconds,
    round(100 * sum(span.seconds) / nullif(sum(sum(span.seconds)) OVER (), 0), 1) AS percent,
    iif(
        runs.imported_from IS NULL,
        coalesce(round(sum(span.seconds * max(span.again, 0) / nullif(span.done, 0)), 1), 0.0),
        NULL
    ) AS seconds_done_again,
    coalesce(round(sum(max(span.waited, 0)), 1), 0.0) AS seconds_between_attempts,
    count(*) AS attempts
FROM span
CROSS JOIN runs ON runs.id = span.run_id
GROUP BY runs.id
ORDER BY sum(span.seconds) DESC, run
LIMIT coalesce(:limit, 20);
