-- How do the tags compare?
-- Of each model and data, since losses of others are none to compare with.
SELECT
    tags.tag,
    runs.model,
    runs.data,
    count(*) AS runs,
    count(CASE WHEN runs.status = 'completed' THEN 1 END) AS completed,
    min(runs.best_validation_loss) AS lowest_loss,
    avg(runs.best_validation_loss) AS mean_loss
FROM tags
CROSS JOIN runs ON runs.id = tags.run_id
GROUP BY tags.tag, runs.model_identity, runs.data_identity
ORDER BY tags.tag, runs.model, runs.data;
