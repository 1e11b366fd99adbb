-- Which runs were resumed, how, and how did they do?
-- An attempt that found no checkpoint to resume from restarted. Imported runs are left out: their sources do not say.
SELECT
    run_summary.name AS run,
    run_summary.status,
    count(CASE WHEN attempt.is_resumed THEN 1 END) AS resumed,
    count(CASE WHEN attempt.start_kind = 'exact' THEN 1 END) AS exact,
    count(CASE WHEN attempt.start_kind = 'inexact' THEN 1 END) AS inexact,
    count(CASE WHEN NOT attempt.is_resumed THEN 1 END) AS begun_anew,
    group_concat(CASE WHEN attempt.is_resumed THEN attempt.from_iteration END, ', ') AS at_iterations,
    group_concat(CASE WHEN attempt.is_resumed THEN attempt.start_note END, '; ') AS what_differed,
    run_summary.best_validation_loss
FROM run_summary
CROSS JOIN (
    SELECT *, start_kind IN ('exact', 'inexact') AS is_resumed
    FROM attempts
    WHERE number > 1
    ORDER BY run_id, number
) AS attempt ON attempt.run_id = run_summary.id
WHERE run_summary.imported_from IS NULL
GROUP BY run_summary.id
HAVING resumed > 0
ORDER BY resumed DESC, run;
