"""Run the command line: in this process (fast), or as the program that users start."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tridsl.cli import main


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class Command:
    """`command("check", path)` in this process, with a cache of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Outcome:
        status = main([str(a) for a in arguments])
        printed = self.capsys.readouterr()
        return Outcome(status=status, out=printed.out, err=printed.err)


def program(*arguments: object, cwd: Path | None = None, timeout: float = 300) -> Outcome:
    """The command as a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tridsl", *map(str, arguments)], capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False
    )
    return Outcome(status=done.returncode, out=done.stdout, err=done.stderr)
