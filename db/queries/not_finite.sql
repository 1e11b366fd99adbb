-- Which curves have points that are not finite?
-- A report has no train loss where every batch since the report before was left out, for a loss or gradient that was
-- not finite, or a gradient of exactly zero: so many batches of the run, and so many of them for zeros. @troubles names
-- them.
SELECT
    runs.name AS run,
    metric_names.name AS metric,
    series.not_finite,
    series.count AS points,
    series.last_iteration,
    (SELECT count(*) FROM event WHERE run = runs.name AND kind = 'skipped') AS batches_left_out,
    (SELECT count(*) FROM event WHERE run = runs.name AND kind = 'skipped' AND message LIKE 'the gradient was zero%')
        AS for_zeros,
    json_extract(runs.config, '$.learning_rate') AS learning_rate
FROM runs
CROSS JOIN series ON series.run_id = runs.id AND series.not_finite > 0
CROSS JOIN metric_names ON metric_names.id = series.name_id
ORDER BY series.not_finite DESC, run, metric;
