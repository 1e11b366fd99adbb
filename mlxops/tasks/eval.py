"""Talking to a model, and testing it."""

from __future__ import annotations

from invoke import Context

from mlxops.config import ChatConfig
from mlxops.tasks import house
from mlxops.tasks.house import task


@task
def chat(c: Context, config: ChatConfig) -> None:
    """Talk to a model, with the adapter of a run or without one.

    /help lists the commands. Ctrl-C stops an answer, Ctrl-D ends the chat. -p answers one message; a pipe is read line
    by line as if typed.
    """
    from mlxops.jobs.eval import chat as job
    from mlxops.jobs.eval import chat_input
    from mlxops.ui.eval import chat as drawing
    from mlxops.ui.terminal import console

    out, err = console.make(), console.make(stderr=True)
    message = chat_input.message_of(config.prompt)
    talker = job.open_chat(house.invocation(c), config)
    if message is None:
        return drawing.talk(talker, out, err)
    return chat_input.check(drawing.draw(talker.say(message), talker, out, err, tells_problems=False))


COLLECTION = "eval"
TASKS = (chat,)
SHORT_NAMES = {"chat": chat}
