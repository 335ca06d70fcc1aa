"""The collector is off while a kernel is made, in whatever thread, and on again afterwards if it was."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tridsl import stdlib
from tridsl.api import compilation
from tridsl.api.engine import Services
from tridsl.api.library import standard_op
from tridsl.api.store import DiskStore
from tridsl.collector import paused
from tridsl.program.realise import Realiser
from tridsl.runtime.artifacts import Artifacts


def test_off_inside_and_on_again_after_an_error() -> None:
    with paused():
        assert not gc.isenabled()
        with pytest.raises(ZeroDivisionError), paused():
            _ = 1 // 0
        assert not gc.isenabled()
    assert gc.isenabled()


def test_who_turned_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_last_thread_lets_it_on() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with paused():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with paused():
        thread.start()
        inside.wait()
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_a_kernel_is_made_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    build = compilation.build_kernel

    def looking(*args: Any) -> Any:
        seen.append(gc.isenabled())
        return build(*args)

    monkeypatch.setattr(compilation, "build_kernel", looking)
    services = Services(realiser=Realiser(store=DiskStore(Artifacts(tmp_path))))
    op = standard_op("saxpy", stdlib.source, services, stdlib.trees)
    x = np.ones(7, np.float32)
    assert np.array_equal(op(2.0, x, x), np.full(7, 3.0, np.float32))
    assert seen == [False]
    assert gc.isenabled()
