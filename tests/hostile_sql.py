"""Saved texts that would write, never end, fill the memory, or are wrong; each with the exit code it must come to.

1: given up, for it took too much time or memory; 2: wrong; 3: refused, for it would do more than read.
"""

from __future__ import annotations

_ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
_DOUBLED = ", ".join(f"a{n} AS (SELECT * FROM a{n - 1} UNION ALL SELECT * FROM a{n - 1})" for n in range(1, 24))
_LONG = "replace(hex(zeroblob(4000000)), '0', 'a')"

TEXTS: list[tuple[int, str]] = [
    # would write
    (3, "DELETE FROM runs"),
    (3, "INSERT INTO tags VALUES (1, 'x')"),
    (3, "REPLACE INTO tags VALUES (1, 'x')"),
    (3, "UPDATE runs SET name = 'x' RETURNING id"),
    (3, "WITH one AS (SELECT 1) DELETE FROM tags"),
    (3, "EXPLAIN DELETE FROM runs"),
    (3, "DROP TABLE runs"),
    (3, "DROP VIEW metric"),
    (3, "ALTER TABLE runs ADD COLUMN x"),
    (3, "CREATE TABLE x (y)"),
    (3, "CREATE TEMP TABLE x AS SELECT * FROM runs"),
    (3, "CREATE TEMP VIEW x AS SELECT 1"),
    (3, "CREATE TRIGGER x AFTER INSERT ON runs BEGIN DELETE FROM runs; END"),
    (3, "CREATE VIRTUAL TABLE x USING fts5(y)"),
    (3, "CREATE INDEX x ON runs (name)"),
    (3, "REINDEX"),
    (3, "ANALYZE"),
    (3, "VACUUM"),
    (3, "VACUUM INTO 'copy.db'"),
    (3, "ATTACH 'other.db' AS other"),
    (3, "DETACH main"),
    (3, "BEGIN IMMEDIATE"),
    (3, "SAVEPOINT x"),
    (3, "PRAGMA journal_mode = DELETE"),
    (3, "PRAGMA writable_schema = 1"),
    (3, "PRAGMA query_only = OFF"),
    (3, "PRAGMA user_version = 99"),
    (3, "PRAGMA wal_checkpoint(TRUNCATE)"),
    (3, "SELECT load_extension('x')"),
    (3, "UPDATE sqlite_master SET sql = ''"),
    (3, "DELETE FROM sqlite_master"),
    (3, "EXPLAIN WITH one AS (SELECT 1) DELETE FROM sqlite_schema"),
    (3, "INSERT INTO run_summary (name) VALUES ('x')"),
    (3, "CREATE TABLE runs (x)"),
    (3, "DROP TABLE no_such_table"),
    (2, "SELECT writefile('x', 'y')"),
    (2, "SELECT 1; DELETE FROM runs"),
    (3, ";;DELETE FROM runs"),
    # never ends, or takes all there is
    (1, f"{_ENDLESS} SELECT count(*) FROM n"),
    (1, f"{_ENDLESS} SELECT i FROM n"),
    (1, f"{_ENDLESS} SELECT i FROM n ORDER BY i DESC"),
    (1, f"{_ENDLESS} SELECT i FROM n WHERE i < 0"),
    (1, f"{_ENDLESS} SELECT group_concat(hex(randomblob(100000))) FROM n"),
    (1, f"{_ENDLESS} SELECT i, hex(randomblob(1000000)) FROM n"),
    (1, f"{_ENDLESS} SELECT sum(length(replace(hex(zeroblob(1000)), '0', hex(zeroblob(1000))))) FROM n"),
    (1, "SELECT count(*) FROM metrics a, metrics b, metrics c, metrics d, metrics e, metrics f, metrics g"),
    (1, "SELECT zeroblob(1000000000)"),
    (1, "SELECT hex(zeroblob(16000000))"),
    # wrong
    (2, "SELEC name FROM runs"),
    (2, "SELECT nam FROM runs"),
    (2, "SELECT name FROM run"),
    (2, "SELECT 'never closed"),
    (2, "SELECT /* never closed"),
    (2, "SELECT"),
    (2, "   "),
    (2, "/* nothing */"),
    (2, "SELECT ?"),
    (2, "SELECT :a, :b"),
    (2, "SELECT '%s' FROM runs WHERE \x1b[31m"),
    (2, "SELECT averge(1)"),
    (2, "SELECT max()"),
    (2, "SELECT json_extract('{', '$.a')"),
    (2, "SELECT abs(-9223372036854775808)"),
    (2, "SELECT " + "(" * 3000 + "1" + ")" * 3000),
    (2, "SELECT " + "1 + " * 5000 + "1"),
    (2, "SELECT name FROM runs a, runs b"),
    (2, "SELECT * FROM runs WHERE name = 'x' ORDER LIMIT"),
    (2, "SELECT \udc80"),
    (2, ".read /etc/passwd"),
    (2, "@../../secret"),
]
"""Those that SQLite lets go when it is told to."""

ONE_CALL: list[tuple[int, str]] = [
    (1, f"WITH a0 AS (SELECT 1 AS x), {_DOUBLED} SELECT count(*) FROM a23"),
    (1, f"SELECT instr({_LONG}, substr({_LONG}, 1, 4000000) || 'b')"),
    (1, f"SELECT replace({_LONG}, substr({_LONG}, 1, 4000000) || 'b', '')"),
]
"""Those that stay within one call for seconds to hours, where SQLite hears nothing."""
