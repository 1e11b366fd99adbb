-- The first schema: every table of the registry.
-- Tables are STRICT, times are %Y-%m-%dT%H:%M:%fZ in UTC, JSON columns are checked. README.md explains each column.

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('lora', 'dora', 'full')),
    status TEXT NOT NULL DEFAULT 'created'
        CHECK (status IN ('created', 'running', 'interrupted', 'completed', 'failed')),
    fingerprint TEXT NOT NULL,
    parent_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    branch_iteration INTEGER,
    model TEXT NOT NULL,
    model_identity TEXT NOT NULL,
    data TEXT NOT NULL,
    data_identity TEXT NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    target_iterations INTEGER NOT NULL,
    iteration INTEGER NOT NULL DEFAULT 0,
    epoch INTEGER NOT NULL DEFAULT 0,
    trained_tokens INTEGER NOT NULL DEFAULT 0,
    adapter_path TEXT NOT NULL,
    offered_checkpoint_id INTEGER REFERENCES checkpoints (id) ON DELETE SET NULL,
    best_iteration INTEGER,
    best_validation_loss REAL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    note TEXT
) STRICT;

CREATE INDEX runs_by_fingerprint ON runs (fingerprint);
CREATE INDEX runs_by_parent ON runs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX runs_by_offered_checkpoint ON runs (offered_checkpoint_id) WHERE offered_checkpoint_id IS NOT NULL;

CREATE TABLE tags (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    tag TEXT NOT NULL,
    PRIMARY KEY (run_id, tag)
) STRICT, WITHOUT ROWID;

CREATE INDEX tags_by_tag ON tags (tag);

CREATE TABLE attempts (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start_kind TEXT NOT NULL CHECK (start_kind IN ('fresh', 'exact', 'inexact', 'warm', 'branch')),
    start_note TEXT,
    from_iteration INTEGER NOT NULL,
    to_iteration INTEGER,
    started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    ended_at TEXT,
    end_reason TEXT,
    error TEXT,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    boot_id TEXT,
    process_started TEXT,
    heartbeat_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    device TEXT NOT NULL,
    environment TEXT NOT NULL CHECK (json_valid(environment)),
    command TEXT NOT NULL,
    git_commit TEXT,
    UNIQUE (run_id, number)
) STRICT;

CREATE INDEX open_attempts ON attempts (run_id) WHERE ended_at IS NULL;

CREATE TABLE metric_names (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    unit TEXT,
    better TEXT CHECK (better IN ('lower', 'higher'))
) STRICT;

INSERT INTO metric_names (name, unit, better) VALUES
    ('train_loss', 'nats/token', 'lower'),
    ('validation_loss', 'nats/token', 'lower'),
    ('validation_standard_error', 'nats/token', 'lower'),
    ('learning_rate', NULL, NULL),
    ('gradient_norm', NULL, NULL),
    ('tokens_per_second', 'tokens/s', 'higher'),
    ('iterations_per_second', 'iterations/s', 'higher'),
    ('trained_tokens', 'tokens', NULL),
    ('padding_share', 'share', 'lower'),
    ('peak_memory', 'bytes', 'lower'),
    ('active_memory', 'bytes', 'lower'),
    ('system_memory_percent', '%', 'lower'),
    ('cpu_percent', '%', NULL);

-- Interned names and whole milliseconds in the key's own tree: 25 to 27 bytes a point, where text keys take 75.
CREATE TABLE metrics (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name_id INTEGER NOT NULL REFERENCES metric_names (id),
    iteration INTEGER NOT NULL,
    value REAL,
    elapsed_ms INTEGER NOT NULL,
    PRIMARY KEY (run_id, name_id, iteration)
) STRICT, WITHOUT ROWID;

-- One row a curve, kept in the points' own transaction: "best of each run" would otherwise read every point.
CREATE TABLE series (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name_id INTEGER NOT NULL REFERENCES metric_names (id),
    count INTEGER NOT NULL,
    not_finite INTEGER NOT NULL,
    first_iteration INTEGER NOT NULL,
    last_iteration INTEGER NOT NULL,
    last_value REAL,
    last_elapsed_ms INTEGER NOT NULL,
    min_value REAL,
    min_iteration INTEGER,
    max_value REAL,
    max_iteration INTEGER,
    PRIMARY KEY (run_id, name_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    attempt_id INTEGER REFERENCES attempts (id) ON DELETE SET NULL,
    iteration INTEGER NOT NULL,
    adapter_file TEXT NOT NULL,
    state_file TEXT,
    bytes INTEGER NOT NULL,
    adapter_sha256 TEXT NOT NULL,
    state_sha256 TEXT,
    train_loss REAL,
    validation_loss REAL,
    is_best INTEGER NOT NULL DEFAULT 0 CHECK (is_best IN (0, 1)),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    verified_at TEXT,
    status TEXT NOT NULL DEFAULT 'whole' CHECK (status IN ('whole', 'corrupt', 'missing', 'pruned')),
    state_pruned_at TEXT,
    UNIQUE (run_id, iteration)
) STRICT;

CREATE INDEX checkpoints_by_attempt ON checkpoints (attempt_id);

CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY,
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    checkpoint_id INTEGER REFERENCES checkpoints (id) ON DELETE SET NULL,
    base_evaluation_id INTEGER REFERENCES evaluations (id) ON DELETE SET NULL,
    model TEXT NOT NULL,
    adapter_path TEXT,
    data TEXT NOT NULL,
    data_sha256 TEXT NOT NULL,
    kind TEXT NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    rows INTEGER NOT NULL,
    seconds REAL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;

CREATE INDEX evaluations_by_run ON evaluations (run_id);
CREATE INDEX evaluations_by_checkpoint ON evaluations (checkpoint_id);
CREATE INDEX evaluations_by_base ON evaluations (base_evaluation_id);

CREATE TABLE scores (
    evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
    metric TEXT NOT NULL,
    value REAL,
    standard_error REAL,
    PRIMARY KEY (evaluation_id, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE answers (
    evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
    row INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    expected TEXT,
    answer TEXT NOT NULL,
    scores TEXT CHECK (scores IS NULL OR json_valid(scores)),
    PRIMARY KEY (evaluation_id, row)
) STRICT;

CREATE TABLE benchmarks (
    id INTEGER PRIMARY KEY,
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    model TEXT NOT NULL,
    adapter_path TEXT,
    config TEXT NOT NULL CHECK (json_valid(config)),
    load_seconds REAL,
    host TEXT NOT NULL,
    device TEXT NOT NULL,
    environment TEXT NOT NULL CHECK (json_valid(environment)),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;

CREATE INDEX benchmarks_by_run ON benchmarks (run_id);

CREATE TABLE trials (
    benchmark_id INTEGER NOT NULL REFERENCES benchmarks (id) ON DELETE CASCADE,
    trial INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    context_tokens INTEGER NOT NULL DEFAULT 0,
    batch_size INTEGER NOT NULL DEFAULT 1,
    generated_tokens INTEGER NOT NULL,
    time_to_first_token REAL,
    prompt_tokens_per_second REAL,
    generation_tokens_per_second REAL,
    token_latencies TEXT CHECK (token_latencies IS NULL OR json_valid(token_latencies)),
    peak_memory INTEGER,
    active_memory INTEGER,
    seconds REAL NOT NULL,
    PRIMARY KEY (benchmark_id, trial)
) STRICT;

CREATE TABLE profiles (
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    attempt_id INTEGER NOT NULL REFERENCES attempts (id) ON DELETE CASCADE,
    part TEXT NOT NULL,
    seconds REAL NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (attempt_id, part)
) STRICT, WITHOUT ROWID;

CREATE INDEX profiles_by_run ON profiles (run_id);

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    attempt_id INTEGER REFERENCES attempts (id) ON DELETE SET NULL,
    iteration INTEGER,
    time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    level TEXT NOT NULL DEFAULT 'info' CHECK (level IN ('info', 'warning', 'error')),
    kind TEXT NOT NULL,
    message TEXT NOT NULL,
    detail TEXT CHECK (detail IS NULL OR json_valid(detail))
) STRICT;

CREATE INDEX events_by_iteration ON events (run_id, iteration, kind);
CREATE INDEX events_by_attempt ON events (attempt_id);

CREATE TABLE models (
    path TEXT NOT NULL PRIMARY KEY,
    source TEXT,
    revision TEXT,
    bytes INTEGER,
    quantization TEXT,
    sha256 TEXT CHECK (sha256 IS NULL OR json_valid(sha256)),
    added_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    verified_at TEXT
) STRICT;

CREATE TABLE environments (
    id INTEGER PRIMARY KEY,
    backend TEXT NOT NULL,
    lock TEXT NOT NULL,
    python TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;
