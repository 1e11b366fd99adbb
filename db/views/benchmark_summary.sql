-- One row a benchmark, shape of request and figure. Percentiles are values that were measured (nearest rank).
-- sqrt() is an option SQLite may be built without, so the standard deviation is found by Newton's method.
CREATE VIEW benchmark_summary AS
WITH
sample (benchmark_id, prompt_tokens, context_tokens, batch_size, metric, value) AS (
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, 'time_to_first_token', time_to_first_token
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, 'prompt_tokens_per_second',
        prompt_tokens_per_second
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, 'generation_tokens_per_second',
        generation_tokens_per_second
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, 'seconds', seconds
    FROM trials
    UNION ALL
    SELECT benchmark_id, prompt_tokens, context_tokens, batch_size, 'peak_memory', peak_memory
    FROM trials
),
ranked AS (
    SELECT
        *,
        row_number() OVER (shape ORDER BY value) AS position,
        count(*) OVER shape AS trials,
        avg(value) OVER shape AS mean
    FROM sample
    WHERE value IS NOT NULL
    WINDOW shape AS (PARTITION BY benchmark_id, prompt_tokens, context_tokens, batch_size, metric)
),
spread AS (
    SELECT
        benchmark_id,
        prompt_tokens,
        context_tokens,
        batch_size,
        metric,
        max(trials) AS trials,
        max(mean) AS mean,
        sum((value - mean) * (value - mean)) / nullif(max(trials) - 1, 0) AS variance,
        min(value) AS lowest,
        min(CASE WHEN position >= 0.5 * trials THEN value END) AS median,
        min(CASE WHEN position >= 0.9 * trials THEN value END) AS percentile_90,
        min(CASE WHEN position >= 0.99 * trials THEN value END) AS percentile_99,
        max(value) AS highest
    FROM ranked
    GROUP BY benchmark_id, prompt_tokens, context_tokens, batch_size, metric
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
    benchmarks.created_at
FROM spread
CROSS JOIN benchmarks ON benchmarks.id = spread.benchmark_id
LEFT JOIN runs ON runs.id = benchmarks.run_id;
