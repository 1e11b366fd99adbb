-- What a person thinks of an answer in a chat: the conversation up to it, good or bad, and why. `run_id` and
-- `checkpoint_id` are those of the adapter that answered, NULL for the base model and for adapters of other programs.

CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY,
    run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
    checkpoint_id INTEGER REFERENCES checkpoints (id) ON DELETE SET NULL,
    model TEXT NOT NULL,
    adapter_path TEXT,
    verdict TEXT NOT NULL CHECK (verdict IN ('good', 'bad')),
    messages TEXT NOT NULL CHECK (json_valid(messages)),
    prompt TEXT NOT NULL,
    answer TEXT NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    note TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;

CREATE INDEX verdicts_by_run ON verdicts (run_id);
CREATE INDEX verdicts_by_checkpoint ON verdicts (checkpoint_id);
