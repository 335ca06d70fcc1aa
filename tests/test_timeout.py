"""What says how long a device may take."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import pytest

import tridsl
from tridsl.diagnostics import TriError
from tridsl.timeout import DEFAULT_SECONDS, VARIABLE, set_timeout, timeout_seconds


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    set_timeout(None)


def test_what_was_said_last_comes_first() -> None:
    assert timeout_seconds({}) == DEFAULT_SECONDS == 10
    assert timeout_seconds({VARIABLE: " 2.5 "}) == 2.5 and timeout_seconds({VARIABLE: ""}) == 10
    tridsl.set_timeout(60)
    assert timeout_seconds({VARIABLE: "2.5"}) == 60
    tridsl.set_timeout(math.inf)
    assert timeout_seconds({}) == math.inf
    tridsl.set_timeout(None)
    assert timeout_seconds({VARIABLE: "inf"}) == math.inf


@pytest.mark.parametrize("text", ["0", "-1", "nan", "soon", "10s", "1e", "0x10"])
def test_an_environment_without_sense(text: str) -> None:
    with pytest.raises(TriError, match=f"{VARIABLE}={text} is no number of seconds above 0") as caught:
        timeout_seconds({VARIABLE: text})
    assert caught.value.code == "E0855" and "TRIDSL_TIMEOUT=60" in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, "10", True, [1]])
def test_numbers_without_sense_change_nothing(seconds: object) -> None:
    set_timeout(7)
    with pytest.raises(TriError, match="is no number of seconds above 0") as caught:
        set_timeout(seconds)  # type: ignore[arg-type]  # the wrong type is the test
    assert caught.value.code == "E0855" and timeout_seconds({}) == 7


def test_a_command_says_so_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tridsl", "explain", "E0855"], env={VARIABLE: "never"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "E0855" in done.stderr and "TRIDSL_TIMEOUT=never" in done.stderr
