-- How fast do models answer?
-- :metric a figure of benchmarks, as time_to_first_token; generation_tokens_per_second unless given
SELECT
    model, run, device, prompt_tokens, context_tokens, batch_size, trials, mean, standard_deviation, median, highest,
    created_at
FROM benchmark_summary
WHERE metric = coalesce(:metric, 'generation_tokens_per_second')
ORDER BY model, prompt_tokens, context_tokens, batch_size, created_at;
