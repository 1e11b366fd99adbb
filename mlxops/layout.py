"""How the files of a project and of a run are called: one place for every name, without looking at any disk."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

OFFERED = "adapters.safetensors"
SETTINGS = "adapter_config.json"
BEFORE = ".before"
"""What is put behind the name of an original that a run writes over."""


CORRUPT = ".corrupt"
"""What is put behind the name of a damaged file that is set aside; the second of one name has `.corrupt.2`."""


def folded(name: str) -> str:
    """A run's name as it is compared: names that some system takes for one folder are one name on every system.

    >>> folded("Run") == folded("run"), folded("caf\u00e9") == folded("cafe\u0301")
    (True, True)
    """
    return unicodedata.normalize("NFC", name).casefold()


def known_spelling(name: str, known: Iterable[str]) -> str:
    """The one of the known names that a name means: itself, else one that is the same once folded, else itself."""
    known = list(known)
    if name in known:
        return name
    return next((each for each in known if folded(each) == folded(name)), name)


def adapter_name(iteration: int) -> str:
    """The name of an iteration's adapter file, as mlx-lm numbers it."""
    return f"{iteration:07d}_adapters.safetensors"


def state_name(iteration: int) -> str:
    """The name of an iteration's state file."""
    return f"{iteration:07d}_state.safetensors"


def waiting_name(iteration: int) -> str:
    """The name of the file beside a checkpoint with what waits for a registry that is away."""
    return f"{iteration:07d}_waiting.jsonl"


PAST = "past.db"
"""The name of the file with what a registry that was removed held of the run."""

Kind = Literal["weights", "state", "offered", "settings", "waiting", "set aside", "half-written", "other"]
_NAMES: tuple[tuple[re.Pattern[str], Kind, str], ...] = (
    (re.compile(r"\..*\.partial.*"), "half-written", "what a kill left half-written"),
    (
        re.compile(r"(\d+)_(?:adapters|state)\.safetensors\.corrupt(?:\.\d+)?"),
        "set aside",
        "damaged, set aside by a resume",
    ),
    (re.compile(r".+\.before"), "set aside", "the original of an adapter that was taken over"),
    (re.compile(r"(\d{7,})_adapters\.safetensors"), "weights", "NNNNNNN_adapters.safetensors: weights by iteration"),
    (re.compile(r"(\d{7,})_state\.safetensors"), "state", "NNNNNNN_state.safetensors: what else resuming takes"),
    (re.compile(r"(\d{7,})_waiting\.jsonl"), "waiting", "NNNNNNN_waiting.jsonl: history that the registry lacks"),
    (re.compile(re.escape(PAST)), "waiting", f"{PAST}: history that was in a registry that was removed"),
    (re.compile(r"adapters\.safetensors"), "offered", "adapters.safetensors: what programs load, its iteration open"),
    (re.compile(r"adapters\.npz"), "offered", "adapters.npz: what mlx-lm wrote before safetensors"),
    (re.compile(r"(\d+)_adapters\.npz"), "weights", "N_adapters.npz: weights by iteration, before safetensors"),
    (re.compile(r"adapters?[_-](\d+).*\.(?:safetensors|npz)"), "weights", "adapters_N: weights by iteration"),
    (re.compile(r"checkpoint[_-](\d+).*\.(?:safetensors|npz)"), "weights", "checkpoint_N: weights by iteration"),
    (re.compile(r"adapter_config\.json"), "settings", "adapter_config.json: the settings of the training"),
)
_DIGITS = 12  # of an iteration


def recognise(name: str) -> tuple[Kind, str, int | None]:
    """What a file is by its name: its kind, the pattern in words, and the iteration.

    >>> recognise("0000100_adapters.safetensors")[::2], recognise("adapters_200_best.npz")[::2]
    (('weights', 100), ('weights', 200))
    """
    for pattern, kind, words in _NAMES:
        if match := pattern.fullmatch(name):
            number = match[1] if match.groups() else None
            if number is not None and len(number) > _DIGITS:  # no training comes that far
                continue
            return kind, words, None if number is None else int(number)
    return "other", "no name of training's", None
