"""Commands and Python calls listen to the same variables, and only one module asks for them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tridsl import environment
from tridsl.cli.settings import from_environment

ROOT = Path(__file__).parents[1]
CALL = """
import numpy as np
import tridsl
tridsl.compile("op f(x: f32[N]) -> y: f32[N] { y[i] = x[i] + 1 }").f(np.ones(3, np.float32), device="cpu")
from tridsl.autotune.serving import Serving
print(Serving().store.folder)
"""


def test_python_calls_keep_their_files_where_commands_do(tmp_path: Path) -> None:
    own = {"TRIDSL_CACHE": str(tmp_path / "cache"), "TRIDSL_PERSONALITY": str(tmp_path / "evidence"), "HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", CALL], env=own, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == own["TRIDSL_PERSONALITY"]
    assert list((tmp_path / "cache" / "binaries").rglob("*")) and list((tmp_path / "cache" / "host").iterdir())
    assert not (tmp_path / "home").exists()


def test_what_is_not_set_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert environment.cache_folder({"TRIDSL_CACHE": ""}) == tmp_path / "cache" / "tridsl"
    assert environment.personality_folder({}) == tmp_path / "data" / "tridsl" / "personality"
    assert environment.peano_folder({}) is None and environment.timeout_text({}) == ""


def test_commands_read_the_same() -> None:
    said = {"TRIDSL_CACHE": "~/c", "TRIDSL_PERSONALITY": "/p", "PEANO_INSTALL_DIR": "/o"}
    found = from_environment(said)
    assert (found.cache, found.personality) == (environment.cache_folder(said), environment.personality_folder(said))
    assert found.cache == Path("~/c").expanduser() and found.peano == environment.peano_folder(said) == Path("/o")


def test_nobody_else_reads_the_environment() -> None:
    """But for commands' own variables, and what a child process is given."""
    readers = [
        str(path.relative_to(ROOT))
        for folder in ("tridsl", "backends", "autotune", "grammar", "stdlib")
        for path in (ROOT / folder).rglob("*.py")
        if path.resolve() == path and "cli" not in path.parts and re.search(r"os\.(environ|getenv)\b", path.read_text())
    ]
    assert sorted(readers) == ["autotune/zygote.py", "tridsl/environment.py"]
