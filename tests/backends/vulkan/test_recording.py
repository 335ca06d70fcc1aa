"""Programs on one device: recorded once, replayed with one submit, each launch seeing what those before it wrote."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.backends.vulkan.kernels import elementwise, kernel, lane, load, store, tensor, var
from tests.backends.vulkan.test_driver import build_for, doubled
from tridsl.backend import Device, Held, RecordedLaunch
from tridsl.backends.vulkan import recording as recording_module
from tridsl.backends.vulkan.commands import download, upload
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.settings import VulkanSettings
from tridsl.diagnostics import CheckFailed
from tridsl.dtypes import BOOL, F32
from tridsl.ir.expr import Binary, Const, index
from tridsl.ir.loop import Check, Kernel

COUNT = 1000
BYTES = 4 * COUNT
MEMORY = 4096
"""Bytes of one temporary, aligned."""


def added() -> Kernel:
    return elementwise(var("N"), (F32, F32), F32, lambda x, y: Binary(op="add", a=x, b=y, dtype=F32))


@pytest.fixture(params=[False, True], ids=["mapped", "staged"])
def chosen(request: pytest.FixtureRequest, driver: VulkanDriver) -> Iterator[VulkanDriver]:
    """A driver of its own, with and without memory that the host sees; silent at the end."""
    made = VulkanDriver(settings=VulkanSettings(validation=True, staging=request.param))
    yield made
    gc.collect()
    made.close()
    assert made.messages == ()


def launch(driver: VulkanDriver, device: Device, which: Kernel, *slots: float) -> RecordedLaunch:
    return RecordedLaunch(executable=driver.load(build_for(which, device), device), slots=slots)


def test_a_chain_over_shared_temporaries(chosen: VulkanDriver, device: Device) -> None:
    """a = 2x, b = 2a, a' = b + x in the memory of a, y = 2a' + …: every hazard of one memory that is used twice."""
    arrays = [
        Held(bytes=BYTES, upload=True),
        Held(bytes=BYTES, offset=0),
        Held(bytes=BYTES, offset=MEMORY),
        Held(bytes=BYTES, offset=0),
        Held(bytes=BYTES, download=True),
    ]
    launches = [
        launch(chosen, device, doubled(), 0, 1, COUNT),
        launch(chosen, device, doubled(), 1, 2, COUNT),
        launch(chosen, device, added(), 2, 0, 3, COUNT),
        launch(chosen, device, added(), 3, 2, 4, COUNT),
    ]
    recording = chosen.record(launches, arrays, 2 * MEMORY, device)
    opened = chosen.open(device.name)
    submitted = opened.submitted
    for scale in range(1, 6):
        x, y = scale * np.arange(COUNT, dtype=np.float32), np.zeros(COUNT, np.float32)
        recording([x, y])
        np.testing.assert_array_equal(y, 9 * x)
    assert opened.submitted == submitted + 5
    assert opened.memory.used_bytes == 0 and (opened.staging is None or opened.staging.used_bytes == 0)


def test_commands_are_recorded_once(chosen: VulkanDriver, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [Held(bytes=BYTES, upload=True), Held(bytes=BYTES, offset=0), Held(bytes=BYTES, download=True)]
    launches = [launch(chosen, device, doubled(), 0, 1, COUNT), launch(chosen, device, doubled(), 1, 2, COUNT)]
    recording = chosen.record(launches, arrays, MEMORY, device)
    made = []
    original = type(recording)._record
    monkeypatch.setattr(type(recording), "_record", lambda self, call: (made.append(1), original(self, call)))
    x, y = np.ones(COUNT, np.float32), np.zeros(COUNT, np.float32)
    for _ in range(3):
        recording([x, y])
    assert (y == 4).all() and len(made) == 1
    opened = chosen.open(device.name)
    where = opened.memory.allocate(BYTES)
    upload(opened, memoryview(3 * x).cast("B"), where)
    recording([where, y])  # another place: recorded anew
    assert (y == 12).all() and len(made) == 2
    opened.memory.release(where)


def test_arrays_on_the_device_are_used_in_place(chosen: VulkanDriver, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody waits for transfers that there are none of, or for a host that sees nothing of it."""
    waits: list[tuple[str, str]] = []
    original = recording_module.record_barrier
    monkeypatch.setattr(recording_module, "record_barrier", lambda api, commands, *ends: (waits.append(ends), original(api, commands, *ends)))
    opened = chosen.open(device.name)
    first, last = opened.memory.allocate(BYTES), opened.memory.allocate(BYTES)
    x = np.arange(COUNT, dtype=np.float32)
    upload(opened, memoryview(x).cast("B"), first)
    arrays = [Held(bytes=BYTES, upload=True), Held(bytes=BYTES, offset=0), Held(bytes=BYTES, download=True)]
    launches = [launch(chosen, device, doubled(), 0, 1, COUNT), launch(chosen, device, doubled(), 1, 2, COUNT)]
    recording = chosen.record(launches, arrays, MEMORY, device)
    recording([first, last])
    assert waits == [("COMPUTE_SHADER", "COMPUTE_SHADER"), *([("COMPUTE_SHADER", "HOST")] if opened.staging is None else [])]
    waits.clear()
    y = np.zeros_like(x)
    recording([first, y])
    assert (y == 4 * x).all() and ("COMPUTE_SHADER", "HOST" if opened.staging is None else "TRANSFER") in waits
    found = np.zeros_like(x)
    download(opened, last, memoryview(found).cast("B"))
    np.testing.assert_array_equal(found, 4 * x)
    for array in (first, last):
        opened.memory.release(array)


def test_the_first_failed_check_is_the_one_that_is_told(chosen: VulkanDriver, device: Device) -> None:
    def checked(limit: float, message: str) -> Kernel:
        value = load("x", F32, var("i"))
        within = Binary(op="lt", a=value, b=Const(value=limit, dtype=F32), dtype=BOOL)
        body = lane("i", index(COUNT), Check(condition=within, number=0), store("y", value, var("i")))
        params = (tensor("x", F32, COUNT), tensor("y", F32, COUNT, role="output"))
        return replace(kernel("checked", params, body), messages=(message,))

    arrays = [Held(bytes=BYTES, upload=True), Held(bytes=BYTES, offset=0), Held(bytes=BYTES, download=True)]
    launches = [launch(chosen, device, checked(5.0, "five"), 0, 1), launch(chosen, device, checked(2.0, "two"), 1, 2)]
    recording = chosen.record(launches, arrays, MEMORY, device)
    y = np.zeros(COUNT, np.float32)
    for value, message in ((1.0, None), (3.0, "two"), (7.0, "five"), (1.0, None)):
        x = np.full(COUNT, value, np.float32)
        if message is None:
            recording([x, y])
            assert (y == value).all()
        else:
            with pytest.raises(CheckFailed, match=message):
                recording([x, y])


def test_arguments_that_do_not_fit_the_push_constants(chosen: VulkanDriver, device: Device) -> None:
    """More arrays than the push constants hold: their addresses lie in memory, written when the commands run."""
    many = (device.spec.max_push_bytes or 128) // 8 + 3

    def total(*values: Binary) -> Binary:
        found = values[0]
        for value in values[1:]:
            found = Binary(op="add", a=found, b=value, dtype=F32)
        return found

    wide = elementwise(index(COUNT), (F32,) * many, F32, total)
    arrays = [*(Held(bytes=BYTES, upload=True) for _ in range(many)), Held(bytes=BYTES, offset=0), Held(bytes=BYTES, download=True)]
    launches = [launch(chosen, device, wide, *range(many), many), launch(chosen, device, doubled(), many, many + 1, COUNT)]
    assert launches[0].executable.facts["arguments"] == "buffer"  # type: ignore[attr-defined]
    recording = chosen.record(launches, arrays, MEMORY, device)
    given = [np.full(COUNT, float(n), np.float32) for n in range(many)]
    y = np.zeros(COUNT, np.float32)
    for _ in range(2):
        recording([*given, y])
        assert (y == many * (many - 1)).all()





