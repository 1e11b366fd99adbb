-- One row an answer, beside what the model said without the adapter where that was asked too.
CREATE VIEW answer AS
SELECT
    evaluations.id AS evaluation_id,
    runs.name AS run,
    checkpoints.iteration,
    evaluations.model,
    evaluations.kind,
    evaluations.data,
    evaluations.data_sha256,
    answers.row,
    answers.prompt,
    answers.expected,
    base.answer AS base_answer,
    answers.answer,
    evaluations.created_at
FROM evaluations
CROSS JOIN answers ON answers.evaluation_id = evaluations.id
LEFT JOIN runs ON runs.id = evaluations.run_id
LEFT JOIN checkpoints ON checkpoints.id = evaluations.checkpoint_id
LEFT JOIN answers AS base
    ON base.evaluation_id = evaluations.base_evaluation_id
    AND base.row = answers.row;
