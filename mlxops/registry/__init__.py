"""The registry of runs: the only code that opens SQLite. db/README.md lists what it promises.

Importing it is cheap: sqlite-utils and psutil wait inside the functions that use them.
"""

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
from mlxops.registry.curves import curve_summary, latest_metrics, loss_curve, metric_series
from mlxops.registry.database import Registry, data_version, open_read_only, open_registry
from mlxops.registry.delete import check_removable, remove_runs, rows_of_runs
from mlxops.registry.evaluations import Answer, answers_of, evaluations_of, last_answers, record_evaluation
from mlxops.registry.export import TableRows, read_metrics, read_runs, read_tables
from mlxops.registry.heartbeat import Heartbeat
from mlxops.registry.history import add_event, events_of
from mlxops.registry.imports import Imported, ImportedRun, Points, gather_points, imports_of, record_import
from mlxops.registry.lineage import family_of
from mlxops.registry.metrics import record_report, record_validation
from mlxops.registry.monitor import (
    attempts_at_work,
    last_points,
    one_moment,
    overview,
    process_of,
    summary_of,
    time_of_best,
    try_to_close_dead_attempts,
    warned_at,
)
from mlxops.registry.processes import boot_id, is_proven_alive, is_proven_dead, process_start, this_host
from mlxops.registry.ranges import Ranges
from mlxops.registry.runs import (
    RunRow,
    candidate_runs,
    change_tags,
    check_column,
    create_run,
    find_run,
    id_of,
    list_runs,
    new_name,
    set_tags,
    summary_columns,
    update_run,
)
from mlxops.registry.sql.query import Table, query
from mlxops.registry.sql.saved import SavedQuery, saved_queries, saved_query, schema
from mlxops.registry.sql.text import parameters_of
from mlxops.registry.verdicts import record_verdict

__all__ = [
    "Answer",
    "Heartbeat",
    "Imported",
    "ImportedRun",
    "Points",
    "Ranges",
    "Registry",
    "RunRow",
    "SavedQuery",
    "Table",
    "TableRows",
    "add_checkpoint",
    "add_event",
    "all_checkpoints",
    "answers_of",
    "attempts_at_work",
    "attempts_of",
    "boot_id",
    "branch_points",
    "candidate_runs",
    "change_tags",
    "check_column",
    "check_removable",
    "checkpoints_of",
    "close_dead_attempts",
    "create_run",
    "curve_summary",
    "data_version",
    "end_attempt",
    "evaluations_of",
    "events_of",
    "family_of",
    "find_run",
    "gather_points",
    "id_of",
    "imports_of",
    "is_proven_alive",
    "is_proven_dead",
    "iteration_rates",
    "last_answers",
    "last_points",
    "latest_metrics",
    "list_runs",
    "loss_curve",
    "mark_checkpoint",
    "mark_pruned",
    "metric_series",
    "new_name",
    "offer_checkpoint",
    "one_moment",
    "open_read_only",
    "open_registry",
    "overview",
    "parameters_of",
    "process_of",
    "process_start",
    "query",
    "read_metrics",
    "read_runs",
    "read_tables",
    "record_evaluation",
    "record_import",
    "record_report",
    "record_validation",
    "record_verdict",
    "remove_runs",
    "rows_of_runs",
    "saved_queries",
    "saved_query",
    "schema",
    "set_tags",
    "start_attempt",
    "summary_columns",
    "summary_of",
    "this_host",
    "time_of_best",
    "try_to_close_dead_attempts",
    "update_run",
    "warned_at",
]
