-- How often was each model and run called good or bad in a chat?
SELECT
    model,
    run,
    iteration,
    count(*) FILTER (WHERE verdict = 'good') AS good,
    count(*) FILTER (WHERE verdict = 'bad') AS bad,
    max(created_at) AS newest
FROM verdict
GROUP BY model, run, iteration
ORDER BY newest DESC;
