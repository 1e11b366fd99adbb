"""A server for other programs: the real client of OpenAI's API, against a server in a thread."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import mac
import pytest
from served_projects import PATH, Ask, chat, connected, invocation_of

from mlxops import registry
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.jobs.eval.serve import Serving
from mlxops.jobs.eval.served_models import ServedModels

if TYPE_CHECKING:
    from openai import OpenAI

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[OpenAI]:
    with connected(serving) as found:
        yield found


@pytest.fixture
def ask(client: OpenAI) -> Ask:
    """A chat request with one message."""

    def send(model: str = "tiny", text: str = "Hello", **options: Any) -> Any:
        return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **options)

    return send


def test_the_models_are_the_base_and_the_runs_of_this_project(client: OpenAI, root: Path) -> None:
    from openai import NotFoundError

    names = [model.id for model in client.models.list()]

    assert names == ["tiny", "tuned", "tuned:4", "tuned:8"]
    assert client.models.retrieve("tuned:4").owned_by == "mlxops"
    with pytest.raises(NotFoundError, match="no model of that name"):
        client.models.retrieve("models/tiny")


def test_a_damaged_checkpoint_answers_nothing(root: Path, http: httpx.Client) -> None:
    file = root / "adapters" / "tuned" / "0000004_adapters.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        damaged = http.post(PATH, json=chat(model="tuned:4"))
    finally:
        file.write_bytes(content)

    assert (damaged.status_code, damaged.json()["error"]["code"]) == (409, "model_unavailable")
    assert "is not what was written (SHA-256)" in damaged.json()["error"]["message"]
    assert http.post(PATH, json=chat(model="tuned:4")).status_code == 200


def test_files_that_go_or_break_while_it_serves_are_told_apart_from_unknown_names(
    root: Path, http: httpx.Client
) -> None:
    adapters = root / "adapters" / "tuned"
    model, file, settings = root / "models" / "tiny", adapters / "0000004_adapters.safetensors", "adapter_config.json"
    seeded = chat(model="tuned:best", seed=1, max_tokens=2)
    told: list[tuple[int, str | None]] = []

    def tell(answer: httpx.Response) -> None:
        content = answer.json()
        told.append((answer.status_code, content["error"]["code"] if "error" in content else content.get("model")))

    content = file.read_bytes()
    file.write_bytes(content[:100])
    tell(http.post(PATH, json=chat(model="tuned:4")))
    file.write_bytes(content)
    (adapters / settings).rename(root / settings)
    tell(http.post(PATH, json=seeded))
    (adapters / settings).write_text("[")
    tell(http.post(PATH, json=seeded))
    (root / settings).replace(adapters / settings)
    tell(http.post(PATH, json=chat(max_tokens=2)))  # the base model, so that the next one is put in
    model.rename(root / "elsewhere")
    tell(http.get("/v1/models"))
    tell(http.post(PATH, json=seeded))
    (root / "elsewhere").rename(model)
    tell(http.post(PATH, json=seeded))

    refused = (409, "model_unavailable")
    assert told == [refused, (200, "tuned:8"), refused, (200, "tiny"), (200, None), refused, (200, "tuned:8")]


def test_two_clients_at_once_get_what_query_prints_for_their_runs(
    serving: Serving, mlxops: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    settings = "--temperature 1 --top-p 0.9 --max-tokens 24"
    asked = [("tuned:4", 11), ("tuned", 12)]
    printed = [mlxops(f"query --run {run} -p 'What is 3?' {settings} --seed {seed}")[1] for run, seed in asked]

    def talk(mine: list[tuple[str, int]]) -> list[str]:
        with connected(serving) as client:
            return [
                _words(client, model, seed, stream=stream, temperature=1, top_p=0.9, max_tokens=24)
                for model, seed in mine
                for stream in (False, True)
            ]

    with ThreadPoolExecutor(2) as both:
        said = list(both.map(talk, [[each] * 3 for each in asked]))

    assert said == [[text.removesuffix("\n")] * 6 for text in printed]
    assert printed[0] != printed[1]


def _words(client: OpenAI, model: str, seed: int, *, stream: bool, **options: Any) -> str:
    messages: Any = [{"role": "user", "content": "What is 3?"}]
    got: Any = client.chat.completions.create(model=model, messages=messages, seed=seed, stream=stream, **options)
    if not stream:
        return str(got.choices[0].message.content).removesuffix("\n")
    return "".join(chunk.choices[0].delta.content or "" for chunk in got).removesuffix("\n")


def test_a_prompt_cache_is_used_for_its_own_adapter_only(ask: Ask) -> None:
    text = "Zebras and quaggas: what is the sum of all these words, and who counts them?"
    usages = [ask(model, text).usage for model in ("tiny", "tuned", "tiny", "tuned")]
    cached = [usage.prompt_tokens_details.cached_tokens for usage in usages]
    said = [ask(model, text).choices[0].message.content for model in ("tuned", "tuned:4", "tiny", "tuned", "tiny")]

    half = usages[0].prompt_tokens / 2  # the beginning of the template is that of other tests' conversations
    assert max(cached[:2]) < half < min(cached[2:])
    assert said[0] == said[3] == ask("tuned", text, seed=1).choices[0].message.content
    assert said[2] == said[4] == ask("tiny", text, seed=1).choices[0].message.content
    assert len(set(said)) == 3


def test_a_stream_has_the_pieces_of_the_answer_and_its_counts(ask: Ask) -> None:
    whole = ask(seed=3, temperature=1)
    chunks = list(ask(seed=3, temperature=1, stream=True, stream_options={"include_usage": True}))

    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 6
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stop_ends_the_answer_before_it(ask: Ask) -> None:
    whole = ask(seed=3).choices[0].message.content
    stop = whole[2:4]
    cut = ask(seed=3, stop=[stop, "never said"]).choices[0]
    pieces = [chunk.choices[0] for chunk in ask(seed=3, stop=stop, stream=True)]

    assert (cut.message.content, cut.finish_reason) == (whole[: whole.index(stop)], "stop")
    assert "".join(piece.delta.content or "" for piece in pieces) == cut.message.content
    assert pieces[-1].finish_reason == "stop"


def test_without_a_seed_an_answer_is_another_each_time(ask: Ask) -> None:
    said = {ask(temperature=2, max_tokens=16).choices[0].message.content for _ in range(3)}
    seeded = {ask(temperature=2, max_tokens=16, seed=5).choices[0].message.content for _ in range(2)}

    assert (len(said), len(seeded)) == (3, 1)


def test_a_text_is_completed_as_it_is(client: OpenAI) -> None:
    def complete(prompt: Any, **options: Any) -> Any:
        return client.completions.create(model="tiny", prompt=prompt, max_tokens=5, seed=1, **options)

    whole = complete("Once upon a time")
    pieces: list[Any] = list(complete("Once upon a time", stream=True))

    assert whole.choices[0].text == "".join(piece.choices[0].text for piece in pieces)
    assert (whole.object, whole.usage.completion_tokens) == ("text_completion", 5)
    assert complete(["Once upon a time"]).choices[0].text == whole.choices[0].text
    assert complete([1, 2, 3]).usage.prompt_tokens == 3


def test_log_probabilities_are_those_of_the_tokens_and_change_no_bit(ask: Ask, client: OpenAI) -> None:
    plain = ask(seed=3).choices[0]
    whole = ask(seed=3, logprobs=True, top_logprobs=4)
    pieces = [chunk.choices[0].logprobs for chunk in ask(seed=3, logprobs=True, top_logprobs=4, stream=True)]
    text = client.completions.create(model="tiny", prompt="Once upon a time", max_tokens=5, seed=1, logprobs=2)

    found = whole.choices[0].logprobs.content
    assert whole.choices[0].message.content == plain.message.content
    assert plain.logprobs is None
    assert len(found) == whole.usage.completion_tokens
    assert [each for piece in pieces if piece for each in piece.content] == found
    for each in found:
        others = [other.logprob for other in each.top_logprobs]
        assert others == sorted(others, reverse=True)
        assert (each.logprob, each.token) == (others[0], each.top_logprobs[0].token)
        assert sum(map(math.exp, others)) < 1
    legacy = text.choices[0].logprobs
    assert [len(each) for each in (legacy.tokens, legacy.token_logprobs, legacy.text_offset)] == [5] * 3
    assert legacy.text_offset[0] == 0


def test_json_by_a_schema_is_valid(ask: Ask) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 5}, "large": {"type": "boolean"}},
        "required": ["city", "large"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "town", "schema": schema}}
    choice = ask(response_format=form, max_tokens=200, temperature=1, seed=2).choices[0]

    assert choice.finish_reason == "stop"
    assert sorted(json.loads(choice.message.content)) == ["city", "large"]
    assert ask(response_format={"type": "json_object"}, max_tokens=2).choices[0].message.content.startswith("{")


def test_requests_that_are_broken_off_leave_nothing_behind(serving: Serving, http: httpx.Client) -> None:
    """`benchmarks/serving.py` does the same with 200 at a time, and looks at the memory of the whole process."""
    _load(http, 20, every=10)
    before = _held(http)

    statuses = _load(http, 60, every=10)
    after = _held(http)

    assert statuses == [200] * 54
    assert after[0] <= 1.05 * before[0]
    assert after[1] <= before[1] + 4  # those of the four clients stay open for their next request


def _load(http: httpx.Client, requests: int, *, every: int) -> list[int]:
    """Ask so many times, four at once; every tenth client leaves after the first piece. The statuses of the others."""

    def one(number: int) -> int | None:
        model = ("tiny", "tuned", "tuned:4")[number % 3]
        if number % every:
            return http.post(PATH, json=chat(model=model, max_tokens=1)).status_code
        with http.stream("POST", PATH, json=chat(model=model, stream=True, max_tokens=600)) as answer:
            next(answer.iter_bytes())
        return None

    with ThreadPoolExecutor(4) as many:
        return [status for status in many.map(one, range(requests)) if status is not None]


def _held(http: httpx.Client) -> tuple[int, int]:
    """The bytes that MLX has in arrays, and the threads that answer a connection."""
    import mlx.core as mx

    for number in range(4):  # the conversations that are kept are the same each time
        http.post("/v1/completions", json={"model": "tiny", "prompt": [number + 1] * 20, "max_tokens": 1})
    return mx.get_active_memory(), sum(thread.name == "connection" for thread in threading.enumerate())


def test_a_run_is_on_the_loaded_model_under_another_spelling_of_its_folder(tuned_project: Path) -> None:
    one, other = tuned_project / "models" / "tiny", tuned_project / "models" / "Tiny"
    with registry.open_registry(tuned_project / "runs.db") as db:
        db.connection.execute("UPDATE runs SET model_identity = 'before the folder was changed'")

    with mac.one_folder(one, other):
        chosen = ChosenModel(folder=other, layers=2, dtype="float32")
        names = [each.id for each in ServedModels(invocation_of(tuned_project), chosen).entries()]

    assert names[:2] == ["Tiny", "tuned"]
