"""A server for other programs: the real client of OpenAI's API, against a server in a thread."""

from __future__ import annotations

import json
import math
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import mac
import pytest
from commands import own_cache

from mlxops import registry
from mlxops.config import ServeConfig
from mlxops.jobs.eval import serve as job
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.jobs.eval.serve import ServePlan, Serving
from mlxops.jobs.eval.served_models import ServedModels
from mlxops.projects import project
from mlxops.projects.invocation import Invocation
from mlxops.serving.server import Served

if TYPE_CHECKING:
    from openai import OpenAI

Ask = Callable[..., Any]

PATH = "/v1/chat/completions"


class Listener:
    """What the server told."""

    def __init__(self) -> None:
        self.all: list[Served] = []
        self.bugs: list[BaseException] = []

    def served(self, served: Served) -> None:
        self.all.append(served)

    def failed(self, error: BaseException) -> None:
        self.bugs.append(error)


LISTENER = Listener()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(_tuned_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the run `tuned`, which the server and `query` both work in."""
    folder: Path = tmp_path_factory.mktemp("serving") / "project"
    return Path(shutil.copytree(_tuned_project, folder))


@pytest.fixture(scope="module")
def serving(root: Path) -> Iterator[Serving]:
    """A server for the tiny model, shared by the tests of this file."""
    plan = job.plan(_invocation(root), ServeConfig(model="tiny", port=0, queue=8, max_tokens=6))
    with running(plan, LISTENER) as found:
        yield found
    assert LISTENER.bugs == []


@contextmanager
def running(plan: ServePlan, listener: Listener) -> Iterator[Serving]:
    """A server in a thread of its own."""
    ready: queue.SimpleQueue[Serving] = queue.SimpleQueue()

    def work() -> None:
        with job.serve(plan, listener) as found:
            ready.put(found)
            found.answer()

    thread = threading.Thread(target=work, name="model")
    thread.start()
    serving = ready.get(timeout=120)
    try:
        yield serving
    finally:
        serving.stop()
        thread.join()


def _invocation(root: Path) -> Invocation:
    return Invocation(project=project.find(root), cache=own_cache(root.with_name("cache")))


def connected(serving: Serving) -> OpenAI:
    """The client, whose import takes a second that no other test needs."""
    from openai import OpenAI

    return OpenAI(base_url=serving.url, api_key="none", max_retries=0, timeout=60)


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


@pytest.fixture(scope="module")
def http(serving: Serving) -> Iterator[httpx.Client]:
    """Requests as any program makes them."""
    with httpx.Client(base_url=f"http://127.0.0.1:{serving.port}", timeout=60, verify=False, trust_env=False) as found:
        yield found


def _chat(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], **fields}


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
        damaged = http.post(PATH, json=_chat(model="tuned:4"))
    finally:
        file.write_bytes(content)

    assert (damaged.status_code, damaged.json()["error"]["code"]) == (409, "model_unavailable")
    assert "is not what was written (SHA-256)" in damaged.json()["error"]["message"]
    assert http.post(PATH, json=_chat(model="tuned:4")).status_code == 200


def test_files_that_go_or_break_while_it_serves_are_told_apart_from_unknown_names(
    root: Path, http: httpx.Client
) -> None:
    adapters = root / "adapters" / "tuned"
    model, file, settings = root / "models" / "tiny", adapters / "0000004_adapters.safetensors", "adapter_config.json"
    seeded = _chat(model="tuned:best", seed=1, max_tokens=2)
    told: list[tuple[int, str | None]] = []

    def tell(answer: httpx.Response) -> None:
        content = answer.json()
        told.append((answer.status_code, content["error"]["code"] if "error" in content else content.get("model")))

    content = file.read_bytes()
    file.write_bytes(content[:100])
    tell(http.post(PATH, json=_chat(model="tuned:4")))
    file.write_bytes(content)
    (adapters / settings).rename(root / settings)
    tell(http.post(PATH, json=seeded))
    (adapters / settings).write_text("[")
    tell(http.post(PATH, json=seeded))
    (root / settings).replace(adapters / settings)
    tell(http.post(PATH, json=_chat(max_tokens=2)))  # the base model, so that the next one is put in
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


@pytest.mark.parametrize(
    ("fields", "param", "status"),
    [
        ({"model": "../models/tiny"}, "model", 404),
        ({"model": "adapters/tuned"}, "model", 404),
        ({"model": "tuned:5"}, "model", 404),
        ({"model": "nobody"}, "model", 404),
        ({"model": "x" * 100_000}, "model", 404),
        ({"model": "tuned' OR 1=1 --"}, "model", 404),
        ({"model": 5}, "model", 400),
        ({"adapters": "adapters/tuned"}, "adapters", 400),
        ({"messages": []}, "messages", 400),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content", 400),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0]", 400),
        ({"max_tokens": -3}, "max_tokens", 400),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens", 400),
        ({"temperature": "hot"}, "temperature", 400),
        ({"temperature": 1e999}, None, 400),
        ({"seed": True}, "seed", 400),
        ({"stop": [""]}, "stop", 400),
        ({"stream": 1}, "stream", 400),
        ({"stream_options": {"include_usage": True}}, "stream_options", 400),
        ({"n": 2}, "n", 400),
        ({"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs", 400),
        ({"logprobs": 1}, "logprobs", 400),
        ({"top_logprobs": 3}, "top_logprobs", 400),
        ({"logit_bias": {"999999": 5}}, "logit_bias", 400),
        ({"logit_bias": {"1": 10**400}}, "logit_bias", 400),
        ({"response_format": {"type": "xml"}}, "response_format", 400),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "odd"}}}},
            "response_format",
            400,
        ),
        ({"tool_choice": "required"}, "tool_choice", 400),
        ({"tools": [{"type": "function", "function": {"name": "add"}}]}, "tools", 400),
    ],
)
def test_a_wrong_field_is_named_in_the_shape_of_openai(
    http: httpx.Client, fields: dict[str, Any], param: str | None, status: int
) -> None:
    answer = http.post(PATH, content=json.dumps(_chat(**fields)))

    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert error["message"]
    assert error["code"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": b"{"}, 400, "invalid_json"),
        ({"content": b"[" * 100_000}, 400, "invalid_json"),
        ({"content": b"[]"}, 400, "invalid_json"),
        ({"content": b"\xff"}, 400, "invalid_json"),
        ({"content": b'{"model": "\\ud800"}'}, 400, "invalid_json"),
        ({"content": b"x" * 1_048_576}, 413, "body_too_large"),
        ({"content": iter([b"{}"])}, 411, "length_required"),
        ({"url": "/v1/embeddings", "json": {}}, 404, "unknown_url"),
        ({"url": "/v1/../etc", "method": "GET"}, 404, "unknown_url"),
        ({"method": "OPTIONS"}, 405, None),
        ({"json": {}, "headers": {"Origin": "https://example.org"}}, 403, "wrong_origin"),
        ({"method": "GET", "url": "/v1/models", "headers": {"Sec-Fetch-Site": "cross-site"}}, 403, "wrong_origin"),
        ({"method": "GET", "url": "/v1/models", "headers": {"Host": "rebound.example"}}, 403, "wrong_host"),
    ],
)
def test_what_is_refused_has_the_shape_of_openai_and_the_server_lives_on(
    http: httpx.Client, request_: dict[str, Any], status: int, code: str | None
) -> None:
    answer = http.request(**{"method": "POST", "url": PATH, **request_})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "content",
    [
        b"hello\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_get_an_answer(serving: Serving, http: httpx.Client, content: bytes) -> None:
    with socket.create_connection(("127.0.0.1", serving.port)) as connection:
        connection.sendall(content)
        said = connection.makefile("rb").read()

    assert b'"invalid_request_error"' in said
    assert http.get("/health").status_code == 200


def test_a_full_queue_says_when_to_try_again_and_who_waited_is_answered(http: httpx.Client) -> None:
    endless = _chat(max_tokens=1900, stream=True, logit_bias={"100": 100})  # one token again and again
    with ThreadPoolExecutor(24) as many:
        with http.stream("POST", PATH, json=endless) as answer:
            next(answer.iter_bytes())
            asked = [many.submit(http.post, PATH, json=_chat(max_tokens=1)) for _ in range(24)]
            next(as_completed(asked))
        answers = [each.result() for each in asked]

    refused = [each for each in answers if each.status_code != 200]
    assert refused
    assert len(answers) - len(refused) >= 8  # so many may wait for the one at work
    for each in refused:
        assert (each.status_code, each.json()["error"]["code"]) == (429, "queue_full")
        assert int(each.headers["Retry-After"]) >= 1


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
            return http.post(PATH, json=_chat(model=model, max_tokens=1)).status_code
        with http.stream("POST", PATH, json=_chat(model=model, stream=True, max_tokens=600)) as answer:
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


@pytest.fixture
def other(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server in a process of its own, in the same project: `process, first_line = other("tuned --port 0 --json")`."""
    started: list[subprocess.Popen[str]] = []

    def start(options: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "mlxops", "eval.serve", *options.split()]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_sigterm_tells_who_waits_and_ends_it_with_143(other: Any) -> None:
    process, first_line = other("tuned:4 --host 0.0.0.0 --port 0 --api-key secret --json")
    facts = json.loads(first_line)
    path, key = f"http://127.0.0.1:{facts['port']}/v1", {"Authorization": "Bearer secret"}
    body = _chat(max_tokens=1500, stream=True, logit_bias={"100": 100})  # one token again and again
    with httpx.Client(timeout=60, verify=False, trust_env=False) as http:
        without = http.get(f"{path}/models")
        with http.stream("POST", f"{path}/chat/completions", json={**body, "model": None}, headers=key) as answer:
            lines = answer.iter_lines()
            first = json.loads(next(lines).removeprefix("data: "))
            process.send_signal(signal.SIGTERM)
            last = [line for line in lines if line][-1]

    _, err = process.communicate()
    assert (process.returncode, err.splitlines()[-1]) == (143, "stopped; 0 requests answered")
    assert (without.status_code, without.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (facts["model"], facts["needs_key"], first["model"]) == ("tuned:4", True, "tuned:4")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stopping"


@pytest.fixture
def scaled(root: Path) -> str:
    """The name of a model whose positions are scaled, as those of Llama 3.2: some are begun when it is made.

    MLX computes nothing in one thread that was begun in another.
    """
    folder = shutil.copytree(root / "models" / "tiny", root / "models" / "scaled")
    config = json.loads((folder / "config.json").read_text())
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config["rope_scaling"] = {**scaling, "original_max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    return folder.name


def test_ctrl_c_ends_it_with_130_and_every_request_was_told(other: Any, scaled: str) -> None:
    process, first_line = other(f"{scaled} --port 0")
    url = first_line.removeprefix("serving scaled at ").rstrip()
    with httpx.Client(timeout=60, verify=False, trust_env=False) as http:
        answer = http.post(f"{url}/chat/completions", json=_chat(max_tokens=2, model=scaled))
    process.send_signal(signal.SIGINT)

    _, err = process.communicate()
    lines = err.splitlines()
    assert (process.returncode, answer.status_code) == (130, 200)
    assert lines[:2] == ["models: scaled", "Ctrl-C ends it"]
    assert lines[2].startswith("200 /v1/chat/completions, scaled, ")
    assert lines[3:] == ["stopped; 1 request answered"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("tuned --host 0.0.0.0", 2, "it has no key\nhint: add `--api-key KEY` or set MLXOPS_API_KEY"),
        ("tuned --port {taken}", 3, "is taken\nhint: `--port 0` takes one that is free"),
        ("tuned --host 192.0.2.1 --api-key x", 2, "`--host` takes an address of this machine"),
        ("nobody", 2, "no model 'nobody'"),
        ("--run nobody", 2, "no run 'nobody'"),
        ("", 2, "no model given"),
    ],
)
def test_what_cannot_be_served_is_a_sentence(
    mlxops: Any, serving: Serving, root: Path, monkeypatch: pytest.MonkeyPatch, options: str, code: int, words: str
) -> None:
    monkeypatch.chdir(root)

    found, out, err = mlxops(f"eval.serve {options.format(taken=serving.port)}")

    assert (found, out) == (code, "")
    assert words in err


def test_a_key_may_stand_in_the_environment(
    mlxops: Any, serving: Serving, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("MLXOPS_API_KEY", "secret")

    code, _, err = mlxops(f"eval.serve tuned --host 0.0.0.0 --port {serving.port}")

    assert (code, err.splitlines()[0]) == (3, f"port {serving.port} of 0.0.0.0 is taken")


def test_a_run_is_on_the_loaded_model_under_another_spelling_of_its_folder(tuned_project: Path) -> None:
    one, other = tuned_project / "models" / "tiny", tuned_project / "models" / "Tiny"
    with registry.open_registry(tuned_project / "runs.db") as db:
        db.connection.execute("UPDATE runs SET model_identity = 'before the folder was changed'")

    with mac.one_folder(one, other):
        chosen = ChosenModel(folder=other, layers=2, dtype="float32")
        names = [each.id for each in ServedModels(_invocation(tuned_project), chosen).entries()]

    assert names[:2] == ["Tiny", "tuned"]
