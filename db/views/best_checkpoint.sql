-- The whole checkpoint with the lowest validation loss of each run that has one.
CREATE VIEW best_checkpoint AS
SELECT
    runs.name AS run,
    checkpoints.iteration,
    checkpoints.validation_loss,
    checkpoints.train_loss,
    runs.adapter_path || '/' || checkpoints.adapter_file AS adapter_file,
    checkpoints.bytes,
    checkpoints.created_at
FROM runs
CROSS JOIN checkpoints ON checkpoints.run_id = runs.id AND checkpoints.is_best = 1;
