import io

from rich.text import Text

from mlxops.ui.terminal import console as consoles


class GoneTerminal(io.StringIO):
    def write(self, text):
        raise OSError(5, "Input/output error")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)


def test_a_stream_that_is_no_terminal_gets_no_control_codes():
    stream = io.StringIO()
    consoles.make(file=stream).print(Text("plain", style="bold red"))
    assert stream.getvalue() == "plain\n"


def test_a_pipe_stays_a_pipe_whatever_the_environment_asks_for(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    consoles.make(file=stream).print(Text("plain", style="bold red"))
    assert stream.getvalue() == "plain\n"


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    consoles.make(file=stream).print(Text("plain", style="red"))
    assert stream.getvalue() == "plain\n"


def test_a_dumb_terminal_is_written_to_like_a_pipe(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert not consoles.make(file=Terminal()).is_interactive


def test_brackets_in_a_name_are_no_markup():
    stream = io.StringIO()
    consoles.make(file=stream).print("run [bold]x[/bold] :smile:")
    assert stream.getvalue() == "run [bold]x[/bold] :smile:\n"


def test_a_stream_in_ascii_gets_ascii_of_the_same_width():
    stream = ascii_stream()
    console = consoles.make(file=stream)
    console.print("1.2 ± 0.1 … grün")
    assert stream.buffer.getvalue() == b"1.2 ~ 0.1 ~ gr?n\n"
    assert not consoles.is_unicode(console)


def test_progress_on_a_terminal_that_is_gone_does_not_stop_the_work():
    consoles.make(stderr=True, file=GoneTerminal()).print("iteration 10/1000")


def test_a_styled_sentence_breaks_at_words_and_keeps_its_styles():
    stream = Terminal()
    said = Text("the base model ").append("answers 12 rows better", "bold").append(", `inv run.show heron` has them")

    consoles.make(file=stream, width=24).print(said, soft_wrap=True)

    drawn = Text.from_ansi(stream.getvalue())
    assert drawn.plain.splitlines() == ["the base model answers", "12 rows better,", "`inv run.show heron` has", "them"]
    bold = [drawn.plain[each.start : each.end] for each in drawn.spans]
    assert " ".join(each.strip() for each in bold) == "answers 12 rows better"


def test_what_is_printed_with_an_end_is_no_sentence():
    stream = Terminal()

    consoles.make(file=stream, width=8).print(Text("a  row  of  data"), soft_wrap=True, end="\n")

    assert stream.getvalue() == "a  row  of  data\n"
