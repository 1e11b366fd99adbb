"""Names that a person can read, say and type: `smollm2-135m-quiet-heron`."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable

_ADJECTIVES = """
    amber ample azure bold brave brief bright brisk broad calm clear clever cool coral crisp deep early eager even
    fair fast fine firm fond free fresh gentle glad golden grand green happy hardy ivory jolly keen kind late light
    lively lone lucid merry mild misty modest neat noble pale patient plain proud quick quiet rapid rare round ruby
    sandy scarlet serene sharp silent silver sleek slow small smooth snowy soft solid steady still sunny sure swift
    tall tender tidy vivid warm wide wild wise young
"""
_NOUNS = """
    badger beaver birch bison brook cedar cliff cloud comet condor coral crane creek curlew dale deer delta dove dune
    eagle elm falcon fern field finch fjord fox gale glade grove gull hare harbor hawk hazel heron hill ibis iris
    island jay kite lake lark laurel leaf linnet lion lynx maple marsh martin meadow mesa moon moose moss oak ocean
    orchid osprey otter owl peak pebble pine plover pond poplar quail rain raven reed ridge river robin rook sage seal
    shore sky sparrow spruce star stone stork stream swan tern thrush tiger valley wave willow wolf wren
"""

# of a folder's name these say nothing about the model itself
_SUFFIXES = re.compile(r"[-_.](instruct|chat|it|hf|mlx)$", re.IGNORECASE)


def readable_name(model: str, word_seed: int | None, is_taken: Callable[[str], bool]) -> str:
    """A name that is not taken, after the model; the same seed tries the same words in the same order."""
    chooser = random.Random(word_seed)
    adjectives, nouns = _ADJECTIVES.split(), _NOUNS.split()
    stem = _slug(model)
    name = ""
    for _ in range(100):
        name = f"{stem}-{chooser.choice(adjectives)}-{chooser.choice(nouns)}"
        if not is_taken(name):
            return name
    number = 2
    while is_taken(f"{name}-{number}"):
        number += 1
    return f"{name}-{number}"


def _slug(model: str) -> str:
    """The model's folder or hub name in small letters and dashes.

    >>> _slug("models/SmolLM2-135M-Instruct")
    'smollm2-135m'
    """
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1]
    plain = unicodedata.normalize("NFKD", _SUFFIXES.sub("", last)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9.]+", "-", plain.lower()).strip("-.")[:24].strip("-.") or "run"
