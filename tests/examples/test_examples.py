"""Every example runs, on its own, in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_example(path: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_the_readmes_program_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "error[E" in done.stdout and "kernel levels" in done.stdout


def test_the_readmes_commands_exist() -> None:
    """Every `tridsl` command line of the README names a command, and options that its help has."""
    lines = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("tridsl ")]
    assert len(lines) >= 8
    for line in lines:
        words = line.split("#")[0].split(";")[0].split()
        shown = subprocess.run([sys.executable, "-m", "tridsl", words[1], "--help"], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, line
        for option in re.findall(r"--[a-z-]+", line):
            assert option in shown.stdout, f"{option} in: {line}"
