"""Checkpoints on disk: written so that they are whole or absent, and verified without MLX before they are used.

A checkpoint is two files. `NNNNNNN_adapters.safetensors` holds the weights and is what mlx-lm reads;
`NNNNNNN_state.safetensors` holds what else is needed to continue: the optimizer's state, gradients accumulated and not
yet applied, and in its metadata the counters, the fingerprint, the run's settings and the SHA-256 of the adapter file.
The state file is renamed into place last, so where it stands, its adapter file is complete. One iteration can be
written twice: closed at a target, and as the longer run has it. Each of the two adapters goes with the closed state,
which holds the weights of both.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import files, tensors
from mlxops.errors import Failed
from mlxops.events import Saved
from mlxops.layout import CORRUPT, OFFERED, adapter_name, state_name
from mlxops.training.state import Counters

if TYPE_CHECKING:
    import mlx.core as mx

FORMAT = "mlxops-state-2"
"""The state is sealed (see `tensors`)."""

_FIRST_FORMAT = "mlxops-state-1"
"""Its metadata has the hash of the rest of it; runs that began then continue."""
_OWN = "weights."

_NUMBERED = re.compile(r"^(\d{7,})_(adapters|state)\.safetensors$")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint: both files read through and equal to their hashes.

    `counters` are those to resume from; the losses belong to the weights, which a closing update can be ahead of them.
    `has_closing` tells that the weights or the losses are those of a target off a grid.
    """

    folder: Path
    iteration: int
    counters: Counters
    train_loss: float | None
    validation_loss: float | None
    fingerprint: str
    environment: dict[str, Any]
    run: dict[str, Any]
    adapter_sha256: str
    state_sha256: str
    bytes: int
    has_closing: bool = False

    @property
    def adapter_path(self) -> Path:
        """The file of its weights."""
        return self.folder / adapter_name(self.iteration)

    @property
    def state_path(self) -> Path:
        """The file of all else."""
        return self.folder / state_name(self.iteration)


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A checkpoint that cannot be used, and why."""

    iteration: int
    reason: str


def write(
    folder: Path,
    *,
    weights: Mapping[str, mx.array],
    weights_to_go_on: Mapping[str, mx.array] | None,
    optimizer: Mapping[str, mx.array],
    accumulated: Mapping[str, mx.array],
    counters: Counters,
    counters_of_weights: Counters | None = None,
    random: int,
    fingerprint: str,
    environment: Mapping[str, Any],
    run: Mapping[str, Any],
    carry: Callable[[int], None] = lambda iteration: None,
) -> Saved:
    """Write a checkpoint and offer its weights as `adapters.safetensors`.

    `weights_to_go_on` is given where `weights` contain a closing update that a longer run would not make; it goes
    into the state file, as `counters` do, and `counters_of_weights` are those after the closing. `carry` writes what
    else belongs to the iteration before the checkpoint is in place. On return both files are on the disk. Raises
    `Failed`, with nothing half-written left, where the disk does not take them.
    """
    started = time.perf_counter()
    iteration, reached = counters.iteration, counters_of_weights or counters
    validation_loss = reached.validation_loss if reached.validated_at == iteration else None
    partial = [
        folder / f".{name}.partial.safetensors" for name in (adapter_name(iteration), state_name(iteration), OFFERED)
    ]
    beside_adapter, beside_state, beside_offered = partial
    syncing = ThreadPoolExecutor(1)  # the disk writes while the processor hashes
    try:
        described = {"format": "mlx", "iteration": str(iteration), "fingerprint": fingerprint}
        adapter_sha256 = tensors.write(beside_adapter, weights, described)
        synced = [syncing.submit(files.sync, beside_adapter)]
        arrays = {f"optimizer.{name}": value for name, value in optimizer.items()}
        arrays |= {f"accumulated.{name}": value for name, value in accumulated.items()}
        arrays |= {f"{_OWN}{name}": value for name, value in (weights_to_go_on or {}).items()}
        metadata = {
            "format": FORMAT,
            "counters": counters.to_json(),
            "losses": json.dumps([reached.train_loss, validation_loss]),
            "random": str(random),
            "fingerprint": fingerprint,
            "environment": json.dumps(environment),
            "run": json.dumps(run),
            "adapter_sha256": adapter_sha256,
        }
        state_sha256 = tensors.write(beside_state, arrays, metadata, sealed=True)
        synced.append(syncing.submit(files.sync, beside_state))
        shutil.copyfile(beside_adapter, beside_offered)
        synced.append(syncing.submit(files.sync, beside_offered))
        for each in synced:
            each.result()
        size = beside_adapter.stat().st_size + beside_state.stat().st_size
        carry(iteration)
        # all that a full disk can refuse is done
        places = [(beside_adapter, adapter_name(iteration)), (beside_state, state_name(iteration))]
        if weights_to_go_on is not None and (folder / adapter_name(iteration)).exists():
            # this state holds the weights of the adapter that stands there, and so goes with both
            places.reverse()
        for beside, name in places:
            beside.replace(folder / name)
        beside_offered.replace(folder / OFFERED)
        files.sync(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError is how MLX reports what it could not compute
        syncing.shutdown()
        for path in partial:
            path.unlink(missing_ok=True)
        raise Failed(
            f"the checkpoint of iteration {iteration} could not be written to {str(folder)!r}: {error}",
            hint="make room there; the same command then resumes from the checkpoint before it",
        ) from error
    finally:
        syncing.shutdown()
    return Saved(
        iteration=iteration,
        adapter_file=adapter_name(iteration),
        state_file=state_name(iteration),
        bytes=size,
        adapter_sha256=adapter_sha256,
        state_sha256=state_sha256,
        train_loss=reached.train_loss,
        validation_loss=validation_loss,
        seconds=time.perf_counter() - started,
    )


def offer(checkpoint: Checkpoint) -> None:
    """Make `adapters.safetensors` a copy of this checkpoint's weights."""
    offer_file(checkpoint.adapter_path)


def offer_file(adapter: Path) -> None:
    """Make `adapters.safetensors` a copy of an adapter file of the same folder."""
    beside = adapter.with_name(f".{OFFERED}.partial.safetensors")
    shutil.copyfile(adapter, beside)
    files.sync(beside)
    beside.replace(adapter.with_name(OFFERED))


def offer_nothing(folder: Path) -> None:
    """Take back what the folder offers."""
    (folder / OFFERED).unlink(missing_ok=True)


def iterations(folder: Path) -> list[int]:
    """The iterations of which a state file stands in the folder, newest first."""
    found = (_NUMBERED.match(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted({int(match[1]) for match in found if match and match[2] == "state"}, reverse=True)


def newest(
    folder: Path, *, fingerprint: str | None = None, recorded: Collection[int] = ()
) -> tuple[Checkpoint | None, list[Damaged]]:
    """The newest whole checkpoint of a folder, and the newer ones that are damaged.

    `recorded` are the iterations of which there has to be one.
    """
    damaged: list[Damaged] = []
    for iteration in sorted({*iterations(folder), *recorded}, reverse=True):
        found = read(folder, iteration, fingerprint=fingerprint)
        if isinstance(found, Checkpoint):
            return found, damaged
        damaged.append(found)
    return None, damaged


def read(folder: Path, iteration: int, *, fingerprint: str | None = None) -> Checkpoint | Damaged:
    """Read a checkpoint through, verifying every byte of it; what is wrong comes back as `Damaged`.

    It takes little memory, however large the files are.
    """

    def damaged(reason: str) -> Damaged:
        return Damaged(iteration=iteration, reason=reason)

    adapter, state = folder / adapter_name(iteration), folder / state_name(iteration)
    try:
        if missing := [path.name for path in (adapter, state) if not path.exists()]:
            return damaged(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing")
        header = tensors.read_header(state)
        metadata = header.metadata
        if metadata.get("format") not in (FORMAT, _FIRST_FORMAT):
            return damaged(f"{state.name} is of the unknown format {metadata.get('format')!r}")
        counters = Counters.from_json(metadata["counters"])
        train_loss, validation_loss = json.loads(metadata["losses"])
        environment, run = json.loads(metadata["environment"]), json.loads(metadata["run"])
        digests = tensors.digests(state, header)
        adapter_sha256 = files.sha256(adapter)
        size = adapter.stat().st_size + state.stat().st_size
        is_written = digests.seal_is_right if metadata["format"] == FORMAT else _is_as_first_written(state, header)
        own = {name: name.removeprefix(_OWN) for name in header.tensors if name.startswith(_OWN)}
        is_longer = adapter_sha256 != metadata["adapter_sha256"] and own and _holds(adapter, state, own)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return damaged(f"{state.name} cannot be read: {error}")
    if not is_written:
        return damaged(f"{state.name} is not what was written (SHA-256)")
    if is_longer:
        # a longer run was killed after it had put its adapter here, and before the state that belongs to it
        counters.closed_at, train_loss, validation_loss = None, counters.train_loss, None
    elif adapter_sha256 != metadata["adapter_sha256"]:
        return damaged(f"{adapter.name} is not what was written (SHA-256)")
    if counters.iteration != iteration:
        return damaged(f"{state.name} holds iteration {counters.iteration}")
    if fingerprint is not None and metadata["fingerprint"] != fingerprint:
        return damaged(f"{state.name} belongs to a run of other settings")
    return Checkpoint(
        folder=folder,
        iteration=iteration,
        counters=counters,
        train_loss=train_loss,
        validation_loss=validation_loss,
        fingerprint=metadata["fingerprint"],
        environment=environment,
        run=run,
        adapter_sha256=adapter_sha256,
        state_sha256=digests.sha256,
        bytes=size,
        has_closing=bool(own or counters.closing),
    )


def _is_as_first_written(state: Path, header: tensors.Header) -> bool:
    """Whether a state of the first format holds what its metadata has the hash of."""
    said = {name: value for name, value in header.metadata.items() if name != "content_sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, tensor in sorted(header.tensors.items()):
        if tensor.dtype not in tensors.SIZES:
            return False
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        for piece in tensors.read_bytes(state, tensor):
            digest.update(piece)
    return digest.hexdigest() == header.metadata.get("content_sha256")


def _holds(adapter: Path, state: Path, own: Mapping[str, str]) -> bool:
    """Whether an adapter file holds the weights that a state keeps beside those of its closed target."""
    try:
        return tensors.are_equal(state, own, adapter)
    except ValueError:
        return False


def problem(
    folder: Path,
    iteration: int,
    hashes: Mapping[str, str],
    *,
    fingerprint: str | None = None,
    heard: files.Heard | None = None,
) -> str | None:
    """Read a checkpoint through: what keeps it from being used, None where nothing does.

    `hashes` are the SHA-256 on record, by file. Files that are not those on record are whole all the same where adapter
    and state vouch for each other: a record can be older than they are. `heard` is told the bytes as they are read.
    """
    wrong = [why for name, sha256 in hashes.items() if (why := files.problem(folder / name, sha256, heard))]
    if hashes and not wrong:
        return None
    if wrong and not files.is_there(folder / state_name(iteration)):
        return wrong[0]
    found = read(folder, iteration, fingerprint=fingerprint)
    return None if isinstance(found, Checkpoint) else found.reason


def remove(folder: Path, *, states: Sequence[int], adapters: Sequence[int]) -> tuple[int, dict[str, str]]:
    """Remove the files of these iterations, all states before any adapter; returns the bytes freed.

    And, by name, why files could not be removed. Those that are gone already do not count.
    """
    freed, failed = 0, {}
    for name in [*map(state_name, states), *map(adapter_name, adapters)]:
        path = folder / name
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            failed[name] = error.strerror or str(error)
        else:
            freed += size
    return freed, failed


def set_aside(folder: Path, iteration: int) -> list[str]:
    """Rename a damaged checkpoint's files to `.corrupt`, so that nothing takes them for whole; returns their names.

    Those set aside before stay: the next of a name becomes `.corrupt.2`.
    """
    names = []
    for name in (state_name(iteration), adapter_name(iteration)):
        if (folder / name).exists():
            (folder / name).rename(_free(folder / f"{name}{CORRUPT}"))
            names.append(name)
    return names


def _free(path: Path) -> Path:
    number, found = 1, path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


def sweep(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for path in folder.glob(".*.partial*"):
        path.unlink(missing_ok=True)


def load(checkpoint: Checkpoint) -> tuple[dict[str, mx.array], dict[str, mx.array], dict[str, mx.array]]:
    """The arrays to resume from, by name: weights, optimizer state, accumulated gradients."""
    import mlx.core as mx

    parts: dict[str, dict[str, mx.array]] = {"weights": {}, "optimizer": {}, "accumulated": {}}
    for name, value in _arrays(checkpoint.state_path).items():
        part, _, rest = name.partition(".")
        if part != tensors.SEAL:
            parts[part][rest] = value
    weights = parts["weights"] or _arrays(checkpoint.adapter_path)
    # loading is lazy and file-backed: read now, before anything replaces the files
    mx.eval(weights, parts["optimizer"], parts["accumulated"])
    return weights, parts["optimizer"], parts["accumulated"]


def _arrays(path: Path) -> dict[str, mx.array]:
    import mlx.core as mx

    loaded = mx.load(str(path))
    assert isinstance(loaded, dict)
    return loaded
