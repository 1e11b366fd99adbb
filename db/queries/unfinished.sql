-- Which runs are not finished, and what would be left to do?
-- The time left is at the rate of the newest attempt that got anywhere, its loading and validating included. Imported
-- runs are left out: nothing resumes them.
SELECT
    run_summary.name,
    run_summary.status,
    run_summary.iteration,
    run_summary.target_iterations,
    round(100 * run_summary.progress, 1) AS percent,
    (
        SELECT round(
            86400 * (julianday(coalesce(ended_at, heartbeat_at)) - julianday(started_at))
                / (coalesce(to_iteration, run_summary.iteration) - from_iteration)
                * (run_summary.target_iterations - run_summary.iteration)
        )
        FROM attempts
        WHERE run_id = run_summary.id AND coalesce(to_iteration, run_summary.iteration) > from_iteration
        ORDER BY number DESC
        LIMIT 1
    ) AS seconds_left,
    run_summary.updated_at,
    (SELECT command FROM attempts WHERE run_id = run_summary.id ORDER BY number DESC LIMIT 1) AS last_command
FROM run_summary
WHERE run_summary.status <> 'completed'
    AND run_summary.iteration < run_summary.target_iterations
    AND run_summary.imported_from IS NULL
ORDER BY run_summary.updated_at DESC, run_summary.name;
