"""One question to a loaded model, or one after the other, each by itself: the answer and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlxops.chat.events import Answered, Event, Piece, Problem
from mlxops.config import QueryConfig
from mlxops.errors import BadRequest, Failed, MlxopsError, NotFound
from mlxops.jobs.eval import chat_input, loading, memory, speaking
from mlxops.jobs.eval.loading import ChosenAdapter
from mlxops.projects.invocation import Invocation

if TYPE_CHECKING:
    from mlxops.models.generation import LoadedModel
    from mlxops.models.structured import JsonGrammar


def question_of(config: QueryConfig) -> str | None:
    """The question: that of --prompt, or all of standard input where that is no terminal; None to ask for them.

    Raises `BadRequest` where nothing is asked.
    """
    if config.interactive:
        if config.prompt is not None:
            raise BadRequest("--prompt and --interactive exclude each other")
        return None
    if config.prompt is not None:
        return chat_input.message_of(config.prompt)
    if sys.stdin is None or sys.stdin.isatty():
        raise BadRequest("nothing is asked", hint="`-p QUESTION` asks one, `-i` one after the other")
    return chat_input.message_of("-")


def open_query(invocation: Invocation, config: QueryConfig, tell: Callable[[str], None] = lambda note: None) -> Query:
    """Load the model that a person names, and tell before what they should know of its memory.

    Raises `BadRequest` and `NotFound` for what is not there or does not fit.
    """
    schema = None if config.schema is None else _read_schema(invocation.project.resolve(config.schema))
    chosen = loading.choose_as(invocation, config)
    for note in memory.notes(invocation, chosen):
        tell(note)
    loaded = loading.load(invocation, chosen, draft_model=config.draft_model)
    grammar = None
    if config.schema is not None:
        from mlxops.models.structured import JsonGrammar

        grammar = JsonGrammar(loaded, schema, name=chosen.folder.name)
    return Query(config, loaded, grammar, adapter=chosen.adapter)


class Query:
    """Questions to one loaded model."""

    def __init__(
        self, config: QueryConfig, loaded: LoadedModel, grammar: JsonGrammar | None, *, adapter: ChosenAdapter | None
    ) -> None:
        self.config = config
        self._loaded = loaded
        self._grammar = grammar
        self._adapter = adapter.label if adapter else None
        self._template_config = adapter.template_config if adapter else {}
        self._cache = loaded.new_cache()
        self._is_stopped = False

    def stop(self) -> None:
        """Have the answer that is being made end."""
        self._is_stopped = True

    def ask(self, question: str) -> Iterator[Event]:
        """Answer a question. What cannot be done is an event too, and so is JSON that was cut."""
        self._is_stopped = False
        try:
            yield from self._answer(question)
        except MlxopsError as error:
            yield Problem(message=error.message, hint=error.hint, exit_code=error.exit_code)

    def _answer(self, question: str) -> Iterator[Event]:
        config, loaded = self.config, self._loaded
        system = [{"role": "system", "content": config.system}] if config.system else []
        prompt = speaking.prompt_of(
            loaded, [*system, {"role": "user", "content": question}], config.max_tokens, self._template_config
        )
        speaking.check_room(loaded, prompt)
        grammar = self._grammar
        for event in speaking.speak(
            loaded,
            prompt,
            question=question,
            max_tokens=config.max_tokens,
            sampling=speaking.sampling_of(config),
            cache=self._cache,
            processors=[grammar.processor(len(prompt.tokens))] if grammar else (),
            should_stop=lambda: self._is_stopped,
            adapter=self._adapter,
            may_think=grammar is None,
        ):
            if grammar is None:
                yield event
            elif isinstance(event, Answered):
                if event.finish_reason != "stop":
                    raise Failed(
                        f"the JSON was not complete after {event.generated_tokens:,} tokens",
                        hint="`--max-tokens` allows more",
                    )
                yield Piece(text=event.answer)
                yield event


def _read_schema(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no file {str(file)!r}", hint="`--schema` takes a JSON schema") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadRequest(f"{str(file)!r} is no JSON schema: {error}") from error
