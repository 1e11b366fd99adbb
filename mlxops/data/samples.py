"""Rows to start from: small tasks with answers that are right, made of parts, so that any number of them differ.

The sentences are this project's own, and what is counted is counted here. The same seed gives the same rows.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

SampleFormat = Literal["instruction", "text", "chat", "both", "preference"]
Row = Mapping[str, Any]

UNLIKE_ROWS = 10_000
"""Of more rows, which take long to compare, some are nearly the same as others."""

_TOO_ALIKE = 0.6  # of the pieces that two rows have together; data.check, which estimates it, warns above 0.85
_USUAL = 1000

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_NAMES = (
    *("Amara", "Bruno", "Chloé", "Dalia", "Emil", "Farah", "Goran", "Hanna", "Idris", "Jun", "Kofi", "Leila"),
    *("Mateo", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Søren", "Tomás", "Uma", "Vera", "Wen", "Yusuf"),
)
_CITIES = (
    *("Lisbon", "Oslo", "Nairobi", "Kraków", "Hanoi", "Lima", "Zürich", "Dakar", "Quito", "Osaka", "Tallinn", "Perth"),
    *("Malmö", "Tunis", "Busan", "Bogotá", "Graz", "Leeds", "Turin", "Accra", "Davao", "Riga", "Split", "Ghent"),
)
_THINGS = (
    *("lamp", "notebook", "kettle", "blanket", "ladder", "compass", "basket", "mirror", "hammer", "teapot", "cushion"),
    *(
        "bicycle",
        "lantern",
        "scarf",
        "drum",
        "bucket",
        "clock",
        "easel",
        "funnel",
        "globe",
        "helmet",
        "pillow",
        "tripod",
    ),
)
_FOODS = (
    *("rice", "lentils", "tomatoes", "onions", "olive oil", "bread", "cheese", "apples", "carrots", "yoghurt", "beans"),
    *("pasta", "spinach", "lemons", "honey", "oats", "peppers", "mushrooms", "walnuts", "eggs", "butter", "potatoes"),
)
_SYSTEMS = (
    "You are a helpful assistant. Answer briefly.",
    "You help in a small shop. Be polite and exact.",
    "You are a tutor. Give the answer first, then the reason.",
)
_OPERATIONS = (("adds", "+", "added"), ("subtracts", "-", "subtracted"), ("multiplies by", "*", "multiplied"))


@dataclass(frozen=True)
class _Exchange:
    """A question, its answer, and an answer that is worse."""

    question: str
    answer: str
    worse: str


def rows(format: SampleFormat, count: int, seed: int) -> list[Row]:
    """So many rows of a format, all different, in an order in which kinds of tasks are mixed.

    Up to `UNLIKE_ROWS` rows none is nearly the same as another.

    >>> [sorted(row) for row in rows("both", 2, seed=0)]
    [['instruction', 'response'], ['text']]
    """
    chance = random.Random(f"{format}:{seed}")
    found: dict[str, Row] = {}
    makers = _makers(format, chance)
    usual = _makers(format, random.Random(format))
    unlike = Unlike(next(usual) for _ in range(_USUAL)) if count <= UNLIKE_ROWS else None
    while len(found) < count:
        row = next(makers)
        text = json.dumps(row)
        if text not in found and (unlike is None or unlike.add(row)):
            found[text] = row
    return list(found.values())


class Unlike:
    """Rows of which no two have too many pieces of three words in common.

    Two sets that overlap by much have one of their rarest pieces in common, so only these are looked up: in an order
    by how often they stand in `usual` rows.
    """

    def __init__(self, usual: Iterable[Row]) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._often = Counter(piece for row in usual for piece in self._pieces(row))
        self._rows: list[frozenset[int]] = []
        self._with: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, row: Row) -> bool:
        """Take a row in, unless it is too much like one before."""
        pieces = self._pieces(row)
        by_rarity = sorted(pieces, key=lambda piece: (self._often[piece], piece))
        rarest = by_rarity[: len(pieces) - int(_TOO_ALIKE * len(pieces)) + 1]
        near = {place for piece in rarest for place in self._with[piece]}
        if any(len(pieces & other) > _TOO_ALIKE * len(pieces | other) for other in map(self._rows.__getitem__, near)):
            return False
        for piece in rarest:
            self._with[piece].append(len(self._rows))
        self._rows.append(pieces)
        return True

    def _pieces(self, row: Row) -> frozenset[int]:
        turns = row.get("messages") or [{"content": text} for text in row.values()]
        words = " ".join(turn["content"] for turn in turns if turn.get("role") != "system").lower().split()
        return frozenset(
            self._numbers.setdefault(piece, len(self._numbers))
            for piece in zip(words, words[1:], words[2:], strict=False)
        )


def _makers(format: SampleFormat, chance: random.Random) -> Iterator[Row]:
    make = {"instruction": [_instruction], "text": [_text], "chat": [_chat], "preference": [_preference]}
    forms = make.get(format, [_instruction, _text])
    while True:
        for form in forms:
            yield form(chance)


def _instruction(chance: random.Random) -> Row:
    exchange = chance.choice(_EXCHANGES)(chance)
    return {"instruction": exchange.question, "response": exchange.answer}


def _text(chance: random.Random) -> Row:
    return {"text": chance.choice(_PASSAGES)(chance)}


def _chat(chance: random.Random) -> Row:
    system = [{"role": "system", "content": chance.choice(_SYSTEMS)}] if chance.random() < 0.5 else []
    turns = []
    for make in chance.sample(_EXCHANGES, chance.choice((1, 2, 2, 3))):
        exchange = make(chance)
        turns += [{"role": "user", "content": exchange.question}, {"role": "assistant", "content": exchange.answer}]
    return {"messages": [*system, *turns]}


def _preference(chance: random.Random) -> Row:
    exchange = chance.choice(_EXCHANGES)(chance)
    return {"prompt": exchange.question, "chosen": exchange.answer, "rejected": exchange.worse}


def _minutes(chance: random.Random) -> _Exchange:
    hours, minutes = chance.randint(2, 23), chance.randint(2, 59)
    total = 60 * hours + minutes
    return _Exchange(
        f"How many minutes are {hours} hours and {minutes} minutes?",
        f"{total} minutes: {hours} times 60 is {60 * hours}, and {minutes} more.",
        f"About {hours} hours.",
    )


def _price(chance: random.Random) -> _Exchange:
    thing, price, number = chance.choice(_THINGS), chance.randint(3, 60), chance.randint(2, 25)
    return _Exchange(
        f"One {thing} costs {price} euros. What do {number} of them cost?",
        f"{number * price} euros, because {number} times {price} is {number * price}.",
        f"That depends. A {thing} is not cheap, so {number} of them cost a lot.",
    )


def _sorted_words(chance: random.Random) -> _Exchange:
    words = chance.sample(_THINGS, chance.randint(3, 6))
    return _Exchange(
        f"Sort these words by the alphabet: {', '.join(words)}.",
        "\n".join(sorted(words)),
        ", ".join(sorted(words, reverse=True)),
    )


def _shopping(chance: random.Random) -> _Exchange:
    foods = chance.sample(_FOODS, chance.randint(3, 5))
    return _Exchange(
        f"Write a shopping list in Markdown with {', '.join(foods[:-1])} and {foods[-1]}.",
        "\n".join(["## Shopping list", "", *(f"- {food}" for food in foods)]),
        f"You need {' and '.join(foods)}.",
    )


def _as_json(chance: random.Random) -> _Exchange:
    name, city, age = chance.choice(_NAMES), chance.choice(_CITIES), chance.randint(18, 90)
    facts = {"name": name, "city": city, "age": age}
    return _Exchange(
        f"Give name, city and age as JSON: {name} moved to {city} last year, at the age of {age}.",
        json.dumps({**facts}, ensure_ascii=False),
        f"Here is the JSON you asked for: name is {name}, city is {city}.",
    )


def _polite(chance: random.Random) -> _Exchange:
    name, thing, day = chance.choice(_NAMES), chance.choice(_THINGS), chance.choice(_DAYS)
    return _Exchange(
        f'Make this polite: "{name}, bring the {thing} back by {day}."',
        f'"{name}, could you please bring the {thing} back by {day}?"',
        f'"{name}, the {thing}! By {day}!"',
    )


def _weekday(chance: random.Random) -> _Exchange:
    start, days = chance.randrange(7), chance.randint(8, 300)
    weeks, left = divmod(days, 7)
    day = _DAYS[(start + days) % 7]
    after = f"{left} more {'day' if left == 1 else 'days'}" if left else "no day more"
    return _Exchange(
        f"Today is {_DAYS[start]}. Which day of the week is it in {days} days?",
        f"{day}: {days} days are {weeks} {'week' if weeks == 1 else 'weeks'} and {after}.",
        f"In {days} days it is some other day of the week than {_DAYS[start]}, I think.",
    )


def _code(chance: random.Random) -> _Exchange:
    (verb, sign, past), number, name = chance.choice(_OPERATIONS), chance.randint(2, 200), chance.choice(_THINGS)
    return _Exchange(
        f"Write a Python function {past}_{name}s(values) that {verb} {number} for each value of a list.",
        f"def {past}_{name}s(values):\n    return [value {sign} {number} for value in values]",
        f"You can use a loop over the values of {past}_{name}s.",
    )


def _summary(chance: random.Random) -> _Exchange:
    name, city, thing, number = (
        chance.choice(_NAMES),
        chance.choice(_CITIES),
        chance.choice(_THINGS),
        chance.randint(2, 40),
    )
    ordered = chance.randrange(6)
    arrived = chance.randrange(ordered + 1, 7)
    return _Exchange(
        f"Say it in one sentence: {name} lives in {city}. On {_DAYS[ordered]} an order was placed for {number} "
        f"{thing}s. The parcel was at the door on {_DAYS[arrived]}.",
        f"The {number} {thing}s that {name} from {city} ordered on {_DAYS[ordered]} arrived on {_DAYS[arrived]}.",
        f"{name} lives in {city}. {name} likes parcels. There was an order.",
    )


def _journey(chance: random.Random) -> str:
    name, (city, other), day = chance.choice(_NAMES), chance.sample(_CITIES, 2), chance.choice(_DAYS)
    hours, minutes, thing = chance.randint(2, 11), chance.randint(2, 59), chance.choice(_THINGS)
    return (
        f"On {day}, {name} took the train from {city} to {other}. The journey took {hours} hours and {minutes} "
        f"minutes, which is {60 * hours + minutes} minutes. In {other} it rained, and the {thing} that {name} had "
        "packed stayed dry.\n"
    )


def _market(chance: random.Random) -> str:
    city, name, foods = chance.choice(_CITIES), chance.choice(_NAMES), chance.sample(_FOODS, 3)
    prices = [chance.randint(2, 30) for _ in foods]
    lines = "\n".join(f"| {food} | {price} |" for food, price in zip(foods, prices, strict=True))
    return (
        f"# What {name} bought in {city}\n\n| what | euros |\n|---|---|\n{lines}\n\n"
        f"All together: {sum(prices)} euros.\n"
    )


def _instructions_for_use(chance: random.Random) -> str:
    thing, (first, second), month = chance.choice(_THINGS), chance.sample(_THINGS, 2), chance.randint(2, 36)
    return (
        f"How to look after a {thing}: keep it dry, and do not put a {first} on top of it. Clean it every "
        f"{month} weeks with a soft cloth.\n\n1. Take the {thing} to a table.\n2. Wipe it.\n"
        f"3. Put it back beside the {second}.\n"
    )


def _dialogue(chance: random.Random) -> str:
    (name, other), exchange = chance.sample(_NAMES, 2), chance.choice(_EXCHANGES)(chance)
    return f"{name} asked {other}: {exchange.question}\n\n{other} answered:\n\n{exchange.answer}\n"


_EXCHANGES: tuple[Callable[[random.Random], _Exchange], ...] = (
    *(_minutes, _price, _sorted_words, _shopping, _as_json, _polite, _weekday, _code, _summary),
)
_PASSAGES: tuple[Callable[[random.Random], str], ...] = (_journey, _market, _instructions_for_use, _dialogue)
