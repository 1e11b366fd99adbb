-- One row a benchmark, shape of request and figure. Percentiles are values that were measured (nearest rank).
-- `drift` is how far a straight line through the trials climbs from the first to the last, as a share of the mean.
-- sqrt() is an option SQLite may be built without, so the standard deviation is found by Newton's method.
CREATE VIEW benchmark_summary AS
WITH
sample (benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial, metric, value) AS (
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial, 'time_to_first_token',
        time_to_first_token
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial,
        'prompt_tokens_per_second', prompt_tokens_per_second
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial,
        'generation_tokens_per_second', generation_tokens_per_second
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial, 'token_latency',
        latency.value
    FROM trials
    CROSS JOIN json_each(trials.token_latencies) AS latency
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial, 'seconds', seconds
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial, 'peak_memory', peak_memory
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, trial, 'active_memory',
        active_memory
    FROM trials
),
ranked AS (
    SELECT
        *,
        row_number() OVER (shape ORDER BY value) AS position,
        count(*) OVER shape AS samples,
        avg(value) OVER shape AS mean,
        avg(trial) OVER shape AS middle
    FROM sample
    WHERE value IS NOT NULL
    WINDOW shape AS (
        PARTITION BY benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, metric
    )
),
spread AS (
    SELECT
        benchmark_id,
        prompt_tokens,
        context_tokens,
        batch_size,
        generated_tokens,
        metric,
        count(DISTINCT trial) AS trials,
        max(mean) AS mean,
        sum((value - mean) * (value - mean)) / nullif(max(samples) - 1, 0) AS variance,
        min(value) AS lowest,
        min(CASE WHEN position >= 0.5 * samples THEN value END) AS median,
        min(CASE WHEN position >= 0.9 * samples THEN value END) AS percentile_90,
        min(CASE WHEN position >= 0.99 * samples THEN value END) AS percentile_99,
        max(value) AS highest,
        sum((trial - middle) * (value - mean)) / nullif(sum((trial - middle) * (trial - middle)), 0)
            * (max(trial) - min(trial)) / nullif(max(mean), 0) AS drift
    FROM ranked
    GROUP BY benchmark_id, prompt_tokens, context_tokens, batch_size, generated_tokens, metric
)
SELECT
    benchmarks.id,
    runs.name AS run,
    benchmarks.model,
    benchmarks.adapter_path,
    benchmarks.host,
    benchmarks.device,
    spread.prompt_tokens,
    spread.context_tokens,
    spread.batch_size,
    spread.metric,
    spread.trials,
    spread.mean,
    CASE WHEN spread.variance = 0 THEN 0.0 ELSE (
        WITH RECURSIVE newton (root, step) AS (
            SELECT spread.variance + 1, 0
            UNION ALL
            SELECT (root + spread.variance / root) / 2, step + 1
            FROM newton
            WHERE step < 100
        )
        SELECT root FROM newton WHERE step = 100
    ) END AS standard_deviation,
    spread.lowest,
    spread.median,
    spread.percentile_90,
    spread.percentile_99,
    spread.highest,
    benchmarks.load_seconds,
    benchmarks.created_at,
    spread.generated_tokens,
    spread.drift,
    coalesce(benchmarks.config ->> '$.interrupted', 0) AS is_interrupted
FROM spread
CROSS JOIN benchmarks ON benchmarks.id = spread.benchmark_id
LEFT JOIN runs ON runs.id = benchmarks.run_id;
