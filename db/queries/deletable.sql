-- What can be deleted, and how much does that free?
-- Not the newest whole checkpoints of a run, the newest that it can resume from, its best, what its folder offers, where
-- a run branched off, nor those of a run at work or of one that was imported.
-- :keep how many of the newest stay, a whole number from 1; 1 unless given
WITH whole AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY run_id ORDER BY iteration DESC) AS place,
        max(iif(state_file IS NOT NULL AND state_pruned_at IS NULL, iteration, NULL)) OVER (PARTITION BY run_id)
            AS newest_resumable
    FROM checkpoints
    WHERE status = 'whole'
)
SELECT
    runs.name AS run,
    whole.iteration,
    whole.bytes,
    sum(whole.bytes) OVER (ORDER BY runs.name, whole.iteration) AS bytes_so_far,
    runs.adapter_path || '/' || whole.adapter_file AS adapter_file,
    iif(whole.state_pruned_at IS NULL, runs.adapter_path || '/' || whole.state_file, NULL) AS state_file
FROM whole
CROSS JOIN runs ON runs.id = whole.run_id
CROSS JOIN run_summary ON run_summary.id = runs.id
WHERE whole.place > max(coalesce(:keep, 1), 1)
    AND whole.iteration IS NOT whole.newest_resumable
    AND NOT whole.is_best
    AND whole.id IS NOT runs.offered_checkpoint_id
    AND run_summary.status <> 'running'
    AND runs.imported_from IS NULL
    AND NOT EXISTS (
        SELECT 1
        FROM runs AS child
        WHERE child.parent_id = runs.id AND child.branch_iteration = whole.iteration
    )
ORDER BY run, whole.iteration;
