"""Whether a model on this disk is what it was: hashes, index and shards, every number, and the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mlxops import files, registry, words
from mlxops.config import VerifyConfig
from mlxops.errors import BadRequest, Failed, MlxopsError
from mlxops.foreign import foreign_code
from mlxops.jobs.model.record import recorded
from mlxops.models import folders
from mlxops.models.tokenizer import load_tokenizer
from mlxops.models.weight_headers import weight_files
from mlxops.projects.invocation import Invocation
from mlxops.projects.project import Project

Progress = Callable[[str, int, int], None]

_TEXT = "Hello, 2 + 2 = 4.\nÄpfel, 東京 and emoji 👩‍🚀: {tabs}\t<end>"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class VerifiedModel:
    """What came of a model: the files whose hashes were compared, what is wrong, and what to know."""

    name: str
    path: str
    compared: int
    tensors: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> registry.JsonObject:
        """All of it as values that JSON has."""
        return asdict(self)


def verify(invocation: Invocation, config: VerifyConfig, progress: Progress) -> list[VerifiedModel]:
    """Read a model through, or all in models/; what is whole is recorded as verified now.

    Raises `NotFound` where there is no such model, `BadRequest` where it is not said which one.
    """
    project = invocation.project
    if config.all and config.model:
        raise BadRequest("MODEL and --all both say what is verified", hint="give one of them")
    if config.all:
        places = [project.models_folder / name for name in folders.list_models(project.models_folder)]
    else:
        wanted = config.model or None
        places = [folders.find_model(wanted, resolve=project.resolve, models_folder=project.models_folder)]
    return [_verify(project, place, progress) for place in places]


def refuse_damaged(found: Sequence[VerifiedModel]) -> None:
    """Raise `Failed` where a model has problems."""
    damaged = [each.path for each in found if each.problems]
    if damaged:
        are = "is" if len(damaged) == 1 else "are"
        raise Failed(
            f"{words.plural(len(damaged), 'model')} of {len(found):,} {are} not whole: {words.listed(damaged, _SHOWN)}",
            hint="`inv model.remove NAME` removes one, `inv download-model ID` gets it again",
        )


def _verify(project: Project, folder: Path, progress: Progress) -> VerifiedModel:
    path = project.relative(folder)
    known = recorded(project).get(path)
    hashes: Mapping[str, str] = (known["sha256"] or {}) if known else {}
    problems = _changed(folder, hashes, progress)
    notes = [] if hashes else ["no hashes are recorded of it, so its files are compared with none"]
    tensors = 0
    try:
        folders.check_model(folder)
        tensors, wrong = _read_tensors(folder, progress)
        problems += wrong
        problems += _round_trip(folder)
    except MlxopsError as error:
        problems.append(error.message)
    if known and hashes and not problems:
        with registry.open_registry(project.registry_path) as db:
            registry.mark_verified(db, path)
    return VerifiedModel(
        name=folder.name,
        path=path,
        compared=len(hashes),
        tensors=tensors,
        problems=tuple(dict.fromkeys(problems)),
        notes=tuple(notes),
    )


def _changed(folder: Path, hashes: Mapping[str, str], progress: Progress) -> list[str]:
    found = []
    for number, (name, expected) in enumerate(hashes.items()):
        progress("files", number, len(hashes))
        if wrong := files.problem(folder / name, expected):
            found.append(wrong.replace("what was written", "what was recorded"))
    return found


def _read_tensors(folder: Path, progress: Progress) -> tuple[int, list[str]]:
    """How many tensors there are, and those with numbers that are not finite; each is read."""
    import mlx.core as mx

    count, wrong = 0, []
    shards = weight_files(folder)
    for number, file in enumerate(shards):
        progress("weight files", number, len(shards))
        with foreign_code(lambda said, _, file=file: BadRequest(f"{file.name} cannot be read: {said}")):  # type: ignore[misc]
            arrays = mx.load(str(file))
            assert isinstance(arrays, dict)
            for name in sorted(arrays):
                array = arrays.pop(name)
                count += 1
                if mx.issubdtype(array.dtype, mx.floating) and not mx.isfinite(array).all().item():
                    wrong.append(name)
                elif not mx.issubdtype(array.dtype, mx.floating):
                    mx.eval(array)
    if not wrong:
        return count, []
    return count, [
        f"{words.plural(len(wrong), 'tensor')} with numbers that are not finite: {words.listed(wrong, _SHOWN)}"
    ]


def _round_trip(folder: Path) -> list[str]:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(_TEXT, add_special_tokens=False)
    said = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if str(said).strip() == _TEXT.strip():
        return []
    return [f"the tokenizer does not give a text back: {_TEXT!r} becomes {said!r}"]
