"""A server for one loaded model: what is checked before it, its beginning and its end."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mlxops import registry, words
from mlxops.config import ServeConfig
from mlxops.errors import BadRequest, Busy, Interrupted
from mlxops.jobs.eval import loading, memory
from mlxops.jobs.eval.answering import Answerer
from mlxops.jobs.eval.loading import ChosenModel
from mlxops.jobs.eval.served_models import ServedModels
from mlxops.projects.invocation import Invocation
from mlxops.registry.places import run_and_place
from mlxops.serving.access import Access, is_loopback
from mlxops.serving.requests import Defaults
from mlxops.serving.server import ApiServer, Listener, Service
from mlxops.serving.tickets import Tickets
from mlxops.training.signals import listen


@dataclass(frozen=True, kw_only=True)
class ServePlan:
    """A server that is checked and not yet begun; `notes` are what a person should know."""

    invocation: Invocation
    config: ServeConfig
    chosen: ChosenModel
    default: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A server at work: where it is, what it answers for, and which model answers a request that names none."""

    url: str
    host: str
    port: int
    pid: int
    model: str
    models: tuple[str, ...]
    needs_key: bool
    server: ApiServer
    answerer: Answerer

    def to_json(self) -> registry.JsonObject:
        """The facts that a script reads."""
        names = ("url", "host", "port", "pid", "model", "needs_key")
        return {**{name: getattr(self, name) for name in names}, "models": list(self.models)}


def plan(invocation: Invocation, config: ServeConfig) -> ServePlan:
    """Check what a person asks to be served. Raises `BadRequest`, `NotFound` and `Refused`; loads nothing."""
    key = config.api_key or invocation.api_key
    config = replace(config, api_key=key)
    if not is_loopback(config.host) and not key:
        raise BadRequest(
            f"on {config.host} programs of other machines reach the server, and it has no key",
            hint="add `--api-key KEY` or set MLXOPS_API_KEY, or leave out `--host`",
        )
    if key is not None and not (key.isascii() and key.isprintable()):
        raise BadRequest("an API key is made of printable ASCII characters")
    run = config.run
    if run is None and config.model and loading.is_run(invocation, config.model):
        config = replace(config, model=None, run=config.model)
        run = config.run
    chosen = loading.choose(invocation, model=config.model or None, run=run, trust_remote_code=config.trust_remote_code)
    return ServePlan(
        invocation=invocation,
        config=config,
        chosen=chosen,
        default=None if run is None or chosen.adapter is None else _name_of(invocation, run),
        notes=memory.notes(invocation, chosen),
    )


@contextmanager
def serve(plan: ServePlan, listener: Listener) -> Iterator[Serving]:
    """Load the model and answer requests until the block ends.

    Raises `Busy` for a port that is taken and `BadRequest` for an address that is not this machine's, before anything
    is loaded.
    """
    config, invocation = plan.config, plan.invocation
    models = ServedModels(invocation, plan.chosen, default=plan.default)
    tickets = Tickets(config.queue)
    service = Service(
        models=models.entries,
        tickets=tickets,
        defaults=Defaults(
            max_tokens=config.max_tokens,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
        ),
        access=Access(host=config.host, key=config.api_key),
        listener=listener,
    )
    server = _listen(config, service)
    # MLX computes nothing in one thread that was begun in another: the model is made where it is used
    worker = ThreadPoolExecutor(1, thread_name_prefix="model")
    try:
        answerer = worker.submit(_load, plan, models).result()
    except BaseException:
        server.server_close()
        worker.shutdown()
        raise
    # without a model nobody is left waiting
    worker.submit(answerer.run, tickets, listener.failed).add_done_callback(lambda _: tickets.close())
    front = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="server", daemon=True)
    front.start()
    try:
        yield Serving(
            url=f"http://{f'[{config.host}]' if ':' in config.host else config.host}:{server.port}/v1",
            host=config.host,
            port=server.port,
            pid=os.getpid(),
            model=plan.default or models.base,
            models=tuple(entry.id for entry in models.entries()),
            needs_key=config.api_key is not None,
            server=server,
            answerer=answerer,
        )
    finally:
        tickets.close()
        server.close()
        worker.shutdown()
        front.join()


def _load(plan: ServePlan, models: ServedModels) -> Answerer:
    loaded = loading.load(plan.invocation, plan.chosen, draft_model=plan.config.draft_model)
    return Answerer(loaded, models, caches=plan.config.prompt_cache_size)


def wait(serving: Serving) -> None:
    """Wait for Ctrl-C or SIGTERM, and raise `Interrupted` then. A second one leaves at once."""
    stopped = threading.Event()
    with listen(on_first=lambda _: stopped.set()) as request:
        stopped.wait()
    number = request.signal_number or signal.SIGINT
    raise Interrupted(number, f"stopped; {words.plural(serving.answerer.answered, 'request')} answered")


def _listen(config: ServeConfig, service: Service) -> ApiServer:
    try:
        return ApiServer(config.host, config.port, service, config.queue)
    except OverflowError as error:
        raise BadRequest(f"there is no port {config.port}") from error
    except OSError as error:
        where = f"port {config.port} of {config.host}"
        if error.errno == errno.EADDRINUSE:
            raise Busy(f"{where} is taken", hint="`--port 0` takes one that is free") from error
        raise BadRequest(
            f"{where} cannot be listened on: {error.strerror or error}",
            hint="`--host` takes an address of this machine",
        ) from error


def _name_of(invocation: Invocation, run: str) -> str:
    """RUN or RUN:PLACE with the whole name of the run."""
    with registry.open_read_only(invocation.project.registry_path) as db:
        found, place = run_and_place(db, run)
    return str(found["name"]) if place is None else f"{found['name']}:{place}"
