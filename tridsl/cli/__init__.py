"""The command line: `tridsl --help`.

`app` is the whole command line on one page. Each command is a function of a module of its own, from arguments to a `Report`;
`output` prints reports and errors. `settings` is what the environment says.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; `arguments` None: those of the process. Returns the exit status: 0 success, 1 the user's input,
    2 usage, 3 nothing could be measured, 70 our bug, 130 interrupted."""
    from tridsl.cli.app import run  # start-up time: `import tridsl.cli` does not load typer

    return run(arguments)
