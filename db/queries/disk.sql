-- How much disk do the runs take?
SELECT
    run,
    checkpoints,
    bytes,
    round(100.0 * bytes / nullif(sum(bytes) OVER (), 0), 1) AS percent,
    resumable,
    newest_at,
    adapter_path
FROM disk_use
WHERE checkpoints > 0
ORDER BY bytes DESC, run;
