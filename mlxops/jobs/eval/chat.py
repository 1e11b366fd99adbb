"""A chat with a loaded model: what is typed goes in as a text, what happens comes out as events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxops import registry
from mlxops.chat import commands
from mlxops.chat.commands import COMMANDS
from mlxops.chat.events import (
    Answered,
    Compared,
    Comparing,
    Ended,
    Event,
    Facts,
    Note,
    Piece,
    Prefill,
    Problem,
)
from mlxops.chat.session import Session, Turn
from mlxops.config import ChatConfig
from mlxops.errors import BadRequest, MlxopsError
from mlxops.jobs.eval import chat_input, loading, memory, speaking
from mlxops.jobs.eval.loading import ChosenAdapter, ChosenModel
from mlxops.likeness import nearest
from mlxops.projects.invocation import Invocation

if TYPE_CHECKING:
    from mlxops.models.generation import LoadedModel
    from mlxops.models.prompt_cache import PromptCache

_CHANGEABLE = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"),
    *("thoughts", "markdown"),
)
_KEPT_CACHES = 2  # the base model's and the adapter's, which /compare takes in turn


def open_chat(invocation: Invocation, config: ChatConfig, tell: Callable[[str], None] = lambda note: None) -> Chat:
    """Load the model that a person names, and tell before what they should know of its memory.

    Raises `BadRequest` and `NotFound` for what is not there or does not fit.
    """
    chosen = loading.choose_as(invocation, config)
    for note in memory.notes(invocation, chosen):
        tell(note)
    return Chat(invocation, config, chosen, loading.load(invocation, chosen, draft_model=config.draft_model))


class Chat:
    """A conversation with one loaded model. `config` has the settings as they are now."""

    def __init__(self, invocation: Invocation, config: ChatConfig, chosen: ChosenModel, loaded: LoadedModel) -> None:
        self.config = config
        self.session = Session(system=config.system)
        self.adapter: ChosenAdapter | None = chosen.adapter
        self._project = invocation.project
        self._invocation = invocation
        self._chosen = chosen
        self._loaded = loaded
        self._caches: dict[str, PromptCache] = {}
        self._answers = 0
        self._last: Answered | None = None
        self._last_adapter: ChosenAdapter | None = None
        self._verdict_id: int | None = None
        self._stopping = threading.Event()
        self._told_limit: int | None = None
        self._generated = 0
        self._seconds = 0.0

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._chosen.folder.name

    @property
    def label(self) -> str:
        """The model and its adapter, in a few words."""
        return f"{self.model} + {self.adapter.label}" if self.adapter else self.model

    def stop(self) -> None:
        """Have the answer that is being made end; from a signal or another thread."""
        self._stopping.set()

    @property
    def history(self) -> Path | None:
        """The file of what was typed before, None where it cannot be kept."""
        return chat_input.history_file(self._project)

    def completions(self, text: str) -> list[tuple[str, str]]:
        """The words that may come at the end of what was typed so far, each with what it is."""
        settings = [(name, chat_input.as_text(getattr(self.config, name))) for name in _CHANGEABLE]
        return chat_input.completions(text, settings, self._project)

    def say(self, message: str) -> Iterator[Event]:
        """Answer a message, whatever it begins with. What cannot be done is an event too."""
        self._stopping.clear()
        try:
            yield from self._say(message)
        except MlxopsError as error:
            yield Problem(message=error.message, hint=error.hint, exit_code=error.exit_code)

    def handle(self, text: str) -> Iterator[Event]:
        """Do what a person typed, a command or a message. What cannot be done is an event too."""
        self._stopping.clear()
        try:
            typed = commands.parse(text)
            if isinstance(typed, str):
                yield from self._say(typed)
            else:
                yield from getattr(self, f"_{typed.name}")(typed.argument)
        except MlxopsError as error:
            yield Problem(message=error.message, hint=error.hint, exit_code=error.exit_code)

    # messages -------------------------------------------------------------------------------------------------------

    def _say(self, question: str) -> Iterator[Event]:
        session, loaded = self.session, self._loaded
        prompt = self._prompt(question)
        before = session.first
        # Room for a whole answer, or for a quarter of the context; then half of it, so that the cache stays right for
        # a while and not every turn is read again.
        context = loaded.context_length or 0
        if prompt.room < min(self.config.max_tokens, context // 4):
            while session.first < len(session.turns) and len(prompt.tokens) > context // 2:
                session.first += 1
                prompt = self._prompt(question)
        speaking.check_room(loaded, prompt)
        if session.first > before:
            left_out = f"{session.first} turns are" if session.first > 1 else "1 turn is"
            yield Note(
                text=f"the conversation no longer fits into the context of {context:,} tokens: "
                f"the oldest {left_out} not told to the model any more"
            )
        for event in self._answer(prompt, question):
            yield event
            if isinstance(event, Answered):
                session.turns.append(Turn(question=question, answer=event.answer, thought=event.thought))
                self._last, self._last_adapter, self._verdict_id = event, self.adapter, None
                yield from self._notes_on(event, prompt)

    @property
    def _template_config(self) -> Mapping[str, Any]:
        return self.adapter.template_config if self.adapter else {}

    def _prompt(self, question: str | None) -> speaking.Prompt:
        return speaking.prompt_of(
            self._loaded, self.session.messages(question), self.config.max_tokens, self._template_config
        )

    def _answer(self, prompt: speaking.Prompt, question: str, *, row: int | None = None) -> Iterator[Piece | Answered]:
        if row is None:
            row, self._answers = self._answers, self._answers + 1
        for event in speaking.speak(
            self._loaded,
            prompt,
            question=question,
            max_tokens=self.config.max_tokens,
            sampling=speaking.sampling_of(self.config),
            row=row,
            cache=self._cache(),
            should_stop=self._stopping.is_set,
            adapter=self.adapter.label if self._loaded.slot.adapter and self.adapter else None,
        ):
            if isinstance(event, Answered):
                self._generated += event.generated_tokens
                self._seconds += event.seconds
            yield event

    def _cache(self) -> PromptCache:
        """The cache of the model with the adapter that it has now."""
        owner = self._loaded.slot.owner
        cache = self._caches.pop(owner, None) or self._loaded.new_cache()
        self._caches[owner] = cache
        while len(self._caches) > _KEPT_CACHES:
            del self._caches[next(iter(self._caches))]
        return cache

    def _notes_on(self, answered: Answered, prompt: speaking.Prompt) -> Iterator[Event]:
        if answered.finish_reason == "cancelled":
            yield Note(text="stopped; what was said is part of the conversation")
        elif answered.finish_reason == "length" and prompt.room <= self.config.max_tokens:
            yield Note(text=f"cut: the context of {self._loaded.context_length:,} tokens is full")
        elif answered.finish_reason == "length" and self._told_limit != self.config.max_tokens:
            self._told_limit = self.config.max_tokens  # once is enough
            yield Note(text=f"cut at {self.config.max_tokens:,} tokens; `/set max_tokens N` allows more")
        elif answered.finish_reason == "stop" and not answered.answer:
            yield Note(text="the model ended its turn without a word")

    # commands -------------------------------------------------------------------------------------------------------

    def _help(self, argument: str) -> Iterator[Event]:
        yield Facts(rows=[(each.usage, each.help) for each in COMMANDS])

    def _reset(self, argument: str) -> Iterator[Event]:
        self.session.reset()
        self._last = None
        yield Note(text="the conversation is empty")

    def _system(self, argument: str) -> Iterator[Event]:
        if not argument:
            yield Note(text=f"system prompt: {self.session.system}" if self.session.system else "no system prompt")
            return
        self.session.system = None if argument.lower() == "none" else argument
        yield from self._reset("")

    def _save(self, argument: str) -> Iterator[Event]:
        path = self._project.cwd / _needed(argument, "/save FILE")
        names = [name for name in _CHANGEABLE if name not in ("thoughts", "markdown")]
        about = {
            "model": self.model,
            "adapter": self.adapter.label if self.adapter else None,
            "settings": {name: getattr(self.config, name) for name in names},
        }
        self.session.save(path, about)
        turns = len(self.session.turns)
        yield Note(text=f"{turns} {'turn' if turns == 1 else 'turns'} saved to {argument}")

    def _load(self, argument: str) -> Iterator[Event]:
        self.session.load(self._project.cwd / _needed(argument, "/load FILE"))
        self._last = None
        turns = len(self.session.turns)
        yield Note(text=f"{turns} {'turn' if turns == 1 else 'turns'} loaded from {argument}")

    def _undo(self, argument: str) -> Iterator[Event]:
        turn = self.session.undo()
        self._last = None
        yield Note(text=f"taken back: {_shortened(turn.question)}")

    def _retry(self, argument: str) -> Iterator[Event]:
        turn = self.session.undo()
        if self.config.temperature == 0:
            yield Note(text="the temperature is 0, so the answer is the same; `/set temperature 0.7` varies it")
        yield from self._or_restore(turn, turn.question)

    def _edit(self, argument: str) -> Iterator[Event]:
        if not argument:
            if not self.session.turns:
                raise BadRequest("there is no message to edit")
            yield Prefill(text=f"/edit {self.session.turns[-1].question}")
            return
        yield from self._or_restore(self.session.undo(), argument)

    def _or_restore(self, turn: Turn, question: str) -> Iterator[Event]:
        """Answer a question in place of a turn that was taken back; where that cannot be, the turn stays."""
        try:
            yield from self._say(question)
        except MlxopsError:
            self.session.turns.append(turn)
            raise

    def _stats(self, argument: str) -> Iterator[Event]:
        import mlx.core as mx

        from mlxops import words

        last = self._last
        cached = sum(cache.bytes for cache in self._caches.values())
        context = self._loaded.context_length
        rows = [("model", self.label), ("turns", str(len(self.session.turns)))]
        if last is not None:
            computed = last.prompt_tokens - last.cached_tokens
            speed = f", {last.tokens_per_second:.1f} tokens/s" if last.tokens_per_second else ""
            rows += [
                ("last prompt", f"{last.prompt_tokens:,} tokens, {computed:,} of them computed"),
                ("last answer", f"{last.generated_tokens:,} tokens{speed}, ended by {last.finish_reason}"),
                ("first token", f"after {last.first_token_seconds:.2f} s"),
            ]
        rows += [
            ("all answers", f"{self._generated:,} tokens in {words.duration(self._seconds)}"),
            ("context", "unknown" if context is None else f"{context:,} tokens"),
            ("prompt cache", words.size(cached)),
            ("peak memory", words.size(mx.get_peak_memory())),
        ]
        yield Facts(rows=rows)

    def _set(self, argument: str) -> Iterator[Event]:
        name, _, value = argument.replace("=", " ").partition(" ")
        name = name.strip().lstrip("-").replace("-", "_")
        name = {"temp": "temperature"}.get(name, name)
        if not name:
            yield Facts(rows=[(each, chat_input.as_text(getattr(self.config, each))) for each in _CHANGEABLE])
            return
        if name not in _CHANGEABLE:
            near = nearest(name, _CHANGEABLE)
            raise BadRequest(
                f"there is no setting {name!r}", hint=f"did you mean `{near}`?" if near else "`/set` lists the settings"
            )
        if value.strip():
            self.config = replace(self.config, **{name: chat_input.parse_setting(name, value.strip())})
        yield Facts(rows=[(name, chat_input.as_text(getattr(self.config, name)))])

    def _adapter(self, argument: str) -> Iterator[Event]:
        if not argument:
            yield Note(text=f"adapter: {self.adapter.label}" if self.adapter else "no adapter")
            return
        if argument.lower() == "none":
            self._loaded.slot.take_out()
            self.adapter = None
        else:
            chosen = loading.choose_adapter(self._invocation, argument, self._chosen.layers)
            before = self.adapter
            try:
                self._loaded.slot.put_in(loading.spec_of(chosen.adapter))
            except MlxopsError:
                if before is not None:
                    self._loaded.slot.put_in(loading.spec_of(before.adapter))
                raise
            self.adapter = chosen
        yield Note(text=f"now {self.label}; the conversation continues")

    def _compare(self, argument: str) -> Iterator[Event]:
        adapter, slot = self.adapter, self._loaded.slot
        if adapter is None:
            raise BadRequest("there is no adapter to compare with", hint="/adapter RUN takes one")
        session = self.session
        turn = None if argument else session.undo()
        question = argument if turn is None else turn.question
        try:
            prompt = self._prompt(question)
        finally:
            if turn is not None:
                session.turns.append(turn)
        speaking.check_room(self._loaded, prompt)
        row, self._answers = self._answers, self._answers + 1
        said: list[Answered] = []
        for which, name in (("base", self.model), ("adapter", adapter.label)):
            yield Comparing(which="base" if which == "base" else "adapter", name=name)
            if which == "base":
                slot.take_out()
            try:
                for event in self._answer(prompt, question, row=row):
                    if isinstance(event, Answered):
                        said.append(event)
                    else:
                        yield event
            finally:
                if which == "base":
                    slot.put_in(loading.spec_of(adapter.adapter))
            if self._stopping.is_set():
                yield Note(text="stopped")
                return
        yield Compared(prompt=question, base=said[0], adapter=said[1])

    def _good(self, argument: str) -> Iterator[Event]:
        yield from self._judge("good", argument)

    def _bad(self, argument: str) -> Iterator[Event]:
        yield from self._judge("bad", argument)

    def _judge(self, verdict: str, note: str) -> Iterator[Event]:
        last = self._last
        if last is None:
            raise BadRequest(f"there is no answer to call {verdict}")
        adapter = self._last_adapter
        project = self._project
        with registry.open_registry(project.registry_path) as db:
            self._verdict_id = registry.record_verdict(
                db,
                verdict_id=self._verdict_id,
                verdict="good" if verdict == "good" else "bad",
                run_id=_run_id(db, adapter),
                iteration=adapter.iteration if adapter else None,
                model=project.relative(self._chosen.folder),
                adapter_path=project.relative(adapter.adapter.file) if adapter else None,
                messages=[{"role": each["role"], "content": each["content"]} for each in self.session.messages()],
                prompt=last.prompt,
                answer=last.answer,
                config={name: getattr(self.config, name) for name in _CHANGEABLE[:7]},
                note=note or None,
            )
        yield Note(text=f'recorded as {verdict}; `inv sql "select * from verdict"` shows all')

    def _exit(self, argument: str) -> Iterator[Event]:
        yield Ended()


def _run_id(db: registry.Registry, adapter: ChosenAdapter | None) -> int | None:
    """The run of an adapter, where this registry has it."""
    if adapter is None or adapter.run_id is not None or adapter.adapter.run is None:
        return adapter.run_id if adapter else None
    return registry.id_of(db, adapter.adapter.run)


def _needed(argument: str, usage: str) -> str:
    if not argument:
        raise BadRequest(f"a name is missing: {usage}")
    return argument


def _shortened(text: str) -> str:
    first_line = text.split("\n", 1)[0]
    return first_line if len(first_line) <= 60 and first_line == text else f"{first_line[:60]}…"
