-- How far an attempt is between its reports, from its first step on: as of its last heartbeat, what its process measured.
-- `iterations_per_second` is that of the steps alone; `expected_end_at` counts the validations and savings to come, too.

ALTER TABLE attempts ADD COLUMN at_iteration INTEGER;
ALTER TABLE attempts ADD COLUMN step_loss REAL;
ALTER TABLE attempts ADD COLUMN iterations_per_second REAL;
ALTER TABLE attempts ADD COLUMN tokens_per_second REAL;
ALTER TABLE attempts ADD COLUMN expected_end_at TEXT;
