r"""How byte-level tokenizers cut a text before they merge, by the names that llama.cpp gave their rules.

The names and what goes with them are those of llama.cpp's src/llama-vocab.cpp; the expressions are those of the
models' own tokenizer.json, which llama.cpp had to rewrite where its engine lacks `(?i:…)` or `\p{Lu}`. A name that is
not in the table is one whose rule has not been established.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One way to cut: by expressions, one after the other, then each digit on its own, then as GPT-2 does.

    `nfc` composes letters and accents first; `whole_words` takes a word that is a token as it is, whatever the merges
    say; `add_bos` is what a file means that does not say whether texts begin with a special token.
    """

    cuts: Sequence[str] = ()
    digits: bool = False
    gpt2: bool = False
    nfc: bool = False
    whole_words: bool = False
    add_bos: bool = False


_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BEFORE_WORD = r"[^\r\n\p{L}\p{N}]?"

# GPT-4's, which many took over with digits of another length.
_THREE_DIGITS = rf"{_CONTRACTION}|{_BEFORE_WORD}\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_ONE_DIGIT = rf"{_CONTRACTION}|{_BEFORE_WORD}\p{{L}}+|\p{{N}}|{_REST}"
_ALL_DIGITS = rf"{_CONTRACTION}|{_BEFORE_WORD}\p{{L}}+|\p{{N}}+|{_REST}"
_WITH_MARKS = rf"{_CONTRACTION}|{_BEFORE_WORD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
_WITH_MARKS += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_BREAKS_APART = rf"{_CONTRACTION}|{_BEFORE_WORD}\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+"
_BREAKS_APART += r"|\s*[\r\n]+|\s+(?!\S)|\s+"

# GPT-4o's, which cuts camelCase where a capital follows a small letter.
_HIGH, _LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_BEFORE_WORD}{_HIGH}*{_LOW}+|{_BEFORE_WORD}{_HIGH}+{_LOW}*|\p{{N}}|{_CASED_REST}"
_GPT4O = rf"{_BEFORE_WORD}{_HIGH}*{_LOW}+{_CONTRACTION}?|{_BEFORE_WORD}{_HIGH}+{_LOW}*{_CONTRACTION}?"
_GPT4O += rf"|\p{{N}}{{1,3}}|{_CASED_REST}"

# DeepSeek's list of letters that have cases, as numbers: many of these letters look like others.
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_SIGNS = "[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
_DEEPSEEK = (r"[\r\n]", rf"\s?[{_CASED_LETTERS}]+", rf"\s?{_SIGNS}", r"\s+$", _ASIAN)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _ASIAN)

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
# What llama.cpp does for files whose converter did not know the model.
_DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")

_LLAMA3 = Rule(cuts=[_THREE_DIGITS], whole_words=True, add_bos=True)
_DIGITS = Rule(digits=True, gpt2=True)

RULES: Mapping[str, Rule] = {
    "command-r": Rule(digits=True, gpt2=True, nfc=True),
    "dbrx": Rule(cuts=[_THREE_DIGITS]),
    "deepseek-coder": Rule(cuts=_DEEPSEEK_CODER, digits=True),
    "deepseek-llm": Rule(cuts=_DEEPSEEK, digits=True),
    "deepseek-r1-qwen": Rule(cuts=[_ONE_DIGIT], nfc=True),
    "default": Rule(cuts=_DEFAULT),
    "falcon3": _LLAMA3,
    "gpt-2": Rule(gpt2=True),
    "gpt-4o": Rule(cuts=[_GPT4O]),
    "llama-bpe": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama3": _LLAMA3,
    "midm-2.0": _LLAMA3,
    "minerva-7b": _DIGITS,
    "minicpm5": Rule(cuts=[r"\p{N}{1,3}", _ALL_DIGITS], whole_words=True),
    "mpt": Rule(gpt2=True, nfc=True),
    "olmo": Rule(gpt2=True, nfc=True),
    "phi-2": Rule(gpt2=True),
    "qwen2": Rule(cuts=[_ONE_DIGIT], nfc=True),
    "qwen35": Rule(cuts=[_WITH_MARKS], nfc=True),
    "refact": _DIGITS,
    "seed-coder": Rule(cuts=[_BREAKS_APART]),
    "smaug-bpe": Rule(cuts=[_THREE_DIGITS]),
    "smollm": _DIGITS,
    "stablelm2": Rule(cuts=[_ONE_DIGIT], nfc=True),
    "starcoder": _DIGITS,
    "tekken": Rule(cuts=[_TEKKEN], whole_words=True, add_bos=True),
}


def pre_tokenizer(rule: Rule) -> PreTokenizer:
    """The rule as `tokenizers` applies it; its pieces are written in the letters that stand for bytes."""
    from tokenizers import Regex, pre_tokenizers

    steps: list[PreTokenizer] = [pre_tokenizers.Split(Regex(cut), behavior="isolated") for cut in rule.cuts]
    if rule.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule.gpt2))
    return pre_tokenizers.Sequence(steps)
