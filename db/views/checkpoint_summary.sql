-- One row a checkpoint: what it is, whether a run can resume from it, and what it takes on disk.
CREATE VIEW checkpoint_summary AS
SELECT
    runs.name AS run,
    checkpoints.iteration,
    attempts.number AS attempt,
    checkpoints.status,
    checkpoints.is_best,
    checkpoints.id IS runs.offered_checkpoint_id AS is_offered,
    checkpoints.status = 'whole' AND checkpoints.state_file IS NOT NULL AND checkpoints.state_pruned_at IS NULL
        AS is_resumable,
    checkpoints.train_loss,
    checkpoints.validation_loss,
    checkpoints.bytes,
    runs.adapter_path || '/' || checkpoints.adapter_file AS adapter_file,
    runs.adapter_path || '/' || checkpoints.state_file AS state_file,
    checkpoints.created_at,
    checkpoints.verified_at
FROM runs
CROSS JOIN checkpoints ON checkpoints.run_id = runs.id
LEFT JOIN attempts ON attempts.id = checkpoints.attempt_id;
