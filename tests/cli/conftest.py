"""Every test of the command line has the same cache, in a temporary folder, and no colours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.cli.world import World, make_world


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: str) -> Command:
    monkeypatch.setenv("TRIDSL_CACHE", cache)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    return Command(capsys)


@pytest.fixture
def world(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str) -> World:
    return make_world(command, monkeypatch, tmp_path, cache)
