"""Loading and running binaries: slots, statuses, threads, OpenMP, fork."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cpu import native_objects
from tridsl.backend import Binary, Device, Signature
from tridsl.backends.cpu import openmp
from tridsl.backends.cpu.code_memory import load_object
from tridsl.backends.cpu.driver import CpuDriver, CpuExecutable, failure, resolve, scalar_slot
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.dtypes import BF16, BOOL, DTYPES, F16, F32, F64, I8, I32, I64, U8, U32
from tridsl.ir.expr import Var, index
from tridsl.ir.op import Scalar, Tensor

N = (Var(name="n"),)
AXPY = Signature(
    params=(
        Scalar(name="a", dtype=F32),
        Tensor(name="x", dtype=F32, shape=N),
        Tensor(name="y", dtype=F32, shape=N),
        Tensor(name="z", dtype=F32, shape=N, role="output"),
    ),
    sizes=("n",),
)
TEAM = Signature(params=(Tensor(name="out", dtype=I64, shape=(index(64),), role="output"),), sizes=())
STATUS = Signature(params=(Scalar(name="s", dtype=I32),), sizes=(), messages=("first", "second"))


def team() -> CpuExecutable:
    return native_objects.executable(native_objects.TEAM, "team", TEAM)


def members(out: np.ndarray) -> list[int]:
    return [int(n) for n in out[:63] if n]


def test_slots_carry_arrays_scalars_and_sizes() -> None:
    axpy = native_objects.executable(native_objects.SUM, "axpy", AXPY)
    x, y, z = np.arange(5, dtype=np.float32), np.ones(5, np.float32), np.full(6, -1, np.float32)
    axpy([2.5, x, y, z, 5], 1)
    assert z.tolist() == [1.0, 3.5, 6.0, 8.5, 11.0, -1.0]
    axpy([2.5, x[1:], y, z, 0], 1)
    assert z[0] == 1.0


def test_wrong_slots_are_our_bug_not_a_crash() -> None:
    axpy = native_objects.executable(native_objects.SUM, "axpy", AXPY)
    array = np.zeros(4, np.float32)
    with pytest.raises(TypeError, match="4 params and 1 sizes"):
        axpy([1.0, array, array], 1)
    with pytest.raises(TypeError, match="tensor y"):
        axpy([1.0, array, array.astype(np.float64), array, 4], 1)


@pytest.mark.parametrize(
    ("value", "dtype", "slot"),
    [
        (1.5, F64, 0x3FF8_0000_0000_0000),
        (1.5, F32, 0x3FC0_0000),
        (1.5, F16, 0x3E00),
        (1.5, BF16, 0x3FC0),
        (-1, I8, 0xFFFF_FFFF_FFFF_FFFF),
        (-(2**31), I32, 0xFFFF_FFFF_8000_0000),
        (200, U8, 200),
        (2**32 - 1, U32, 2**32 - 1),
        (True, BOOL, 1),
    ],
)
def test_scalar_slots(value: float, dtype: object, slot: int) -> None:
    assert scalar_slot(value, dtype) == slot  # type: ignore[arg-type]


def test_every_dtype_has_a_scalar_slot() -> None:
    for dtype in DTYPES.values():
        assert 0 < scalar_slot(1, dtype) < 2**64
    assert scalar_slot(3.14159, BF16) == int(np.array(3.14159, ml_dtypes.bfloat16).view(np.uint16))


def test_statuses_become_exceptions() -> None:
    status = native_objects.executable(native_objects.STATUS, "status", STATUS)
    status([0], 1)
    with pytest.raises(MemoryError):
        status([1], 1)
    for number, text in enumerate(STATUS.messages):
        with pytest.raises(IndexError, match=text):
            status([2 + number], 1)
    for unknown in (4, -1, 2**31 - 1):
        assert isinstance(failure(unknown, STATUS.messages), SystemError)


def test_the_gil_is_free_while_a_kernel_runs() -> None:
    spin = """
    define i32 @spin(ptr %slots, i64 %threads) {
      br label %loop
    loop:
      %flag.at = load ptr, ptr %slots
      %flag = load atomic i64, ptr %flag.at seq_cst, align 8
      %set = icmp ne i64 %flag, 0
      br i1 %set, label %done, label %loop
    done:
      ret i32 0
    }
    """
    flag = np.zeros(1, np.int64)
    signature = Signature(params=(Tensor(name="flag", dtype=I64, shape=(index(1),)),), sizes=())
    run = native_objects.executable(spin, "spin", signature)
    worker = threading.Thread(target=run, args=([flag], 1), daemon=True)
    worker.start()
    time.sleep(0.02)  # this thread runs although the kernel spins
    flag[0] = 1
    worker.join(10)
    assert not worker.is_alive()


def test_driver_offers_the_cpu_and_loads_for_it(tmp_path: Path) -> None:
    driver = CpuDriver(cache=tmp_path)
    (device,) = driver.devices()
    assert str(device) == "cpu" and device.spec.kind == "cpu" and device.spec.cores
    binary = Binary(
        backend="cpu", entry="axpy", blob=native_objects.object_code(native_objects.SUM), signature=AXPY
    )
    one = np.ones(3, np.float32)
    out = np.empty(3, np.float32)
    driver.load(binary, device)([2.0, one, one, out, 3], 1)
    assert out.tolist() == [3.0, 3.0, 3.0]
    foreign = Device(name="gpu", backend="vulkan", spec=DeviceSpec(name="g", kind="gpu"))
    with pytest.raises(TriError) as caught:
        driver.load(binary, foreign)
    assert caught.value.code == "E0744"


def test_a_missing_entry_is_a_clean_error() -> None:
    with pytest.raises(TriError) as caught:
        native_objects.executable(native_objects.SUM, "other", AXPY)
    assert caught.value.code == "E0741"


def test_code_is_unmapped_when_the_executable_goes() -> None:
    executable = native_objects.executable(native_objects.SUM, "axpy", AXPY)
    start = f"{executable.entry & ~0xFFF:x}-"
    assert start in Path("/proc/self/maps").read_text()
    del executable
    gc.collect()
    assert start not in Path("/proc/self/maps").read_text()


def test_a_team_has_the_size_that_was_asked_for() -> None:
    if not openmp.runtime().library:
        pytest.skip("no OpenMP runtime on this machine (libgomp.so.1)")
    for size in (1, 2, 3):
        out = np.zeros(64, np.int64)
        team()([out], size)
        assert members(out) == [size] * size
        assert out[63] == 0


def test_serial_inside_a_parallel_region() -> None:
    if not openmp.runtime().library:
        pytest.skip("no OpenMP runtime on this machine (libgomp.so.1)")
    code = load_object(native_objects.object_code(native_objects.TEAM), resolve)
    kernel, out, seen = team(), np.zeros(64, np.int64), []

    def inside() -> None:
        seen.append(openmp.threads_here(2))
        kernel([out], 2)

    callback = ctypes.CFUNCTYPE(None)(inside)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(code.address("call_inside"))(
        ctypes.cast(callback, ctypes.c_void_p), 2
    )
    assert seen == [1]
    assert members(out) == [1]


def test_without_a_runtime_kernels_run_serially_and_say_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "_SYSTEM_LIBRARIES", ("libno-such-openmp.so.1",))
    state = openmp._State()
    monkeypatch.setattr(openmp, "_STATE", state)
    monkeypatch.setattr(openmp, "loaded_library", lambda: None)
    out = np.zeros(64, np.int64)
    with pytest.warns(RuntimeWarning, match="install libgomp1"):
        kernel = team()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel([out], 4)
        team()([out], 4)
    assert openmp.runtime().library == "" and members(out) == [1]


def test_a_runtime_that_is_already_loaded_is_used() -> None:
    script = (
        "import ctypes; ctypes.CDLL('libgomp.so.1')\n"
        "from tridsl.backends.cpu import openmp\n"
        "path = openmp.loaded_library(); assert path and 'libgomp' in path, path\n"
        "assert openmp.runtime().library == path\n"
    )
    if not openmp.runtime().library.startswith(("libgomp", "/")):
        pytest.skip("no libgomp.so.1 on this machine")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def in_child(check: object) -> int:
    """Exit status of `check` in a forked child; 99 when it hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 1)  # type: ignore[operator]
        finally:
            os._exit(2)  # an exception
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return 99


def test_kernels_work_in_a_child_forked_after_a_parallel_call() -> None:
    kernel, out = team(), np.zeros(64, np.int64)
    kernel([out], 2)

    def check() -> bool:
        mine = np.zeros(64, np.int64)
        kernel([mine], 2)
        again = np.zeros(64, np.int64)
        team()([again], 3)  # loaded in the child
        return members(mine) == [1] and members(again) == [1]

    assert in_child(check) == 0
    out[:] = 0
    kernel([out], 2)  # the parent's pool is untouched
    assert len(members(out)) == (2 if openmp.runtime().library else 1)


def test_a_child_whose_parent_never_used_openmp_has_threads_of_its_own() -> None:
    script = (
        "import os, numpy as np\n"
        "from tests.backends.cpu.test_driver import team, members, in_child\n"
        "from tridsl.backends.cpu import openmp\n"
        "def check():\n"
        "    out = np.zeros(64, np.int64); team()([out], 2)\n"
        "    return len(members(out)) == (2 if openmp.runtime().library else 1)\n"
        "raise SystemExit(in_child(check))\n"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=root)
