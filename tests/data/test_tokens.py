"""Records become tokens: exactly the assistant's turns are trained, and what is cut or left out is said."""

import gc
import random
import subprocess
import sys

import numpy
import pytest
from tokenizers_for_tests import (
    CHATML,
    DATED,
    END_AFTER_END,
    GEMMA,
    LLAMA_2,
    PLAIN,
    THINKING,
    THINKING_MARKED,
    TOOLS,
    tiny_tokenizer,
)

from mlxops.data import Record, content_identity, identity, tokenize
from mlxops.errors import BadRequest, InvalidData
from mlxops.rows import TokenRow

WORDS = [
    "Paris",
    " ",
    "\n",
    "\n\n",
    "\t",
    "the",
    "é",
    "日本",
    "👩‍🚀",
    "fine-tune",
    ".",
    "  ",
    "<",
    "|im",
    "a" * 30,
    "\r\n",
]


def chat(*turns: str, origin: str = "f:1") -> Record:
    roles = ("user", "assistant")
    messages = tuple({"role": roles[number % 2], "content": words} for number, words in enumerate(turns))
    return Record(origin=origin, messages=messages)


def text(words: str, origin: str = "f:1") -> Record:
    return Record(origin=origin, text=words)


def rows(*records: Record, tokenizer=None, limit: int = 100_000, mask_prompt: bool = True, stops=()):
    return tokenize(records, tokenizer or tiny_tokenizer(), max_seq_length=limit, mask_prompt=mask_prompt, stops=stops)


def decode(tokenizer, tokens) -> str:
    return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def some_words(chance: random.Random) -> str:
    return "x" + "".join(chance.choices(WORDS, k=chance.randrange(12)))


@pytest.mark.parametrize("trims_offsets", [False, True])
def test_the_trained_tokens_decode_to_the_words_and_their_end_of_turn(trims_offsets):
    chance = random.Random(7)
    tokenizer = tiny_tokenizer(CHATML, trims_offsets=trims_offsets)
    records = [chat(*(some_words(chance) for _ in range(2 * chance.randrange(1, 4)))) for _ in range(300)]

    found = rows(*records, tokenizer=tokenizer)

    trained = [[decode(tokenizer, row.tokens[start:stop]) for start, stop in row.spans] for row in found.rows]
    assert trained == [[message["content"] + "<|im_end|>" for message in record.messages[1::2]] for record in records]


@pytest.mark.parametrize("template", [CHATML, LLAMA_2, GEMMA, DATED, THINKING_MARKED])
def test_the_tokens_are_those_of_the_whole_rendering(template):
    tokenizer = tiny_tokenizer(template, writes_bos=True)
    record = chat("What\n is it?", "Paris.\n\n One", "And?", "Two")

    (row,) = rows(record, tokenizer=tokenizer).rows

    rendered = tokenizer.apply_chat_template(list(record.messages), tokenize=False)
    fixed = decode(tokenizer, row.tokens) if template is DATED else rendered
    assert row.tokens.tolist() == tokenizer(fixed, add_special_tokens=False)["input_ids"]
    assert row.tokens.dtype == "int32"


@pytest.mark.parametrize("trims_offsets", [False, True])
def test_prompt_and_answer_are_tokenized_apart_where_a_token_would_join_them(trims_offsets):
    tokenizer = tiny_tokenizer(PLAIN, trims_offsets=trims_offsets)

    found = rows(chat("The capital of France?", "Paris", "And?", "Rome"), tokenizer=tokenizer)

    (row,) = found.rows
    prompt, answer = tokenizer("Q: The capital of France?\nA: ")["input_ids"], tokenizer("Paris")["input_ids"]
    assert row.tokens.tolist()[: len(prompt) + len(answer)] == prompt + answer
    assert [decode(tokenizer, row.tokens[start:stop]) for start, stop in row.spans] == ["Paris", "Rome<|im_end|>"]
    assert "in 1 row a token would join prompt and answer: they are tokenized apart" in found.notes


def test_rows_whose_answers_begin_a_token_are_tokenized_whole():
    tokenizer = tiny_tokenizer(LLAMA_2, eos_token="</s>")

    found = rows(chat("The capital of France?", "Paris"), tokenizer=tokenizer)

    whole = tokenizer("<s>[INST] The capital of France? [/INST] Paris </s>")["input_ids"]
    assert found.rows[0].tokens.tolist() == whole
    assert not any("apart" in note for note in found.notes)


def test_a_token_that_takes_the_white_space_around_it_along_is_no_part_of_the_answer():
    from tokenizers import AddedToken

    tokenizer = tiny_tokenizer(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer.add_tokens([AddedToken("<|assistant|>", rstrip=True, normalized=False, special=True)])

    (row,) = rows(chat("a", "  b"), tokenizer=tokenizer).rows

    ((start, stop),) = row.spans
    assert decode(tokenizer, row.tokens[start:stop]) == "b<|im_end|>"
    assert row.tokens[start - 1] == tokenizer.convert_tokens_to_ids("<|assistant|>")


def test_a_tokenizer_without_offsets_finds_the_same_spans():
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = GEMMA.replace("<end_of_turn>", "</s>")
    found = rows(chat("é?", "日本\n.", "?", "b"), tokenizer=tokenizer)

    assert not tokenizer.is_fast
    trained = [tokenizer.decode(found.rows[0].tokens[start:stop].tolist()) for start, stop in found.rows[0].spans]
    assert trained == ["日本\n.</s>", "b</s>"]


def test_without_masking_every_token_is_trained_also_where_turns_cannot_be_told_apart():
    found = rows(chat("a?", "b", "c?", "d"), tokenizer=tiny_tokenizer(THINKING), mask_prompt=False)

    assert found.rows[0].spans == ((0, found.rows[0].length),)
    assert found.trained_tokens == found.total_tokens - 1


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
ADD_CALL = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOOL_ROW = Record(
    origin="f:1",
    messages=(
        {"role": "user", "content": "1?"},
        ADD_CALL,
        {"role": "tool", "content": "1"},
        *chat("?", "1.").messages[1:],
    ),
    tools=({"name": "add"},),
)


@pytest.mark.parametrize(
    ("template", "eos", "stop", "rows_of_7df9bec"),
    [
        (CHATML, "<|im_end|>", "<|im_end|>", "5df5646f7b8dd1e9"),
        (LLAMA_2, "</s>", "</s>", "1c1fa8f01e63b9dd"),
        (GEMMA, "<|endoftext|>", "<end_of_turn>", "3a60515a307e9e54"),
        (DATED, "<|im_end|>", "<|im_end|>", "b17f5ecf6499bff1"),
        (END_AFTER_END, "<|endoftext|>", "<|end|>", "73fa5579eea549da"),
        (THINKING_MARKED, "<|im_end|>", "<|im_end|>", "5194444aac8a461e"),
    ],
)
def test_rows_whose_answers_began_a_token_are_those_of_earlier_versions(template, eos, stop, rows_of_7df9bec):
    chance = random.Random(11)
    records = [chat(*(some_words(chance) for _ in range(2 * chance.randrange(1, 4)))) for _ in range(100)]
    tokenizer = tiny_tokenizer(template, eos_token=eos)

    found = rows(*records, tokenizer=tokenizer, stops=[tokenizer.convert_tokens_to_ids(stop)]).rows

    assert identity(found)[:16] == rows_of_7df9bec


def test_the_row_of_a_tool_call_is_that_of_earlier_versions():
    assert identity(rows(TOOL_ROW, tokenizer=tiny_tokenizer(TOOLS)).rows)[:16] == "654e55ffc90da067"


# ------------------------------------------------------------------ rows of text


@pytest.mark.parametrize("written", ["a text\n", "a text\n<|im_end|>"])
def test_a_text_is_trained_whole_and_ends_with_one_end_of_text_token(written):
    tokenizer = tiny_tokenizer()

    (row,) = rows(text(written), tokenizer=tokenizer).rows

    assert decode(tokenizer, row.tokens) == "a text\n<|im_end|>"
    assert row.spans == ((0, row.length),)


@pytest.mark.parametrize("written", ["a text", "<s>a text"])
def test_a_text_begins_with_one_begin_of_text_token_where_the_tokenizer_writes_one(written):
    tokenizer = tiny_tokenizer(writes_bos=True)

    (row,) = rows(text(written), tokenizer=tokenizer).rows

    assert decode(tokenizer, row.tokens) == "<s>a text<|im_end|>"


def test_texts_need_no_chat_template_and_conversations_do():
    tokenizer = tiny_tokenizer(None)

    assert len(rows(text("a"), tokenizer=tokenizer).rows) == 1
    with pytest.raises(BadRequest, match="has no chat template"):
        rows(text("a"), chat("a", "b"), tokenizer=tokenizer)


def test_rows_keep_their_order_whatever_their_format():
    records = [
        (text if number % 3 else lambda words, origin: chat("?", words, origin=origin))(f"{number}", f"f:{number}")
        for number in range(600)
    ]

    assert [row.origin for row in rows(*records).rows] == [record.origin for record in records]


# ------------------------------------------------------------------ the limit


def test_long_rows_are_cut_and_counted():
    whole = rows(chat("a?", "one two three four " * 20), chat("a?", "b"))
    limit = whole.rows[1].length + 5

    found = rows(chat("a?", "one two three four " * 20), chat("a?", "b"), limit=limit)

    assert [row.length for row in found.rows] == [limit, limit - 5]
    assert found.rows[0].spans == ((whole.rows[0].spans[0][0], limit),)
    assert (found.truncated, found.longest, found.left_out) == (1, whole.rows[0].length, ())
    assert found.total_tokens == 2 * limit - 5
    assert found.trained_tokens == sum(row.trained for row in found.rows)


def test_rows_of_which_nothing_is_left_to_train_on_are_named():
    found = rows(chat("a? " * 90, "b", origin="f:7"), chat("a?", "b"), limit=60)

    assert found.left_out == ("f:7",)
    assert (len(found.rows), found.truncated) == (1, 1)


def test_turns_beyond_the_limit_lose_their_spans():
    (row,) = rows(chat("a?", "b", "c " * 100, "d"), limit=60).rows

    assert len(row.spans) == 1


def test_nothing_to_train_on_at_all_is_refused_with_the_option_to_raise():
    with pytest.raises(InvalidData, match=r"^within 10 tokens no row has a word to train on") as caught:
        rows(chat("a?", "b", origin="f:1"), chat("a?", "b", origin="f:2"), limit=10)

    assert caught.value.problems[1] == "f:2: nothing to train on within 10 tokens"
    assert caught.value.hint.startswith("raise `--max-seq-length`, to ")


def test_no_records_are_no_rows():
    assert rows().rows == ()


# ------------------------------------------------------------------ what is said


def test_all_rows_that_the_template_refuses_are_collected():
    system = Record(origin="f:2", messages=({"role": "system", "content": "s"}, *chat("a", "b").messages))
    other = Record(origin="f:3", messages=system.messages)

    with pytest.raises(InvalidData, match=r"^2 of 3 training rows cannot be used with this model$") as caught:
        rows(chat("a", "b"), system, other, tokenizer=tiny_tokenizer(GEMMA))
    assert caught.value.problems == (
        "f:2: the model's chat template refuses it: System role not supported",
        "f:3: the model's chat template refuses it: System role not supported",
    )


def test_calls_get_their_arguments_as_text_where_the_template_cannot_write_an_object():
    called = "{% for c in m.tool_calls or [] %}{{ c.name + c.arguments }}{% endfor %}"
    template = "{% for m in messages %}{{ m.content }}" + called + ";{% endfor %}"
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]}
    record = Record(origin="f:1", messages=({"role": "user", "content": "1?"}, call))
    tokenizer = tiny_tokenizer(template)

    (row,) = rows(record, tokenizer=tokenizer).rows

    assert decode(tokenizer, row.tokens) == '1?;add{"a": 1};<|im_end|>'


def test_what_the_prompt_has_and_rows_lack_is_mentioned():
    opened = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")

    notes = rows(chat("a", "b"), tokenizer=tiny_tokenizer(opened, added=("<think>",))).notes

    assert notes == (
        "the generation prompt ends with '<think>\\n', which the rows do not have (`--chat-template-config`)",
    )


def test_a_fixed_date_and_a_missing_end_of_turn_are_mentioned():
    dated = rows(chat("a", "b"), tokenizer=tiny_tokenizer(DATED)).notes
    plain = rows(chat("a", "b", "c", "d"), chat("a", "b"), tokenizer=tiny_tokenizer(PLAIN)).notes

    assert dated == ("the chat template writes the date: rows say 26 July 2024, so that they are the same tomorrow",)
    assert plain[:2] == (
        "the chat template writes no token that ends the last turn: '<|im_end|>' is added to 2 rows",
        "no token ends 1 earlier turn of the assistant, so none is trained there",
    )


def test_the_examples_are_the_first_rows_with_the_texts_that_are_trained():
    found = rows(chat("a?", "b é", "c?", "d"), text("Hello"), chat("e", "f"), chat("g", "h"))

    first, second, _ = found.examples
    assert (first.origin, first.trained) == ("f:1", ("b é<|im_end|>", "d<|im_end|>"))
    assert first.text.endswith("<|im_start|>assistant\nd<|im_end|>\n")
    assert (second.text, second.trained) == ("Hello<|im_end|>", ("Hello<|im_end|>",))


def test_the_examples_are_what_is_left_within_the_limit():
    found = rows(chat("a? " * 90, "b"), chat("a?", "b"), limit=60)

    assert [example.trained for example in found.examples] == [("b<|im_end|>",)]


@pytest.mark.slow
def test_progress_is_told_up_to_the_last_row():
    told = []
    records = [chat("a", "b")] * 600

    tokenize(records, tiny_tokenizer(), max_seq_length=99, mask_prompt=True, progress=lambda *step: told.append(step))

    assert told == [(256, 600), (512, 600), (600, 600)]


# ------------------------------------------------------------------ the identity


def test_the_identity_is_that_of_tokens_and_spans_in_order_and_of_no_file():
    one, two = chat("a", "b", origin="f:1"), chat("c", "d", origin="f:2")
    moved = chat("a", "b", origin="elsewhere:9")

    assert identity(rows(one, two).rows) == identity(rows(moved, two).rows)
    others = [rows(two, one).rows, rows(one).rows, rows(one, two, mask_prompt=False).rows, ()]
    assert len({identity(each) for each in [rows(one, two).rows, *others]}) == 5


def test_the_identity_stays_what_it_was():
    row = TokenRow(tokens=numpy.array([5, 70_000, 2], dtype=numpy.int32), spans=((1, 2), (2, 3)), origin="f:1")

    assert identity([row]) == "e7d91857b5a9487ef83d7e230ebbeff266ff366b9a5c787717a7fe75b51fd208"


def test_the_identity_of_the_content_is_that_of_the_words_in_their_order_and_of_no_masking():
    one, other = chat("a", "b"), text("c")

    assert content_identity([one, other]) == content_identity([chat("a", "b", origin="g:7"), other])
    assert content_identity([one, other]) != content_identity([other, one])
    assert content_identity([one])[:16] == "9433af6665c5e3dc"


@pytest.mark.slow
def test_reading_and_tokenizing_loads_no_mlx(tmp_path):
    script = (
        "import sys; sys.path.insert(0, 'tests');"
        "from tokenizers_for_tests import tiny_tokenizer, THINKING_MARKED;"
        "from mlxops.data import *; from mlxops.data.formats import parse;"
        "assert 'numpy' not in sys.modules and 'transformers' not in sys.modules;"
        "rows = [{'text': 'a'}, {'conversations': [{'from': f, 'value': 'a'} for f in ('human', 'gpt') * 2]}];"
        "done = tokenize([parse(row, 'f:1') for row in rows], tiny_tokenizer(THINKING_MARKED),"
        " max_seq_length=99, mask_prompt=True); identity(done.rows);"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('mlx', 'mlx_lm')]"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stderr=subprocess.DEVNULL)


def test_preparing_leaves_the_collector_as_it_was():
    before = gc.get_threshold()

    rows(chat("Ask", "Words"))
    with pytest.raises(InvalidData):
        rows(chat("Ask", "Words"), limit=2)

    assert gc.get_threshold() == before
