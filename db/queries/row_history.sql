-- When did the answer to a row become right, and when was it forgotten?
-- Of every checkpoint of the run that was tested on the same data as the newest, the newest test.
-- :row which row of the test, a whole number from 1; 1 unless given
-- :run name of the run; the newest whose checkpoints have answers unless given
WITH
tested AS (
    SELECT evaluations.id, evaluations.run_id, evaluations.data_sha256, checkpoints.iteration
    FROM evaluations
    CROSS JOIN runs ON runs.id = evaluations.run_id
    CROSS JOIN checkpoints ON checkpoints.id = evaluations.checkpoint_id
    WHERE evaluations.kind = 'test'
        AND (:run IS NULL OR runs.name = :run)
        AND EXISTS (SELECT 1 FROM answers WHERE evaluation_id = evaluations.id)
),
newest AS (SELECT run_id, data_sha256 FROM tested ORDER BY run_id DESC, id DESC LIMIT 1),
asked AS (
    SELECT max(tested.id) AS id, tested.iteration
    FROM newest
    CROSS JOIN tested ON tested.run_id = newest.run_id AND tested.data_sha256 = newest.data_sha256
    GROUP BY tested.iteration
),
answered AS (
    SELECT asked.iteration, answers.prompt, answers.expected, answers.answer,
        coalesce(answers.scores ->> '$.exact_match' = 1, answers.answer = answers.expected, 0) AS is_right
    FROM asked
    CROSS JOIN answers ON answers.evaluation_id = asked.id
    WHERE answers.row = coalesce(:row, 1)
)
SELECT
    iteration,
    CASE
        WHEN is_right AND NOT coalesce(lag(is_right) OVER in_order, 0) THEN 'became right'
        WHEN NOT is_right AND lag(is_right) OVER in_order THEN 'forgotten'
        WHEN is_right THEN 'right'
        ELSE 'wrong'
    END AS state,
    prompt,
    expected,
    answer
FROM answered
WINDOW in_order AS (ORDER BY iteration)
ORDER BY iteration;
