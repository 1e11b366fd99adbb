-- The closing validation of a target that a run was extended beyond and has not finished since: it is no point of the
-- longer run's curve, and its loss stays with the checkpoint it was measured on. NULL for all other checkpoints.

ALTER TABLE checkpoints ADD COLUMN closing_standard_error REAL;
ALTER TABLE checkpoints ADD COLUMN closing_elapsed_ms INTEGER;
