"""A SentencePiece vocabulary of a GGUF file as a tokenizer that cuts every text as SentencePiece does.

SentencePiece joins the two neighbours that make the piece of the highest score, the leftmost first; `tokenizers` joins
the pair that stands first in a list of merges, the leftmost first. So the list is all pairs that make a piece, by the
score of what they make. What such a list cannot say is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from mlxops.errors import BadRequest
from mlxops.models.gguf.vocabulary import BYTE, HINT, NORMAL, UNUSED, USER_DEFINED, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer

Pair = tuple[str, str]

# What SentencePiece writes for a space.
_SPACE = "▁"


def build(
    vocabulary: Vocabulary, scores: Sequence[float], *, add_space_prefix: bool, remove_extra_spaces: bool
) -> Tokenizer:
    """The tokenizer without its special tokens; `add_space_prefix` has each text begin with a space of its own.

    Raises `BadRequest` naming the token where a list of merges cannot give what SentencePiece does.
    """
    from tokenizers import Tokenizer, decoders, models

    byte_tokens = vocabulary.of_type(BYTE)
    if byte_tokens and set(byte_tokens) != {f"<0x{byte:02X}>" for byte in range(256)}:
        raise BadRequest(f"the GGUF file has {len(byte_tokens)} of the 256 tokens <0x00> to <0xFF>", hint=HINT)
    unknown = vocabulary.roles.get("unk")
    if unknown is None and not byte_tokens:
        raise BadRequest("the GGUF file has no token for letters that are not in its vocabulary", hint=HINT)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=dict(vocabulary.numbers),
            merges=merges(vocabulary, scores),
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=bool(byte_tokens),
        )
    )
    tokenizer.normalizer = _normalizer(vocabulary.of_type(USER_DEFINED), add_space_prefix, remove_extra_spaces)
    # mlx-lm knows these two forms, with and without the last step, and streams them word by word.
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if add_space_prefix or remove_extra_spaces:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def merges(vocabulary: Vocabulary, scores: Sequence[float]) -> list[Pair]:
    """All pairs that make a piece, first those that SentencePiece joins first."""
    _refuse_lost_letters(vocabulary)
    numbers, types = vocabulary.numbers, vocabulary.types
    parts = {
        token
        for token, type_ in zip(vocabulary.tokens, types, strict=True)
        if type_ == NORMAL or (type_ == UNUSED and len(token) == 1)
    }
    made: list[tuple[float, int, Pair]] = []
    for token, number in numbers.items():
        if types[number] not in (NORMAL, UNUSED):
            continue
        score = -scores[number]
        for cut in range(1, len(token)):
            if (left := token[:cut]) in parts and (right := token[cut:]) in parts:
                made.append((score, number, (left, right)))
    unused = next((number for _, number, _ in made if types[number] == UNUSED), None)
    if unused is not None:
        # SentencePiece makes it, and takes it apart again at the end; what it blocked meanwhile no list can say.
        raise BadRequest(
            f"GGUF files with an unused token that others make, as {vocabulary.tokens[unused]!r}, cannot be imported",
            hint=HINT,
        )
    # Which of the pairs that make one piece comes first is all the same: joining by score and from the left leaves no
    # three neighbours of which both the left and the right two make it, other than the same pair twice.
    made.sort(key=lambda entry: entry[:2])
    return _with_ties_in_order(made, vocabulary.tokens)


def _refuse_lost_letters(vocabulary: Vocabulary) -> None:
    """SentencePiece can join letters that are no tokens themselves, `tokenizers` turns them into bytes first."""
    whole = {token for token in vocabulary.of_type(USER_DEFINED) if len(token) == 1}
    letters = {token for token in vocabulary.of_type(NORMAL, UNUSED) if len(token) == 1}
    # Nothing is joined to a user-defined token, so a piece that holds one is never made.
    lost = (token for token in vocabulary.of_type(NORMAL) if not letters.issuperset(token) and whole.isdisjoint(token))
    normal = set(vocabulary.of_type(NORMAL))
    for token in lost:
        cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        if any(all(len(part) == 1 or part in normal for part in cut) for cut in cuts):
            letter = next(letter for letter in token if letter not in letters)
            raise BadRequest(
                f"GGUF files whose tokens hold letters that are no tokens, as {token!r} holds {letter!r}, "
                "cannot be imported",
                hint=HINT,
            )


def _with_ties_in_order(made: Sequence[tuple[float, int, Pair]], tokens: Sequence[str]) -> list[Pair]:
    """The pairs in order, those of several pieces with one score so that the leftmost is still joined first."""
    groups: dict[float, list[Pair]] = {}
    for score, _, pair in made:
        groups.setdefault(score, []).append(pair)
    several = {score: pieces for score, pairs in groups.items() if len(pieces := {"".join(pair) for pair in pairs}) > 1}
    tied: dict[str, float] = {}
    for score, pieces in several.items():
        if _is_a_letters_runs(pieces, (tokens[number] for _, number, _ in made)):
            # A run grows from its left end as long as it can, so what makes the longest piece stands at the left.
            # Llama's and Mistral's runs of spaces are of this kind.
            groups[score].sort(key=lambda pair: -len("".join(pair)))
        else:
            groups[score] = _leftmost_first(groups[score])
            tied |= dict.fromkeys(pieces, score)
    for score, number, pair in made:
        # Not only the pair beside it, but what is made of both can then be joined to the neighbours before it.
        part = next((part for part in pair if part in tied and tied[part] >= score), None)
        if part is not None:
            raise _undecided(part, tokens[number])
    return [pair for pairs in groups.values() for pair in pairs]


def _is_a_letters_runs(pieces: Set[str], made: Iterable[str]) -> bool:
    """Whether these are all the runs of one letter that are made."""
    letters = set("".join(pieces))
    return len(letters) == 1 and pieces == {token for token in made if set(token) == letters}


def _leftmost_first(pairs: Iterable[Pair]) -> list[Pair]:
    """An order in which (x, y) comes before (y, z) for all of them: of `x y z` the left two are joined."""
    order: TopologicalSorter[Pair | tuple[str, str, str]] = TopologicalSorter()
    for pair in pairs:
        left, right = pair
        ends, begins = ("", "ends with", right), ("", "begins with", left)
        if left == right:
            # Of `y y y` the left two are joined anyway: one pair, one place in the order.
            order.add(pair, ends)
            order.add(begins, pair)
        else:
            order.add(ends, pair)
            order.add(pair, begins)
        order.add(("", "begins with", right), ends)
        order.add(begins, ("", "ends with", left))
    try:
        return [node for node in order.static_order() if len(node) == 2]
    except CycleError as error:
        first, second, *_ = (node for node in error.args[1] if len(node) == 2)
        raise _undecided("".join(first), "".join(second)) from error


def _undecided(first: str, second: str) -> BadRequest:
    return BadRequest(
        f"GGUF files that do not say by their scores which token is made first, as {first!r} and {second!r}, "
        "cannot be imported",
        hint=HINT,
    )


def _normalizer(whole: Sequence[str], add_space_prefix: bool, remove_extra_spaces: bool) -> Normalizer:
    import re

    from tokenizers import Regex, normalizers

    steps: list[Normalizer] = []
    if remove_extra_spaces:
        steps += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if add_space_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    if remove_extra_spaces:
        steps.append(normalizers.Replace(Regex(rf"{_SPACE}+\z"), ""))
    if add_space_prefix and whole:
        # User-defined tokens are looked for in the normalized text, and are themselves normalized for that: they get
        # no space. Nor does a text that is one such token and nothing else, the one case SentencePiece has it.
        texts = "|".join(re.escape(token.replace(" ", _SPACE)) for token in whole)
        steps.append(normalizers.Replace(Regex(rf"\A{_SPACE}(?=(?:{texts})\z)"), ""))
    return normalizers.Sequence(steps)
