-- Did fine-tuning change the scores, by more than chance?
-- The difference is against the model without the adapter; by more than chance is over 1.96 standard errors of it. It
-- is unknown without the standard errors, and where the two were not asked the same rows.
SELECT
    score.run,
    score.iteration,
    score.metric,
    score.base_value,
    score.value,
    score.difference,
    CASE
        WHEN score.standard_error IS NULL OR base_score.standard_error IS NULL
            OR evaluations.data_sha256 IS NOT base.data_sha256 OR evaluations.rows IS NOT base.rows THEN 'unknown'
        -- squares, since not every SQLite has sqrt()
        WHEN score.difference * score.difference > 1.96 * 1.96
            * (score.standard_error * score.standard_error + base_score.standard_error * base_score.standard_error)
            THEN 'yes'
        ELSE 'no'
    END AS more_than_chance
FROM evaluation_summary AS score
CROSS JOIN evaluations ON evaluations.id = score.id
CROSS JOIN evaluations AS base ON base.id = evaluations.base_evaluation_id
CROSS JOIN scores AS base_score ON base_score.evaluation_id = base.id AND base_score.metric = score.metric
WHERE score.run IS NOT NULL
    -- a fused model is compared with its base and adapter, which says nothing of the training
    AND base.adapter_path IS NULL
ORDER BY score.run, score.iteration, score.metric, score.id;
