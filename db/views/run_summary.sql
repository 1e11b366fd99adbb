-- One row a run. `lost` is a run whose process stopped beating: plain SQL, so that every SQLite program shows it.
-- All joins are LEFT JOINs on whole keys, so the planner can only start at runs and never reads all the points.
CREATE VIEW run_summary AS
SELECT
    runs.id,
    runs.name,
    runs.kind,
    CASE WHEN runs.status = 'running' AND alive.id IS NULL THEN 'lost' ELSE runs.status END AS status,
    runs.model,
    runs.data,
    -- between two reports as of the last heartbeat
    max(runs.iteration, coalesce(alive.at_iteration, 0)) AS iteration,
    runs.target_iterations,
    -- an imported log need not say how far it was meant to go
    coalesce(json_extract(runs.config, '$.imported.is_target_known'), 1) AS is_target_known,
    min(1.0, 1.0 * max(runs.iteration, coalesce(alive.at_iteration, 0)) / max(runs.target_iterations, 1)) AS progress,
    runs.epoch,
    runs.trained_tokens,
    train.last_value AS train_loss,
    validation.last_value AS validation_loss,
    train.min_value AS best_train_loss,
    runs.best_validation_loss,
    runs.best_iteration,
    -- before the newest attempt's first report as of its last heartbeat
    CASE
        WHEN speed.last_iteration > latest.from_iteration THEN speed.last_value
        ELSE latest.tokens_per_second
    END AS tokens_per_second,
    latest.iterations_per_second,
    (
        SELECT round(86400 * sum(julianday(coalesce(ended_at, heartbeat_at)) - julianday(started_at)), 3)
        FROM attempts
        WHERE run_id = runs.id
    ) AS seconds,
    CASE WHEN alive.id IS NOT NULL THEN
        max(0, round(86400 * (julianday(alive.expected_end_at) - julianday('now')), 3))
    END AS eta_seconds,
    coalesce(latest.number, 0) AS attempts,
    (SELECT count(*) FROM checkpoints WHERE run_id = runs.id AND status = 'whole') AS checkpoints,
    (SELECT parent.name FROM runs AS parent WHERE parent.id = runs.parent_id) AS parent,
    (SELECT group_concat(tag, ',') FROM tags WHERE run_id = runs.id) AS tags,
    runs.note,
    runs.adapter_path,
    runs.imported_from,
    runs.fingerprint,
    runs.created_at,
    runs.updated_at,
    -- NULL while an attempt works, or is lost
    latest.ended_at
FROM runs
LEFT JOIN attempts AS latest
    ON latest.id = (SELECT id FROM attempts WHERE run_id = runs.id ORDER BY number DESC LIMIT 1)
LEFT JOIN attempts AS alive
    ON alive.id = latest.id
    AND runs.status = 'running'
    AND alive.ended_at IS NULL
    AND alive.heartbeat_at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-60 seconds')
LEFT JOIN series AS train
    ON train.run_id = runs.id
    AND train.name_id = (SELECT id FROM metric_names WHERE name = 'train_loss')
LEFT JOIN series AS validation
    ON validation.run_id = runs.id
    AND validation.name_id = (SELECT id FROM metric_names WHERE name = 'validation_loss')
LEFT JOIN series AS speed
    ON speed.run_id = runs.id
    AND speed.name_id = (SELECT id FROM metric_names WHERE name = 'tokens_per_second');
