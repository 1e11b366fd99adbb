-- Did loss or speed change between versions?
-- Each version beside the one used before it, over runs of the same model, data, device and batch size. A run's speed
-- is the median of the last 25 reports of its newest attempt, without those of 0 and without runs that failed. The
-- change of the loss is that of finished runs with the same settings and iterations, one with each version: so many
-- pairs.
-- :package a package, as mlx-lm or mlxops; mlx unless given
WITH version AS (
    SELECT
        id AS attempt_id,
        run_id,
        number,
        device,
        started_at,
        json_extract(environment, '$.versions."' || coalesce(:package, 'mlx') || '"') AS version
    FROM attempts
),
used AS (
    SELECT
        runs.model,
        runs.data,
        runs.model_identity || ' ' || runs.data_identity AS identity,
        runs.fingerprint || ' ' || runs.iteration AS repeated,
        version.device,
        json_extract(runs.config, '$.batch_size') AS batch_size,
        version.version,
        version.started_at,
        speed.tokens_per_second AS speed,
        -- the best of a run that several versions worked on is the doing of none of them
        iif(runs.status = 'completed' AND every.versions = 1, runs.best_validation_loss, NULL) AS loss
    FROM runs
    LEFT JOIN run_speed AS speed ON speed.run_id = runs.id
    JOIN (
        SELECT run_id, max(attempt_id) AS newest, count(DISTINCT version) AS versions
        FROM version
        GROUP BY run_id
    ) AS every ON every.run_id = runs.id
    JOIN version ON version.attempt_id = coalesce(speed.attempt_id, every.newest)
    WHERE version.version IS NOT NULL
),
mean AS (
    SELECT
        model, data, identity, device, batch_size, version,
        min(started_at) AS first_used,
        count(*) AS runs,
        avg(speed) AS tokens_per_second
    FROM used
    GROUP BY identity, device, batch_size, version
),
ordered AS (
    SELECT
        *,
        lag(version) OVER earlier AS version_before,
        lag(tokens_per_second) OVER earlier AS tokens_per_second_before
    FROM mean
    WINDOW earlier AS (PARTITION BY identity, device, batch_size ORDER BY first_used, version)
),
pair AS (
    SELECT now.identity, now.device, now.batch_size, now.version, before.version AS version_before,
        now.loss - before.loss AS change
    FROM used AS now
    JOIN used AS before ON before.repeated = now.repeated AND before.device = now.device
    WHERE now.loss IS NOT NULL AND before.loss IS NOT NULL AND before.version <> now.version
)
SELECT
    ordered.model, ordered.data, ordered.device, ordered.batch_size, ordered.version, ordered.runs,
    ordered.tokens_per_second,
    round(100 * (ordered.tokens_per_second / ordered.tokens_per_second_before - 1), 1) AS speed_change_percent,
    count(pair.change) AS pairs,
    avg(pair.change) AS loss_change
FROM ordered
LEFT JOIN pair
    ON pair.identity = ordered.identity
    AND pair.device = ordered.device
    AND pair.batch_size IS ordered.batch_size
    AND pair.version = ordered.version
    AND pair.version_before = ordered.version_before
GROUP BY ordered.identity, ordered.device, ordered.batch_size, ordered.version
ORDER BY ordered.model, ordered.data, ordered.device, ordered.batch_size, ordered.first_used, ordered.version;
