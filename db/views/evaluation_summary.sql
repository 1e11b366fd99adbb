-- One row a score, beside the score of the evaluation it was compared with.
CREATE VIEW evaluation_summary AS
SELECT
    evaluations.id,
    runs.name AS run,
    checkpoints.iteration,
    evaluations.model,
    evaluations.adapter_path,
    evaluations.data,
    evaluations.kind,
    evaluations.rows,
    scores.metric,
    scores.value,
    scores.standard_error,
    base.value AS base_value,
    scores.value - base.value AS difference,
    evaluations.seconds,
    evaluations.created_at
FROM evaluations
CROSS JOIN scores ON scores.evaluation_id = evaluations.id
LEFT JOIN runs ON runs.id = evaluations.run_id
LEFT JOIN checkpoints ON checkpoints.id = evaluations.checkpoint_id
LEFT JOIN scores AS base
    ON base.evaluation_id = evaluations.base_evaluation_id
    AND base.metric = scores.metric;
