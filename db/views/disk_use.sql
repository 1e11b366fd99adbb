-- What the checkpoints of each run take on disk, from their rows; damaged, missing and pruned ones do not count.
CREATE VIEW disk_use AS
SELECT
    runs.name AS run,
    runs.adapter_path,
    count(checkpoints.id) AS checkpoints,
    coalesce(sum(checkpoints.bytes), 0) AS bytes,
    count(CASE WHEN checkpoints.state_file IS NOT NULL AND checkpoints.state_pruned_at IS NULL THEN 1 END)
        AS resumable,
    max(checkpoints.created_at) AS newest_at
FROM runs
LEFT JOIN checkpoints ON checkpoints.run_id = runs.id AND checkpoints.status = 'whole'
GROUP BY runs.id;
