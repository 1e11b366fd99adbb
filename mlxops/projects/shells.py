"""bash, zsh and fish: where their profiles are, the line for them, and the scripts with PATH and completion.

Standard library only, as `environment.py`. The scripts run under bash 3.2, too.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from mlxops import system
from mlxops.errors import BadRequest

SHELLS = ("bash", "zsh", "fish")

# Completion asks the program itself, so that a project's own tasks are among the words.
_BASH = """\
# mlx-toolkit for bash: its folder in PATH, completion of tasks and options
case ":$PATH:" in *:{folder}:*) ;; *) PATH={folder}:$PATH; export PATH ;; esac
_mlx_toolkit() {{
    # bash ends words at @, = and : too: what stands together in the line is one word again
    local word=${{COMP_WORDS[COMP_CWORD]}} rest=${{COMP_LINE:0:COMP_POINT}} after number
    local -a typed=()
    for ((number = 0; number <= COMP_CWORD; number++)); do
        after=${{rest#"${{rest%%[![:space:]]*}}"}}
        if [ "$after" != "$rest" ] || [ "$number" -eq 0 ]; then
            typed[${{#typed[@]}}]=${{COMP_WORDS[number]}}
        else
            typed[${{#typed[@]}} - 1]+=${{COMP_WORDS[number]}}
        fi
        rest=${{after#"${{COMP_WORDS[number]}}"}}
    done
    local whole=${{typed[${{#typed[@]}} - 1]}}
    local before=${{whole%"$word"}}
    case "$word" in = | :) before=$whole ;; esac
    before=${{before%@}}  # of which it replaces an @ alone
    local IFS=$' \\n'
    COMPREPLY=($(compgen -W "$("${{COMP_WORDS[0]}}" --complete -- "${{typed[@]}}" 2>/dev/null)" -- "$whole"))
    COMPREPLY=("${{COMPREPLY[@]#"$before"}}")
}}
complete -o default -F _mlx_toolkit {names}
"""
_ZSH = """\
# mlx-toolkit for zsh: its folder in PATH, completion of tasks and options
(( ${{path[(Ie){folder}]}} )) || path=({folder} $path)
export PATH
if [[ -o interactive ]]; then
    (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit -i -D }}
    _mlx_toolkit() {{
        local -a found
        found=(${{(f)"$("${{words[1]}}" --complete -- "${{(@)words[1,CURRENT]}}" 2>/dev/null)"}})
        (( $#found )) && compadd -a found || _files
    }}
    compdef _mlx_toolkit {names}
fi
"""
_FISH = """\
# mlx-toolkit for fish: its folder in PATH, completion of tasks and options
contains -- {folder} $PATH; or set -gx PATH {folder} $PATH
function __mlx_toolkit
    set -l words (commandline -opc) (commandline -ct)
    set -l typed '^'(string escape --style=regex -- (commandline -ct))
    set -l found ($words[1] --complete -- $words 2>/dev/null | string match --regex --entire -- $typed)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
for name in {names}
    complete -c $name -f -a '(__mlx_toolkit)'
end
"""


def scripts(folder: Path, programs: Sequence[str]) -> dict[str, str]:
    """A script by the name of its shell: a folder of programs in PATH, and their completion."""
    names = " ".join(name for name in programs if not name.endswith("-update"))
    quoted = shlex.quote(str(folder))
    return {
        "bash": _BASH.format(folder=quoted, names=names),
        "zsh": _ZSH.format(folder=quoted, names=names),
        "fish": _FISH.format(folder=_for_fish(str(folder)), names=names),
    }


def line(shell: str, folder: Path) -> str:
    """The line of a profile that reads the script in a folder, where it is still there."""
    if shell == "fish":
        script = _for_fish(str(folder / shell))
        return f"test -r {script}; and source {script}"
    script = shlex.quote(str(folder / shell))
    return f"[ -r {script} ] && . {script}"


def profile(shell: str, home: Path) -> Path:
    """The file that an interactive shell of a person reads; the terminals of a Mac start login shells."""
    if shell == "zsh":
        return Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    if shell == "fish":
        return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "config.fish"
    if not system.ON_MACOS:
        return home / ".bashrc"
    # a login shell reads the first of these alone: a new one would hide the others
    login = [home / name for name in (".bash_profile", ".bash_login", ".profile")]
    return next((each for each in login if each.exists()), login[0])


def of_person_or_none() -> str | None:
    """The person's shell, None for another than these three."""
    name = Path(os.environ.get("SHELL") or "").name
    return name if name in SHELLS else None


def of_person() -> str:
    """The person's shell; raises `BadRequest` for another than these three."""
    name = of_person_or_none()
    if name is None:
        known, given = f"{', '.join(SHELLS[:-1])} and {SHELLS[-1]}", os.environ.get("SHELL", "")
        raise BadRequest(f"there are scripts for {known}, and SHELL is {given!r}", hint="SHELL=bash before the command")
    return name


def has_program(name: str) -> bool:
    """Whether a program is in PATH, outside of an activated environment."""
    activated = os.environ.get("VIRTUAL_ENV")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    outside = [each for each in folders if not activated or not each.startswith(activated)]
    return shutil.which(name, path=os.pathsep.join(outside)) is not None


def _for_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
