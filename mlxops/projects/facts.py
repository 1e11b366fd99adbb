"""What the checks of `doctor` judge: facts about machine and environment, with no word on whether they are good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlxops.projects.accelerator import Accelerator
from mlxops.projects.interpreter import Interpreter


@dataclass(frozen=True, kw_only=True)
class SystemFacts:
    """The Python that MLX is used from, and the machine under it.

    `has_apple_silicon` says what the processor is, whatever the Python is made for; `is_translated` that it runs under
    Rosetta.
    """

    python: Interpreter
    has_apple_silicon: bool = False
    is_translated: bool = False


@dataclass(frozen=True, kw_only=True)
class PathFacts:
    """What the shell finds: the folders of PATH, and each file called so, in their order, with whether it is ours.

    `own_folder` is where the programs of the environment at work are; `home_programs` are those in `home_folder`,
    which is `~/.local/bin`.
    """

    folders: tuple[str, ...]
    found: Mapping[str, tuple[tuple[str, bool], ...]]
    own_folder: str
    home_folder: str
    home_programs: tuple[str, ...]
    shell: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentFacts:
    """The environment of the project, `is_own`, or else the one at work.

    `state` is that of mlxops' own stamp in it, None without one; `differences` are packages that are not as
    requirements.lock has them, `conflicts` what pip says does not fit together, `hidden` files that Python skips.
    """

    folder: str
    is_own: bool
    python: str | None
    state: str | None = None
    made_in: str | None = None
    is_dangling: bool = False
    is_damaged: bool = False
    versions: Mapping[str, str]
    backends: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ComputeFacts:
    """What a child process of the environment's Python says of MLX; `error` is why it could not compute.

    `flops` are those of a matrix product in float32, per second, `is_right` whether its result was.
    """

    error: str | None = None
    device: str | None = None
    is_right: bool = True
    blas: str | None = None
    blas_note: str | None = None
    flops: float | None = None


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """Memory, swap, disks and the compiler; bytes. `pressure` is macOS's own word: 1 normal, 2 warning, 4 critical."""

    on_macos: bool
    memory: int
    memory_free: int
    memory_limit: int | None = None
    wired_limit: int | None = None
    pressure: int | None = None
    swap: int = 0
    swap_used: int = 0
    swapped_per_second: float = 0.0
    disks: Mapping[str, int]
    compiler: str | None = None
    has_developer_tools: bool = True


@dataclass(frozen=True, kw_only=True)
class HubFacts:
    """Whether the hub answers. `problem` is why not, `is_offline` that it is not asked."""

    endpoint: str
    is_offline: bool = False
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlaceFacts:
    """Where the registry is: its kind of file system, whether that is another machine's, and what syncs the folder."""

    folder: str
    file_system: str | None = None
    is_remote: bool = False
    synced_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class PermissionFacts:
    """What cannot be written that a training needs, and the cache where that cannot be written."""

    needed: tuple[str, ...] = ()
    cache: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of machine and environment."""

    system: SystemFacts
    path: PathFacts
    environment: EnvironmentFacts
    accelerators: tuple[Accelerator, ...]
    compute: ComputeFacts
    machine: MachineFacts
    place: PlaceFacts
    hub: HubFacts
    permissions: PermissionFacts
