"""The registry of runs: the only code that opens SQLite. db/README.md lists what it promises.

Importing it is cheap: sqlite-utils and psutil wait inside the functions that use them.
"""

from mlxops.registry.alive import boot_id, is_proven_alive, is_proven_dead, process_start, this_host
from mlxops.registry.attempts import attempts_of, close_dead_attempts, end_attempt, start_attempt
from mlxops.registry.checkpoints import (
    add_checkpoint,
    all_checkpoints,
    branch_points,
    checkpoints_of,
    iteration_rates,
    mark_checkpoint,
    mark_pruned,
    offer_checkpoint,
)
from mlxops.registry.curves import latest_metrics, loss_curve, metric_series
from mlxops.registry.database import Registry, data_version, open_read_only, open_registry
from mlxops.registry.evaluations import Answer, answers_of, record_evaluation
from mlxops.registry.heartbeat import Heartbeat
from mlxops.registry.history import add_event, events_of
from mlxops.registry.lineage import family_of
from mlxops.registry.metrics import record_report, record_validation
from mlxops.registry.queries import SavedQuery, Table, query, saved_queries, saved_query, schema
from mlxops.registry.runs import (
    RunRow,
    candidate_runs,
    create_run,
    find_run,
    id_of,
    list_runs,
    new_name,
    set_tags,
    update_run,
)

__all__ = [
    "Answer",
    "Heartbeat",
    "Registry",
    "RunRow",
    "SavedQuery",
    "Table",
    "add_checkpoint",
    "add_event",
    "all_checkpoints",
    "answers_of",
    "attempts_of",
    "boot_id",
    "branch_points",
    "candidate_runs",
    "checkpoints_of",
    "close_dead_attempts",
    "create_run",
    "data_version",
    "end_attempt",
    "events_of",
    "family_of",
    "find_run",
    "id_of",
    "is_proven_alive",
    "is_proven_dead",
    "iteration_rates",
    "latest_metrics",
    "list_runs",
    "loss_curve",
    "mark_checkpoint",
    "mark_pruned",
    "metric_series",
    "new_name",
    "offer_checkpoint",
    "open_read_only",
    "open_registry",
    "process_start",
    "query",
    "record_evaluation",
    "record_report",
    "record_validation",
    "saved_queries",
    "saved_query",
    "schema",
    "set_tags",
    "start_attempt",
    "this_host",
    "update_run",
]
