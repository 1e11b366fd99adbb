from mlxops import hints


def test_a_line_breaks_at_words_and_a_command_in_it_stays_whole():
    said = "hint: another name starts a new run, `inv lora --name other` does, and (`inv runs`) lists them"

    assert hints.folded(said, 40).split("\n") == [
        "hint: another name starts a new run,",
        "`inv lora --name other` does, and",
        "(`inv runs`) lists them",
    ]


def test_what_fits_and_commands_on_lines_of_their_own_stay_as_they_are():
    said = "no run\n  inv lora --model models/a-model --data data --iters 1000 --learning-rate 1e-4\nx" + "y" * 90

    assert hints.folded(said, 40) == said


def test_a_line_that_is_indented_goes_on_below_itself():
    assert hints.folded("  one two three", 9) == "  one two\n  three"


def test_a_backtick_alone_is_a_letter():
    assert hints.folded("it's ` here and there", 12) == "it's ` here\nand there"
