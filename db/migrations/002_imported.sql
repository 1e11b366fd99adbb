-- Where a run of another tool was imported from: an adapter folder or a log, relative to the project's root where it is
-- inside. NULL: this toolkit trained the run. Nothing writes to the folder of an imported run, and no training resumes it.

ALTER TABLE runs ADD COLUMN imported_from TEXT;

CREATE INDEX imported_runs ON runs (imported_from) WHERE imported_from IS NOT NULL;
