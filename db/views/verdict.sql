-- One row a verdict of a person on an answer in a chat.
CREATE VIEW verdict AS
SELECT
    verdicts.id,
    runs.name AS run,
    checkpoints.iteration,
    verdicts.model,
    verdicts.adapter_path,
    verdicts.verdict,
    verdicts.prompt,
    verdicts.answer,
    verdicts.note,
    verdicts.messages,
    verdicts.config,
    verdicts.created_at
FROM verdicts
LEFT JOIN runs ON runs.id = verdicts.run_id
LEFT JOIN checkpoints ON checkpoints.id = verdicts.checkpoint_id;
