"""What crosses a row of DESIGN §2 is typed: rows of the registry by a TypedDict, results of jobs by a dataclass."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from commands import ROOT

PACKAGES = ("registry", "jobs", "ui")

ALIAS = "JsonObject"
EDGES = {
    "facts": "what a command that the self-test runs prints with --json",
    "printed": "the same, judged",
    "_with_decay": "arguments of an optimizer",
    "paths_here": "settings of a run as the registry has them",
    "renamed_config": "settings of a run as the registry has them",
    "as_json": "what --json and --output write",
    "all_to_json": "the same",
    "compared_to_json": "the same",
    "config": "runs.config, as this version or an earlier one stored it",
    "environment": "attempts.environment",
    "detail": "events.detail",
    "scores": "answers.scores",
    "sha256": "models.sha256",
    "rows": "the rows of a SELECT whose columns no type names",
    "said": "adapter_config.json as another program wrote it",
    "says": "the same, explained",
    "shape": "the LoRA shape of an adapter, by the names of the settings",
    "automatic": "what was chosen automatically, in runs.config",
    "template_config": "chat_template_config, which a chat template reads",
    "_template_config": "the same as a run stored it",
    "exact": "what exactness depends on, in attempts.environment",
    "stored_config": "runs.config, as it is stored",
    "verdict": "events.detail of a verdict",
    "verdicts": "verdicts that wait in a file",
    "_kept": "the same, read",
    "expected": "counters and metrics of a training, compared with those of another",
    "got": "those of the other",
    "settings": "the settings that a log tells",
    "_read_settings": "adapter_config.json, read",
    "_writable": "the same in UTF-8",
    "_as_they_are": "the same, with the names of this toolkit",
    "_checked": "those of them that a training here could have",
    "_config": "runs.config of an imported run",
    "in_effect": "settings of a run by what they do",
    "_defaults": "what a command takes for settings that it does not give",
    "defaults": "the settings of a training without options, which runs.config is compared with",
    "_answers": "the answers of a test, within its JSON",
    "to_json": "a result as JSON has it, where that is not its fields",
    "values": "runs.config and attempts.environment, and parts of them",
    "_content": "what the page's template is given",
    "content": "the same of several runs",
    "_chart": "the same of a chart",
    "_side_by_side": "the same of losses beside it",
    "_setting": "the same of a setting",
    "to_check": "a comparison of two models as the file of a fused model keeps it",
    "check": "the same, read",
    "parity": "its figures, as `--json` has them",
    "figures": "the same",
    "fused": "the result of model.fuse, within that of quickstart",
    "template_arguments": "what a chat template is given by its names",
}
"""The arguments, fields and functions (for what they return) that are JSON, whose keys no type names."""

MAPPINGS = {"dict", "Mapping", "MutableMapping", ALIAS}


def is_untyped(annotation: ast.AST) -> bool:
    """Whether a mapping of names to anything stands anywhere in an annotation."""
    typed = {id(node.value) for node in ast.walk(annotation) if isinstance(node, ast.Subscript)}
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id in MAPPINGS and id(node) not in typed:
            return True
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in MAPPINGS:
            key, value = node.slice.elts if isinstance(node.slice, ast.Tuple) else (node.slice, node.slice)
            if ast.unparse(key) == "str" and ast.unparse(value) in ("Any", "object"):
                return True
    return any(isinstance(node, ast.Attribute) and node.attr == ALIAS for node in ast.walk(annotation))


def annotations(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every annotation of a signature, a field or an alias, by the name of what it is for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield from ((each.arg, each.annotation) for each in arguments if each.annotation)
            if node.returns:
                yield node.name, node.returns
        elif isinstance(node, ast.ClassDef):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield field.target.id, field.annotation
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            yield ast.unparse(node.targets[0]), node.value


def found_in(text: str) -> list[str]:
    return [name for name, annotation in annotations(ast.parse(text)) if is_untyped(annotation)]


def files() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / "mlxops" / package).rglob("*.py"))]


def test_no_signature_has_an_untyped_mapping_but_at_the_edges_where_json_is() -> None:
    found = [
        (file.relative_to(ROOT).as_posix(), name) for file in files() for name in found_in(file.read_text("utf-8"))
    ]

    assert [(file, name) for file, name in found if name not in {*EDGES, ALIAS}] == []
    assert {name for _, name in found} - {ALIAS} == EDGES.keys()


def test_untyped_mappings_are_found_wherever_they_stand_in_a_signature() -> None:
    text = """
Row = Mapping[str, Any]
def job(a: list[dict[str, Any]], b: dict | None, *, c: dict[str, int], d: Iterator[Mapping[str, object]]) -> JsonObject:
    inside: dict[str, Any] = {}
class Result:
    e: tuple[dict[str, Any], ...]
    f: Row
"""

    assert sorted(found_in(text)) == ["Row", "a", "b", "d", "e", "job"]
