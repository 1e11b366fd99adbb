"""The settings of every command: one frozen dataclass each, in a module for each collection.

The fields are the options of `inv`, the keys of a recipe and of `invoke.yaml`, and the JSON in `runs.config`.
"""

from mlxops.config.checkpoints import CheckpointsConfig, DebugCheckpointsConfig
from mlxops.config.data import CheckDataConfig, CreateDataConfig, PreviewDataConfig
from mlxops.config.eval import (
    BenchmarkConfig,
    ChatConfig,
    CompareModelsConfig,
    MeasuringConfig,
    QueryConfig,
    ServeConfig,
    TestConfig,
)
from mlxops.config.finetune import FinetuneConfig
from mlxops.config.help import HelpConfig
from mlxops.config.model import (
    ConvertConfig,
    DownloadConfig,
    FuseConfig,
    ImportConfig,
    InfoConfig,
    ModelsConfig,
    RemoveConfig,
    VerifyConfig,
)
from mlxops.config.project import (
    CleanConfig,
    DoctorConfig,
    InitConfig,
    InstallDepsConfig,
    ListTemplatesConfig,
    QuickstartConfig,
    StatusConfig,
    UpdateConfig,
)
from mlxops.config.run import (
    CompareConfig,
    DeleteConfig,
    ExportConfig,
    ImportRunConfig,
    NoteConfig,
    RenameConfig,
    ReportConfig,
    RunConfig,
    RunsConfig,
    SqlConfig,
    TagConfig,
)
from mlxops.config.train import LoraConfig, MonitorConfig, ResumeConfig, StopConfig

__all__ = [
    "BenchmarkConfig",
    "ChatConfig",
    "CheckDataConfig",
    "CheckpointsConfig",
    "CleanConfig",
    "CompareConfig",
    "CompareModelsConfig",
    "ConvertConfig",
    "CreateDataConfig",
    "DebugCheckpointsConfig",
    "DeleteConfig",
    "DoctorConfig",
    "DownloadConfig",
    "ExportConfig",
    "FinetuneConfig",
    "FuseConfig",
    "HelpConfig",
    "ImportConfig",
    "ImportRunConfig",
    "InfoConfig",
    "InitConfig",
    "InstallDepsConfig",
    "ListTemplatesConfig",
    "LoraConfig",
    "MeasuringConfig",
    "ModelsConfig",
    "MonitorConfig",
    "NoteConfig",
    "PreviewDataConfig",
    "QueryConfig",
    "QuickstartConfig",
    "RemoveConfig",
    "RenameConfig",
    "ReportConfig",
    "ResumeConfig",
    "RunConfig",
    "RunsConfig",
    "ServeConfig",
    "SqlConfig",
    "StatusConfig",
    "StopConfig",
    "TagConfig",
    "TestConfig",
    "UpdateConfig",
    "VerifyConfig",
]
