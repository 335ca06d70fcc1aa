"""What must hold whatever happens: memory comes back, too much is refused, a device that hangs is taken out, what is missing is named."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.vulkan.test_driver import build_for, doubled
from tridsl.backend import BackendUnavailable, Device
from tridsl.backends.vulkan import facts
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.executable import VulkanExecutable
from tridsl.backends.vulkan.memory import MemoryPool
from tridsl.backends.vulkan.settings import VulkanSettings
from tridsl.diagnostics import TriError
from tridsl.ir.loop import Kernel

Load = Callable[[Kernel], VulkanExecutable]
CALLS, SETTLED = 10_000, 2_000
LEAK_BYTES = 8 << 20
"""What ten thousand calls may add to the process: much less than a byte for each of their results."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_ten_thousand_calls_leak_nothing(driver: VulkanDriver, device: Device, load: Load) -> None:
    """Sizes grow, shrink and jump; the pool ends with one idle block, the process as large as after the first calls."""
    executable, pool = load(doubled()), driver.open(device.name).memory
    rng = np.random.default_rng(0)
    sizes = np.concatenate([np.arange(1, 2001), np.arange(2000, 0, -1), rng.integers(0, 20_000, CALLS - 4000)])
    x, y = np.full(20_000, 1.5, np.float32), np.zeros(20_000, np.float32)
    settled, most = 0, 0
    for number, size in enumerate(sizes):
        executable((x[:size], y[:size], int(size)), 1)
        most = max(most, pool.reserved_bytes)
        if number == SETTLED:
            gc.collect()
            settled = resident_bytes()
    gc.collect()
    assert (y[: sizes.max()] == 3).all() and pool.used_bytes == 0
    assert len(pool.blocks) == 1 and pool.blocks[0].is_empty
    assert most <= 4 << 20  # twice 80 kB a call, in blocks of a mebibyte
    assert resident_bytes() - settled < LEAK_BYTES + most


Short = tuple[list[VulkanExecutable], list[MemoryPool]]


@pytest.fixture(params=[False, True], ids=["shared", "staged"])
def short(request: pytest.FixtureRequest, device: Device) -> Iterator[Short]:
    """A driver of its own, whose pools have 1 MiB left."""
    made = VulkanDriver(settings=VulkanSettings(validation=True, staging=request.param, block_bytes=1 << 16, import_bytes=None))
    executable = made.load(build_for(doubled(), device), device)
    opened = made.open(device.name)
    pools = [pool for pool in (opened.memory, opened.staging) if pool is not None]
    for pool in pools:
        pool.available = lambda pool=pool: max(0, (1 << 20) - pool.reserved_bytes)  # type: ignore[misc]
    held = [executable]
    del executable
    yield held, pools
    held.clear()
    gc.collect()
    made.close()
    assert made.messages == ()


def test_too_much_memory_is_refused_and_the_next_call_works(short: Short) -> None:
    (executable,), pools = short
    small, large = np.ones(1000, np.float32), np.ones(1 << 20, np.float32)
    for _ in range(3):
        with pytest.raises(TriError, match=r"asked for 4194304 bytes, \d+ bytes available") as caught:
            executable((large, np.empty_like(large), large.size), 1)
        assert caught.value.code == "E0602" and caught.value.diagnostics[0].help
        y = np.zeros_like(small)
        executable((small, y, small.size), 1)
        assert (y == 2).all()
        assert all(pool.used_bytes == 0 for pool in pools)


def test_what_fits_only_after_idle_blocks_are_given_back(short: Short) -> None:
    """Growing and shrinking under the limit: nothing that is idle stands in the way."""
    (executable,), pools = short
    for count in (1000, 100_000, 10, 120_000, 1, 90_000):
        x, y = np.ones(count, np.float32), np.zeros(count, np.float32)
        executable((x, y, count), 1)
        assert (y == 2).all() and all(pool.reserved_bytes <= 1 << 20 for pool in pools)


HANGS = """
import numpy as np, tridsl
from dataclasses import replace
from tridsl import stdlib
from tridsl.api.devices import find
driver = find("gpu:software").backend.driver()
x = np.ones((400, 400), np.float32)  # some milliseconds of work
program = tridsl.jit(lambda x: stdlib.softmax(stdlib.matmul(x, x)), device="gpu:software")
want, fine = program(x), stdlib.softmax(x, device="gpu:software")
opened = driver.open("gpu:software")
print("timeout", opened.timeout_seconds)
opened.settings = replace(opened.settings, timeout_seconds=1e-5)
for call in (lambda: program(x), lambda: program(x), lambda: stdlib.softmax(x, device="gpu:software")):
    try:
        call()
    except tridsl.TriError as problem:
        print(problem.code, "within" in str(problem), "gpu:software" in str(problem))
print("left", [str(d) for d in tridsl.devices()])
print("cpu", np.allclose(stdlib.softmax(x), fine), np.allclose(tridsl.jit(lambda x: stdlib.softmax(stdlib.matmul(x, x)))(x), want, atol=1e-5))
"""


def test_a_device_that_hangs_is_taken_out_and_the_others_go_on(device: Device) -> None:
    """Programs and single calls, in a process of its own: after the first time-out the device is refused at once."""
    if device.name != "gpu:software":
        pytest.skip("no software GPU here")
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "timeout 10.0"
    assert lines[1:4] == ["E0705 True True"] * 3
    assert "gpu:software" not in lines[4] and "cpu" in lines[4]
    assert lines[5] == "cpu True True"


PATIENCE = """
import numpy as np, os, sys, tridsl
from tridsl import stdlib
x = np.ones((300, 300), np.float32)
def attempt(device="gpu:software"):
    try:
        return stdlib.matmul(x, x, device=device)[0, 0]
    except tridsl.TriError as problem:
        return f"{problem.code} {problem.diagnostics[0].message}"
print(attempt())
os.environ["TRIDSL_TIMEOUT"] = "1e12"
print(attempt())
tridsl.set_timeout(float("inf"))
print(attempt())
tridsl.set_timeout(1e-6)
print(attempt())
"""


def test_users_say_how_long_a_call_may_take(device: Device) -> None:
    """From an environment that makes no sense, which is said before the device is opened, to a time that no kernel meets."""
    if device.name != "gpu:software":
        pytest.skip("no software GPU here")
    done = subprocess.run(
        [sys.executable, "-c", PATIENCE], env=os.environ | {"TRIDSL_TIMEOUT": "never"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("E0855 TRIDSL_TIMEOUT=never") and lines[1:3] == ["300.0", "300.0"]
    assert lines[3].startswith("E0705") and "within 1e-06 s" in lines[3]


def test_an_old_driver_is_named_with_what_it_has(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    original = facts._properties

    def old(*arguments: Any) -> Any:
        found = original(*arguments)
        found.properties.apiVersion = 1 << 22 | 1 << 12 | 7
        return found

    monkeypatch.setattr(facts, "_properties", old)
    with pytest.raises(BackendUnavailable, match=r"its driver has Vulkan 1\.1") as caught:
        VulkanDriver().devices()
    assert caught.value.code == "E0704" and device.spec.name in str(caught.value)
    assert caught.value.diagnostics[0].help.startswith("install or update")


def test_a_missing_feature_is_named(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    monkeypatch.setattr(facts, "REQUIRED", (*facts.REQUIRED, "time_travel"))
    with pytest.raises(BackendUnavailable, match="it has no time_travel") as caught:
        VulkanDriver().devices()
    assert caught.value.code == "E0704"
