-- Did branching help?
-- A negative difference is a gain over the best of the run it left, wherever that was. Where the two validated on other
-- rows, or with another masking, the losses do not measure the same.
SELECT
    child.name AS run,
    parent.name AS parent,
    child.branch_iteration,
    parent.best_validation_loss AS parent_loss,
    child.best_validation_loss AS loss,
    child.best_validation_loss - parent.best_validation_loss AS difference,
    CASE
        WHEN json_extract(child.config, '$.validation_identity') IS NULL
            OR json_extract(parent.config, '$.validation_identity') IS NULL THEN 'unknown'
        WHEN json_extract(child.config, '$.validation_identity') = json_extract(parent.config, '$.validation_identity')
            AND json_extract(child.config, '$.mask_prompt') IS json_extract(parent.config, '$.mask_prompt')
            AND json_extract(child.config, '$.max_seq_length') IS json_extract(parent.config, '$.max_seq_length')
            AND json_extract(child.config, '$.val_batches') IS json_extract(parent.config, '$.val_batches')
            AND (
                json_extract(child.config, '$.val_batches') = -1
                OR (
                    json_extract(child.config, '$.batch_size') IS json_extract(parent.config, '$.batch_size')
                    AND json_extract(child.config, '$.seed') IS json_extract(parent.config, '$.seed')
                )
            ) THEN 'yes'
        ELSE 'no'
    END AS measures_the_same
FROM runs AS child
CROSS JOIN runs AS parent ON parent.id = child.parent_id
ORDER BY difference IS NULL, difference, run;
