-- How much work was lost to interruptions, and done again?
-- Of an attempt the iterations beyond those that a later one resumed from, and their share of its time. Imported runs
-- are left out: where a log starts from iteration 0 is not known to be an interruption.
WITH step AS (
    SELECT
        run_id,
        number,
        end_reason,
        from_iteration,
        to_iteration,
        min(from_iteration) OVER (
            PARTITION BY run_id ORDER BY number ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        ) AS resumed_at,
        86400 * (julianday(coalesce(ended_at, heartbeat_at)) - julianday(started_at)) AS seconds
    FROM attempts
)
SELECT
    runs.name AS run,
    step.number AS attempt,
    step.end_reason,
    step.to_iteration AS reached,
    step.resumed_at,
    step.to_iteration - max(step.from_iteration, step.resumed_at) AS iterations_lost,
    round(
        step.seconds * (step.to_iteration - max(step.from_iteration, step.resumed_at))
            / (step.to_iteration - step.from_iteration),
        1
    ) AS seconds_lost
FROM step
CROSS JOIN runs ON runs.id = step.run_id AND runs.imported_from IS NULL
WHERE step.to_iteration > max(step.from_iteration, step.resumed_at)
ORDER BY seconds_lost DESC, run, attempt;
