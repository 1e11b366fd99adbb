-- Which runs score best?
-- Best first on each set of data, as its content is; a score without a run is of the model without an adapter.
-- :metric a score, as rouge_l; perplexity unless given
SELECT
    score.run,
    score.iteration,
    score.model,
    score.data,
    substr(evaluations.data_sha256, 1, 8) AS data_sha256,
    score.kind,
    score.value,
    score.standard_error,
    score.rows,
    score.created_at
FROM evaluation_summary AS score
CROSS JOIN evaluations ON evaluations.id = score.id
WHERE score.metric = coalesce(:metric, 'perplexity')
ORDER BY
    score.data,
    evaluations.data_sha256,
    score.kind,
    iif(score.metric LIKE 'perplexity%', score.value, -score.value),
    score.id;
