-- Where each run comes from: one row for itself (generations 0) and one for every ancestor.
CREATE VIEW run_lineage AS
WITH RECURSIVE lineage (run_id, ancestor_id, generations, branch_iteration, path) AS (
    SELECT id, id, 0, NULL, name
    FROM runs
    UNION ALL
    SELECT
        lineage.run_id,
        child.parent_id,
        lineage.generations + 1,
        child.branch_iteration,
        parent.name || ' > ' || lineage.path
    FROM lineage
    CROSS JOIN runs AS child ON child.id = lineage.ancestor_id
    CROSS JOIN runs AS parent ON parent.id = child.parent_id
    WHERE lineage.generations < 1000
)
SELECT
    runs.name AS run,
    ancestors.name AS ancestor,
    lineage.generations,
    lineage.branch_iteration,
    lineage.path
FROM lineage
CROSS JOIN runs ON runs.id = lineage.run_id
CROSS JOIN runs AS ancestors ON ancestors.id = lineage.ancestor_id;
