"""The thread with the model: it takes a request after the other and answers it, with the adapter that it names.

What makes text is what `query` calls, so that a request with a seed gets the bits that `query --seed` prints.
"""

from __future__ import annotations

import inspect
import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlxops.chat.events import Piece
from mlxops.errors import BadRequest, MlxopsError
from mlxops.foreign import in_words
from mlxops.jobs.eval import loading, speaking
from mlxops.jobs.eval.loading import ChosenAdapter
from mlxops.jobs.eval.served_models import ServedModels
from mlxops.serving.requests import Request
from mlxops.serving.shapes import ApiError, Delta, Finished, FinishReason, Started, ToolCall, internal_error
from mlxops.serving.tickets import Ticket, Tickets
from mlxops.system import gpu

if TYPE_CHECKING:
    from mlxops.models.generation import LoadedModel
    from mlxops.models.logprobs import LogprobWatch
    from mlxops.models.sampling import LogitsProcessor, Sampling
    from mlxops.models.structured import JsonGrammar
    from mlxops.models.tool_calls import Call, CallFormat

_GRAMMARS = 16  # schemas that are kept compiled


class Answerer:
    """A loaded model that answers requests, in one thread; `caches` prompt caches are kept."""

    def __init__(self, loaded: LoadedModel, models: ServedModels, *, caches: int) -> None:
        from mlxops.models.cache_pool import CachePool
        from mlxops.models.tool_calls import format_of

        self.answered = 0
        self._loaded = loaded
        self._models = models
        self._caches = CachePool(loaded, caches)
        self._calls: CallFormat | None = format_of(loaded.tokenizer)
        self._grammars: dict[str, JsonGrammar] = {}

    def run(self, tickets: Tickets, failed: Callable[[BaseException], None]) -> None:
        """Answer requests until the queue is closed. What nobody foresaw ends one answer and not the server."""
        import mlx.core as mx

        while (ticket := tickets.next()) is not None:
            started = time.monotonic()
            try:
                self._answer(ticket)
            except ApiError as error:
                ticket.put(error)
            except MlxopsError as error:
                ticket.put(ApiError(400, error.message, code="invalid_request"))
            except Exception as error:  # any failure costs one answer; a bug is also reported
                if lacks := gpu.trouble(error):
                    ticket.put(ApiError(503, f"{gpu.SENTENCES[lacks]}: {in_words(error)}", code="unavailable"))
                else:
                    failed(error)
                    ticket.put(internal_error())
            mx.clear_cache()
            tickets.seconds_each += 0.3 * (time.monotonic() - started - tickets.seconds_each)

    def _answer(self, ticket: Ticket) -> None:
        from mlxops.models.logprobs import LogprobWatch
        from mlxops.models.tool_calls import WordSplitter

        request, loaded = ticket.request, self._loaded
        name, adapter = self._models.find(request.model)
        try:
            self._put_in(adapter)
        except MlxopsError as error:  # the files are another model's by now, or gone: no fault of the request
            raise ApiError(409, error.message, code="model_unavailable", param="model") from error
        prompt = self._prompt(request, adapter)
        speaking.check_room(loaded, prompt)
        processors = self._processors(request, len(prompt.tokens))
        # what was computed before in parts of other sizes differs in the last bits, so that a seed starts afresh
        is_kept = request.seed is None
        cache = self._caches.lend(prompt.tokens) if is_kept else loaded.new_cache()
        words = WordSplitter(stop=request.stop, calls=self._calls if request.tools else None, tools=request.tools)
        watch = None if request.logprobs is None else LogprobWatch(loaded=loaded, others=request.logprobs)
        said = _Said(ticket, watch)
        ticket.put(Started(model=name))
        try:
            for event in speaking.speak(
                loaded,
                prompt,
                question="",
                max_tokens=request.max_tokens,
                sampling=_sampling(request),
                cache=cache,
                processors=processors,
                should_stop=lambda: ticket.is_cancelled or words.is_stopped,
                watch=watch or (lambda token, logprobs: None),
                may_think=request.kind == "chat" and request.schema is None,
            ):
                if not isinstance(event, Piece):
                    answered = event
                elif event.is_thought:
                    said.put(Delta(thought=event.text))
                else:
                    said.words(words.feed(event.text))
            said.words(words.finish())
            if not words.is_stopped:
                said.end()
        finally:
            if is_kept:
                self._caches.give_back(cache)
        reason: FinishReason = "length" if answered.finish_reason == "length" and not words.is_stopped else "stop"
        self.answered += not ticket.is_cancelled
        ticket.put(
            Finished(
                reason="tool_calls" if said.has_called and reason == "stop" else reason,
                prompt_tokens=answered.prompt_tokens,
                cached_tokens=answered.cached_tokens,
                tokens=answered.generated_tokens,
            )
        )

    def _put_in(self, adapter: ChosenAdapter | None) -> None:
        slot = self._loaded.slot
        if adapter is None:
            if slot.adapter is not None:
                slot.take_out()
        elif slot.adapter is None or slot.adapter.identity != loading.spec_of(adapter.adapter).identity:
            slot.put_in(loading.spec_of(adapter.adapter))

    def _prompt(self, request: Request, adapter: ChosenAdapter | None) -> speaking.Prompt:
        loaded = self._loaded
        if request.kind == "chat":
            if request.tools and self._calls is None:
                message = "this model has no form for calls of tools that is known here"
                raise ApiError(400, message, code="unsupported_parameter", param="tools")
            # what transformers does with a template is no word for it, and another template no request's business
            arguments = inspect.signature(loaded.tokenizer.apply_chat_template).parameters
            if taken := sorted(arguments.keys() & request.template_config.keys()):
                message = f"'chat_template_kwargs' may not have {taken[0]!r}"
                raise ApiError(400, message, code="invalid_value", param="chat_template_kwargs")
            config = {**(adapter.template_config if adapter else {}), **request.template_config}
            return speaking.prompt_of(loaded, request.messages, request.max_tokens, config, tools=request.tools)
        if isinstance(request.prompt, str):
            text, tokens = request.prompt, list(loaded.tokenizer.encode(request.prompt))
        else:
            text, tokens = "", list(request.prompt)
        return speaking.prompt_with(loaded, text, tokens, request.max_tokens)

    def _processors(self, request: Request, prompt_tokens: int) -> Sequence[LogitsProcessor]:
        from mlx_lm.sample_utils import make_logits_processors

        rows = self._loaded.embedding_rows or len(self._loaded.tokenizer)
        if beyond := [token for token in request.logit_bias if token >= rows]:
            message = f"the model has {rows:,} tokens, and 'logit_bias' names {max(beyond):,}"
            raise ApiError(400, message, code="invalid_value", param="logit_bias")
        processors: list[LogitsProcessor] = make_logits_processors(
            logit_bias=dict(request.logit_bias) or None,
            presence_penalty=request.presence_penalty or None,
            frequency_penalty=request.frequency_penalty or None,
        )
        if request.schema is not None:
            processors.append(self._grammar(request.schema).processor(prompt_tokens))
        return processors

    def _grammar(self, schema: object) -> JsonGrammar:
        from mlxops.models.structured import JsonGrammar

        key = json.dumps(schema)
        if key not in self._grammars:
            known = next(iter(self._grammars.values()), None)
            try:
                grammar = JsonGrammar(
                    self._loaded, schema, name=self._models.base, tokens=known.tokens if known else None
                )
            except BadRequest as error:
                raise ApiError(400, error.message, code="invalid_value", param="response_format") from error
            while len(self._grammars) >= _GRAMMARS:
                del self._grammars[next(iter(self._grammars))]
            self._grammars[key] = grammar
        return self._grammars[key]


class _Said:
    """What is handed on of an answer; with each piece go the log-probabilities since the last one."""

    def __init__(self, ticket: Ticket, watch: LogprobWatch | None) -> None:
        self.has_called = False
        self._ticket = ticket
        self._watch = watch

    def put(self, delta: Delta) -> None:
        self._ticket.put(delta if self._watch is None else replace(delta, logprobs=self._watch.take()))

    def words(self, parts: Iterable[str | Call]) -> None:
        for part in parts:
            if isinstance(part, str):
                self.put(Delta(text=part))
                continue
            identity = f"call_{uuid.uuid4().hex[:24]}"
            self.put(Delta(calls=[ToolCall(id=identity, name=part.name, arguments=part.arguments)]))
            self.has_called = True

    def end(self) -> None:
        """Tokens that no words came of have log-probabilities, too."""
        if self._watch is not None and (left := self._watch.take()):
            self._ticket.put(Delta(logprobs=left))


def _sampling(request: Request) -> Sampling:
    from mlxops.models.sampling import Sampling

    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        seed=secrets.randbits(63) if request.seed is None else request.seed,
    )
