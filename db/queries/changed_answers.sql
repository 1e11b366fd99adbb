-- Which answers did fine-tuning change?
-- Of the newest evaluation that has answers, and was compared with the model without the adapter.
-- :run name of the run; the newest with such an evaluation unless given
SELECT row, prompt, expected, base_answer, answer, iteration
FROM answer
WHERE evaluation_id = (
        SELECT evaluations.id
        FROM evaluations
        CROSS JOIN runs ON runs.id = evaluations.run_id
        WHERE evaluations.base_evaluation_id IS NOT NULL
            AND EXISTS (SELECT 1 FROM answers WHERE evaluation_id = evaluations.id)
            AND (:run IS NULL OR runs.name = :run)
        ORDER BY runs.id DESC, evaluations.id DESC
        LIMIT 1
    )
    AND answer <> base_answer
ORDER BY row;
