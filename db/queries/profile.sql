-- Which part of the work took how long?
-- :run name of the run; all runs unless given
SELECT
    profiles.part,
    round(sum(profiles.seconds), 3) AS seconds,
    round(100 * sum(profiles.seconds) / sum(sum(profiles.seconds)) OVER (), 1) AS percent,
    sum(profiles.count) AS times,
    1000 * sum(profiles.seconds) / sum(profiles.count) AS milliseconds_each
FROM runs
CROSS JOIN profiles ON profiles.run_id = runs.id
WHERE :run IS NULL OR runs.name = :run
GROUP BY profiles.part
ORDER BY sum(profiles.seconds) DESC, profiles.part;
