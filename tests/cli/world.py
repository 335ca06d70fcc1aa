"""A small op in a file, and evidence of it that a command reads: trials as `tests.personality.makers` draws them, of real schedules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.command import Command, Outcome
from tests.personality.makers import Reports, campaign, failed
from tridsl.autotune.request import Request
from tridsl.autotune.space import space_of
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, subjects
from tridsl.cli.targets import services_for
from tridsl.personality.candidate import Candidate, candidate
from tridsl.personality.evidence import Key, Trial
from tridsl.personality.evidence import Outcome as Became
from tridsl.personality.fingerprint import Fingerprint
from tridsl.personality.keys import here
from tridsl.personality.store import Store

TEXT = """op scale(x: f32[M, N]) -> y: f32[M, N] {
  y[i, j] = x[i, j] * 2.0
}
schedule scale for cpu {
  param rows in {1, 2, 4, 8} = 2
  param width in pow2(8, 64)
  require rows * width <= 128
  y.tile(i=rows, j=width).vector(j.i)
}
bench scale { M = 64, N = 64 }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """`personality`: the folder that commands read. Every size below 32768 points, so that a call uses one thread."""

    command: Command
    monkeypatch: pytest.MonkeyPatch
    personality: Path
    operation: str
    cache: Path

    def __call__(self, *arguments: object) -> Outcome:
        self.monkeypatch.setenv("TRIDSL_PERSONALITY", str(self.personality))
        return self.command(*arguments)

    def other(self, name: str) -> World:
        """Another machine's store."""
        return World(
            command=self.command, monkeypatch=self.monkeypatch, personality=self.personality.with_name(name), operation=self.operation,
            cache=self.cache,
        )  # fmt: skip

    @property
    def store(self) -> Store:
        return Store(self.personality, report=Reports())

    def request(self, operation: str = "", *, shape: tuple[str, ...] = (), values: tuple[str, ...] = (), threads: int | None = None) -> Request:
        settings = Settings(cache=self.cache)
        question = Question(operation=operation or self.operation, shape=shape, values=values, threads=threads)
        (found,) = subjects(question, services_for(settings), settings)
        return found.request

    @property
    def key(self) -> Key:
        return self.request().key

    def at(self, rows: int, width: int = 8) -> Candidate:
        """The point of the op's space with these values."""
        request = self.request()
        space = space_of(request.op, request.subject.device.spec, request.sizes, request.blocks)
        point = (("rows", rows), ("width", width))
        return candidate(space.schedule(point), dict(point))

    def trials(self, times: Mapping[Candidate, float], request: Request | None = None, *, at: Fingerprint | None = None, origin: str = "", **more: Any) -> list[Trial]:
        asked = request or self.request()
        key = asked.key if at is None else msgspec.structs.replace(asked.key, fingerprint=at.hashes)
        sizes = tuple(sorted(asked.sizes.items()))
        return [msgspec.structs.replace(t, sizes=sizes, origin=origin) for t in campaign(dict(times), where=key, **more)]

    def failed(self, who: Candidate, outcome: Became, reason: str) -> Trial:
        return failed(who, outcome, reason, where=self.key)

    def place(self, threads: int = 1, **software: str) -> Fingerprint:
        """This machine, or this machine with other software."""
        found = here(self.request().device, threads).lasting
        changed = {**dict(found.software), **software}
        return msgspec.structs.replace(found, software=tuple(sorted(changed.items())))

    def keep(self, trials: Iterable[Trial], *places: Fingerprint) -> None:
        store = self.store
        store.add(*trials)
        for place in (self.place(), *places):
            store.know(place)

    def damage(self, line: bytes = b'{"format":1,"kind":"trial","id":"00","record":{}}\n') -> Path:
        """A line in the op's journal that is none."""
        key = self.key
        path = self.personality / "evidence" / key.kernel / f"{key.subject}.jsonl"
        with open(path, "ab") as stream:
            stream.write(line)
        return path


def make_world(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: str) -> World:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    file = tmp_path / "kernels.tri"
    file.write_text(TEXT)
    return World(command=command, monkeypatch=monkeypatch, personality=tmp_path / "personality", operation=f"{file}:scale", cache=Path(cache))
