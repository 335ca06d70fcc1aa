"""The newer stack of Debian sid: a software device with cooperative matrices, today's validation layer and shaderc.

The tests are the ordinary ones; they run there in a process of their own, where none may be skipped.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sid_root import SidRoot

HERE = Path("tests/backends/vulkan")


def passed(sid: SidRoot, scratch: Path, *selected: str) -> int:
    """How many tests passed there; a failed or skipped one fails this one, with what pytest said of it."""
    done = sid.python("-m", "pytest", "-q", "-p", "no:cacheprovider", *selected, scratch=scratch, timeout=500)
    said = done.stdout[-6000:] + done.stderr[-2000:]
    assert done.returncode == 0, said
    summary = done.stdout.strip().splitlines()[-1]
    assert "skipped" not in summary, said
    found = re.search(r"(\d+) passed", summary)
    assert found is not None, said
    return int(found[1])


@pytest.mark.long
def test_cooperative_matrices(sid: SidRoot, tmp_path: Path) -> None:
    """Every test of them, less those of types that this device's matrices do not have."""
    assert passed(sid, tmp_path, str(HERE / "test_matrices.py"), "-k", "not bf16 and not nvidia") >= 12


@pytest.mark.full
def test_kernels_and_schedules(sid: SidRoot, tmp_path: Path) -> None:
    assert passed(sid, tmp_path, *(str(HERE / name) for name in ("test_kernels.py", "test_schedules.py", "test_recording.py"))) > 80
