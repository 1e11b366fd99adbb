"""What a server refuses, in the shape of OpenAI's API, and what is refused before there is one."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_projects import PATH, chat

from mlxops.jobs.eval.serve import Serving

pytestmark = pytest.mark.slow


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
    answer = http.post(PATH, content=json.dumps(chat(**fields)))

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
    endless = chat(max_tokens=1900, stream=True, logit_bias={"100": 100})  # one token again and again
    with ThreadPoolExecutor(24) as many:
        with http.stream("POST", PATH, json=endless) as answer:
            next(answer.iter_bytes())
            asked = [many.submit(http.post, PATH, json=chat(max_tokens=1)) for _ in range(24)]
            next(as_completed(asked))
        answers = [each.result() for each in asked]

    refused = [each for each in answers if each.status_code != 200]
    assert refused
    assert len(answers) - len(refused) >= 8  # so many may wait for the one at work
    for each in refused:
        assert (each.status_code, each.json()["error"]["code"]) == (429, "queue_full")
        assert int(each.headers["Retry-After"]) >= 1


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
