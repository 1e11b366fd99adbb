"""The arguments of a house task as Invoke's parser sees them: typed by their option, and clear about what is wrong.

Invoke guesses a type from a default and lets `int("abc")` end in a traceback; here the option decides, and a bad value
ends the parse with one sentence and exit code 2.
"""

from __future__ import annotations

import ast
import copy
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from invoke.exceptions import Exit
from invoke.parser import Argument, ParserContext
from invoke.parser.parser import ParseMachine

from mlxops.config import LoraConfig
from mlxops.config.other_names import is_known, meant, option_for
from mlxops.errors import BadRequest
from mlxops.hints import for_terminal
from mlxops.likeness import is_one_slip, nearest
from mlxops.options import Option, options_of
from mlxops.tasks import failures
from mlxops.tasks.planned import OTHER_NAMES, PLANNED

# a word with one dash may be a value: `--sort -created_at`
_LIKE_A_FLAG = re.compile(r"--[^\W\d_][\w-]*|-[^\W\d_]")


class OptionArgument(Argument):
    """An option of a house task. Its value is None until it is given, so that weaker layers can fill it."""

    def __init__(
        self,
        option: Option,
        flags: Mapping[str, bool] = MappingProxyType({}),
        task_name: Callable[[], str | None] = str,
    ) -> None:
        # To Invoke all that take a value are lists: only those may stand several times on a command line.
        super().__init__(
            names=(option.name.replace("_", "-"), *option.aliases),
            kind=bool if option.kind is bool else list,
            default=True if option.default is True else None,
            help=option.full_help,
            positional=option.positional,
            attr_name=option.name if "_" in option.name else None,
        )
        self.option = option
        self.flags = flags  # of the task, and whether each takes a value
        self.task_name = task_name
        self.raw_value = self._value = None

    def __deepcopy__(self, memo: dict[int, Any]) -> OptionArgument:
        # The parser copies every argument of every task a few times; only the value differs between copies.
        return copy.copy(self)

    @property
    def value(self) -> Any:
        """What was given, or None."""
        return self._value

    @value.setter
    def value(self, text: Any) -> None:
        self.set_value(text)

    @property
    def got_value(self) -> bool:
        """Whether it was given."""
        return self._value is not None

    def set_value(self, value: Any, cast: bool = True) -> None:
        """Take a value from the command line; of several the last counts, save for lists, which grow."""
        self.raw_value = value
        if self.option.kind is bool:
            self._value = value
            return
        try:
            parsed = self._parse(value)
        except BadRequest as error:
            raise failures.exit_for(error, self.task_name()) from None
        self._value = [*(self._value or []), *parsed] if self.option.kind is list else parsed

    def _parse(self, text: str) -> Any:
        if _LIKE_A_FLAG.fullmatch(text):
            if self.option.positional:
                hint = _meant(text, self.flags) or f"`inv {self.task_name()} --help` shows its options"
                raise BadRequest(f"{self.task_name()} has no option {text}", hint=hint)
            raise BadRequest(
                f"{self.label} takes {self.option.takes}, not the option {text!r}", hint=_meant(text, self.flags)
            )
        return self.option.parse(text)

    @property
    def label(self) -> str:
        """The option as a person types it."""
        return self.option.name.upper() if self.option.positional else self.option.flag


class HelpArgument(Argument):
    """`--help` behind a task's name. It prints the page and ends the parse, so that nothing is run.

    Invoke's own would be swallowed as the value of a positional that is missing, and the task would run.
    """

    def __init__(self, print_page: Callable[[], None]) -> None:
        super().__init__(names=("help", "h"), kind=bool, default=False, help="show this page and exit")
        self.print_page = print_page

    def __deepcopy__(self, memo: dict[int, Any]) -> HelpArgument:
        return copy.copy(self)

    @property
    def value(self) -> Any:
        """A thing unlike any other: Invoke drops a call equal to an earlier one, but what is typed twice is meant."""
        return object()

    @value.setter
    def value(self, given: Any) -> None:
        try:
            self.print_page()
            sys.stdout.flush()
        except BrokenPipeError as error:
            if not failures.reader_has_gone(error):
                raise
        raise Exit(code=0)


class TaskContext(ParserContext):
    """A task as Invoke's parser sees it. Its arguments are made when one is asked for: one task of sixty is typed.

    Invoke makes, copies and prints those of all tasks, several times, which took most of the time of a small command.
    """

    def __init__(self, name: str, aliases: Iterable[str], make: Callable[[], Iterable[Argument]]) -> None:
        # the rest of a context is made by __getattr__
        self.name = name
        self.aliases = aliases
        self._make = make

    def __getattr__(self, name: str) -> Any:
        if name not in ("args", "flags", "inverse_flags", "positional_args"):
            raise AttributeError(name)
        super().__init__(self.name, self.aliases, self._make())
        return getattr(self, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskContext:
        return TaskContext(self.name or "", self.aliases, self._make)

    def __repr__(self) -> str:
        return f"<TaskContext {self.name}>"


# Invoke's errors ----------------------------------------------------------------------------------------------------
#
# The one place where Invoke is changed and not extended. It makes the parser's machine itself, so a better sentence
# for an unknown word or a missing value can only be said where the machine reports it. What is no house task's
# business is reported as before, with the nearest name added.

_report = ParseMachine.error


def _explain(machine: Any, message: str) -> None:
    argument = machine.flag if isinstance(machine.flag, OptionArgument) else None
    if message.startswith("Flag ") and argument:
        message = f"{argument.label} takes {argument.option.takes}, and none is given"
    elif message.startswith("No idea what "):
        word = ast.literal_eval(message.removeprefix("No idea what ").removesuffix(" is!"))
        message = _explain_unknown(machine, word)
    elif "did not receive required positional" in message:
        missing = machine.context.missing_positional_args
        if all(isinstance(each, OptionArgument) and not each.option.required for each in missing):
            return
        message = _explain_missing(machine.context.name, missing)
    if "--complete" in sys.argv[1:2]:
        _report(machine, message)  # Invoke completes with what it has understood by then
    raise Exit(for_terminal(message), code=2)  # of its own error it would make 1


def _explain_unknown(machine: Any, word: str) -> str:
    context, argument = machine.context, machine.flag
    name = getattr(context, "name", None)
    if word.startswith("-"):
        # Invoke's own are no answer: `--lr` is not `--dry`
        flags: dict[str, bool] = {}
        if name:
            of_task = [*context.flags, *context.flags.aliases]
            flags = {flag: context.flags[flag].takes_value for flag in of_task}
            flags |= dict.fromkeys(context.inverse_flags, False)
        sentence = f"{name or 'the program'} has no option {word}"
        hint = (
            (_kept(word) if name == "train.resume" else None)
            or _meant(word, flags)
            or (f"`inv {name} --help` shows its options" if name else "options stand after the name of their task")
        )
    else:
        names = [*machine.contexts, *machine.contexts.aliases]
        sentence = f"there is no task {word!r}"
        if isinstance(argument, OptionArgument):
            taken = "no value" if argument.option.kind is bool else "one value"
            sentence = f"{argument.label} takes {taken}, and {sentence} after it"
        if word in PLANNED:
            return failures.in_words(BadRequest(f"{word} is planned and not there yet", hint=PLANNED[word]))
        ends = [each for each in names if each.rpartition(".")[2] == word]
        inside = [each for each in names if each.startswith(f"{word}.")]
        near = " or ".join(map(repr, ends)) or (repr(found) if (found := nearest(word, names)) else None)
        hint = f"did you mean {near}?" if near else "`inv --list` shows the tasks there are"
        # a run may be called like a task
        if name and not ends and (run := _as_run(context, word)):
            hint = run
        elif name and not near and (several := _as_list(context, argument, word) or _as_one(context, word)):
            hint = several
        elif inside:
            tasks = ", ".join(sorted(each.rpartition(".")[2] for each in inside))
            hint = f"{word} is a group of tasks: {tasks}; `inv {min(inside)}` is one"
        elif word in OTHER_NAMES and not ends:
            hint = f"`inv {OTHER_NAMES[word]}` does that"
    return failures.in_words(BadRequest(sentence, hint=hint))


_OF_ONE = {"runs": "run.show", "models": "model.info"}
"""The task about one of what another lists."""


def _as_list(context: Any, argument: Any, word: str) -> str | None:
    """How several values are typed, where a bare word follows one value of what takes a list."""
    given = [each for each in context.args.values() if isinstance(each, OptionArgument) and each.got_value]
    before = [argument] if argument in given else [each for each in given if each.option.positional]
    if not before or not (before[0].option.kind is list or "with commas" in before[0].option.help):
        return None
    there = before[0].value if isinstance(before[0].value, list) else [before[0].value]
    flag = "" if before[0].option.positional else f"{before[0].option.flag} "
    values = shlex.quote(",".join([*map(str, there), word]))
    return f"several are one list, with commas: `inv {context.name} {flag}{values}`"


def _as_one(context: Any, word: str) -> str | None:
    """What to type where a bare word follows the one that a task takes, or a task that takes none."""
    if not any(each.positional for each in context.args.values()):
        shows = _OF_ONE.get(context.name)
        return (
            f"`inv {shows} {shlex.quote(word)}` is about one"
            if shows
            else f"{context.name} takes options alone: `inv {context.name} --help` shows them"
        )
    given = [each for each in context.args.values() if isinstance(each, OptionArgument) and each.got_value]
    if not any(each.option.positional for each in given):
        return None
    return f"{context.name} takes one: `inv {context.name} {shlex.quote(word)}` is a call of its own"


def _as_run(context: Any, word: str) -> str | None:
    """How a run is named, where a bare word follows a task that takes one and no other bare words."""
    run = context.args.get("run")
    takes_words = any(each.positional for each in context.args.values())
    if not isinstance(run, OptionArgument) or takes_words or run.got_value:
        return None
    return f"`inv {context.name} --run {shlex.quote(word)}` names a run"


def _meant(word: str, flags: Mapping[str, bool]) -> str | None:
    """The hint for a word that is no option of a task: by the names of other programs, else by like letters.

    `flags` are the task's own, and whether each takes a value. Where none is typed, an option that needs one is meant
    only if a single letter is wrong: `--plain` is not `--last N`.
    """
    if hint := meant(word, flags):
        return hint
    if is_known(word):
        return None  # a name of another program's for what this task has not is no slip of the fingers
    alone = _stands_alone(word, sys.argv)
    near = nearest(word, [flag for flag, needs in flags.items() if not (needs and alone) or is_one_slip(word, flag)])
    return f"did you mean `{near}`?" if near else None


def _stands_alone(word: str, argv: Sequence[str]) -> bool:
    """Whether an option has no value wherever it was typed.

    >>> _stands_alone("--a", ["inv", "x", "--a", "--b"]), _stands_alone("--a", ["inv", "x", "--a", "-1"])
    (True, False)
    """
    if any(each.startswith(f"{word}=") for each in argv):
        return False
    after = [following for each, following in pairwise(argv) if each == word]
    return word in argv and all(map(_LIKE_A_FLAG.match, after))


def _kept(word: str) -> str | None:
    """What to type for another value of a setting that a resumed run keeps."""
    flags = [option.flag for option in options_of(LoraConfig)]
    flag = word.partition("=")[0] if word.partition("=")[0] in flags else option_for(word)
    if flag not in flags:
        return None
    return f"a run keeps its settings; `inv lora --branch --from RUN {flag} …` starts another run from its weights"


def _explain_missing(task: str, missing: Iterable[Argument]) -> str:
    names = " and ".join(str(each.name).upper() for each in missing)
    return failures.in_words(BadRequest(f"{task} needs {names}", hint=f"`inv {task} --help` explains it"))


ParseMachine.error = _explain  # type: ignore[assignment, method-assign]
