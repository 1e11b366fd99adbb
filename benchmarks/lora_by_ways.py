"""Runs `mlx-toolkit lora` with other ways of computing a step first, as an earlier version would choose them.

usage: lora_by_ways.py [PART=WAY …] -- <arguments of lora>
"""

from __future__ import annotations

import sys

from mlxops.training import ways


def main() -> None:
    """Reorder the ways, then be the program."""
    place = sys.argv.index("--")
    for each in sys.argv[1:place]:
        part, _, way = each.partition("=")
        there = ways.WAYS[part]
        ways.WAYS[part] = {way: there[way], **there}
    sys.argv = ["mlx-toolkit", "lora", *sys.argv[place + 1 :]]
    from mlxops.__main__ import main as program

    program()


if __name__ == "__main__":
    main()
