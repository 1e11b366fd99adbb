-- In which settings do two runs differ?
-- :one name of a run
-- :other name of the other run
SELECT
    ours.fullkey AS setting,
    ours.atom AS one,
    theirs.atom AS other
FROM runs AS one
CROSS JOIN json_tree(one.config) AS ours
CROSS JOIN runs AS other
LEFT JOIN json_tree(other.config) AS theirs ON theirs.fullkey = ours.fullkey
WHERE one.name = :one AND other.name = :other AND ours.atom IS NOT theirs.atom
UNION
SELECT theirs.fullkey, ours.atom, theirs.atom
FROM runs AS other
CROSS JOIN json_tree(other.config) AS theirs
CROSS JOIN runs AS one
LEFT JOIN json_tree(one.config) AS ours ON ours.fullkey = theirs.fullkey
WHERE one.name = :one AND other.name = :other AND ours.atom IS NOT theirs.atom
ORDER BY setting;
