"""A server for one loaded model: what is checked before it, its beginning and its end."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
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
    tickets: Tickets
    answerer: Answerer
    failed: Callable[[BaseException], None]

    def answer(self) -> None:
        """Answer requests until `stop` is called, from another thread.

        Only the thread that loaded the model can: MLX computes nothing in one thread that was begun in another.
        """
        self.answerer.run(self.tickets, self.failed)

    def stop(self) -> None:
        """Take no more requests; who waits is told so."""
        self.tickets.close()

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
    """Load the model and take requests until the block ends; `answer` has them answered.

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
    try:
        loaded = loading.load(invocation, plan.chosen, draft_model=config.draft_model)
        answerer = Answerer(loaded, models, caches=config.prompt_cache_size)
    except BaseException:
        server.server_close()
        raise
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
            tickets=tickets,
            answerer=answerer,
            failed=listener.failed,
        )
    finally:
        tickets.close()
        server.close()
        front.join()


def answer(serving: Serving) -> None:
    """Answer requests until Ctrl-C or SIGTERM, and raise `Interrupted` then. A second one leaves at once.

    This thread does it: one of its own could still be taking MLX down when the program ends, which aborts it.
    """
    with listen(on_first=lambda _: serving.stop()) as request:
        serving.answer()
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
