"""The user's folders are where everybody else finds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from tridsl import places

FOLDERS = [("XDG_CACHE_HOME", places.user_cache, platformdirs.user_cache_path), ("XDG_DATA_HOME", places.user_data, platformdirs.user_data_path)]


@pytest.mark.parametrize(("variable", "ours", "theirs"), FOLDERS)
@pytest.mark.parametrize("said", [None, "", "  ", "/somewhere/else", "/trailing/"])
def test_as_platformdirs_has_them(
    monkeypatch: pytest.MonkeyPatch, variable: str, ours: Callable[[], Path], theirs: Callable[[str], Path], said: str | None
) -> None:
    if said is None:
        monkeypatch.delenv(variable, raising=False)
    else:
        monkeypatch.setenv(variable, said)
    assert ours() == theirs("tridsl")


@pytest.mark.parametrize(("variable", "ours", "theirs"), FOLDERS)
def test_relative_ones_are_ignored(
    monkeypatch: pytest.MonkeyPatch, variable: str, ours: Callable[[], Path], theirs: Callable[[str], Path]
) -> None:
    monkeypatch.setenv(variable, "here")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert str(ours()).startswith("/home/somebody/.")
