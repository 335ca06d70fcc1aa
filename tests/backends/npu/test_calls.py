"""The simulated NPU through the ordinary interfaces: calls, texts of stages, the command line, programs, text schedules."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tridsl import stdlib
from tridsl.api.devices import find
from tridsl.backends.npu.build_sim import COMPILER

RANDOM = np.random.default_rng(2)


@pytest.mark.parametrize("device", ["npu:sim", "npu:sim:aie2", "npu:sim:aie2p"])
def test_a_call_names_its_device(device: str) -> None:
    a, b = (RANDOM.integers(-128, 127, shape, np.int8, endpoint=True) for shape in ((20, 30), (30, 10)))
    np.testing.assert_array_equal(stdlib.matmul(a, b, device=device), a.astype(np.int32) @ b.astype(np.int32))


def test_names_and_generations() -> None:
    assert find("npu:sim").device.spec.features == find("npu:sim:aie2p").device.spec.features == {"aie2p"}
    assert find("npu:sim:aie2").device.spec.columns == 4
    assert all(find(name).device.spec.software for name in ("npu:sim", "npu:sim:aie2"))


def test_the_simulator_is_in_no_list_and_never_stands_for_an_npu() -> None:
    assert not [d for d in tridsl.devices() if d.spec.kind == "npu" and d.spec.software]
    try:
        assert not find("npu").device.spec.software
    except tridsl.TriError as problem:
        assert problem.diagnostics[0].code == "E0775" and "npu:sim" in (problem.diagnostics[0].help or "")


def test_out_and_broadcast_views_and_scalars() -> None:
    x, y = RANDOM.standard_normal((2, 100)).astype(np.float32)
    out = np.empty(100, np.float32)
    assert stdlib.saxpy(2.0, x[::-1], y, out=out, device="npu:sim") is out
    np.testing.assert_allclose(out, 2 * x[::-1] + y, rtol=1e-6, atol=1e-6)
    for a in (0.5, -3.0):
        np.testing.assert_allclose(stdlib.saxpy(a, x, y, device="npu:sim"), np.float32(a) * x + y, rtol=1e-6, atol=1e-6)


def test_more_sizes_than_a_device_with_symbols_would_keep() -> None:
    """Every size has a design of its own."""
    for n in range(16, 28):
        x = RANDOM.standard_normal(n).astype(np.float32)
        np.testing.assert_allclose(stdlib.relu2_mul(x, x, device="npu:sim"), stdlib.relu2_mul.reference(x, x), rtol=1e-5)


def test_texts_of_stages() -> None:
    x = np.zeros((8, 64), np.float32)
    assert "store" not in stdlib.softmax.lower(x, device="npu:sim", until="schedule").splitlines()[0]
    assert "copy x[" in stdlib.softmax.lower(x, device="npu:sim", until="schedule")
    array = stdlib.softmax.lower(x, device="npu:sim", until="array")
    assert array.startswith("# predicted ") and "core, again and again" in array
    emitted = stdlib.softmax.lower(x, device="npu:sim:aie2", until="emit")
    assert "#include <aie_api/aie.hpp>" in emitted and "aie.device(npu1" in emitted


def test_a_text_schedule_for_npus() -> None:
    ops = tridsl.compile("""
op scaled(x: f32[N]) -> y: f32[N] { y[i] = 3 * x[i] }
schedule scaled for npu {
  y.split(i, 128)
  y.vector(i.i)
  y.grid(columns=2)
  y.store(l1, at=i.o.i, buffers=2)
}
""")
    x = RANDOM.standard_normal(1000).astype(np.float32)
    np.testing.assert_allclose(ops.scaled(x, device="npu:sim"), 3 * x, rtol=1e-6)
    assert "column i.o.o < 2" in ops.scaled.lower(x, device="npu:sim", until="schedule")


def test_a_program_runs_on_the_simulator() -> None:
    @tridsl.jit(device="npu:sim")
    def layer(x, weights, gamma):
        return stdlib.silu(stdlib.matmul(stdlib.rmsnorm(x, gamma), weights))

    x, w, gamma = (RANDOM.standard_normal(shape).astype(ml_dtypes.bfloat16) for shape in ((6, 32), (32, 48), (32,)))
    normal = x.astype(np.float32) / np.sqrt((x.astype(np.float32) ** 2).mean(-1, keepdims=True) + 1e-5) * gamma.astype(np.float32)
    product = normal @ w.astype(np.float32)
    np.testing.assert_allclose(layer(x, w, gamma).astype(np.float32), product / (1 + np.exp(-product)), rtol=3e-2, atol=6e-2)


def test_two_threads_do_not_disturb_each_other() -> None:
    a = RANDOM.integers(-9, 9, (16, 16), np.int8)
    x = RANDOM.standard_normal((4, 32)).astype(ml_dtypes.bfloat16)
    want = stdlib.softmax(x, device="npu:sim")
    wrong: list[str] = []

    def products() -> None:
        for _ in range(5):
            if not np.array_equal(stdlib.matmul(a, a, device="npu:sim"), a.astype(np.int32) @ a):
                wrong.append("matmul")

    def rows() -> None:
        for _ in range(5):
            if not np.array_equal(stdlib.softmax(x, device="npu:sim"), want):
                wrong.append("softmax")

    threads = [threading.Thread(target=f) for f in (products, rows)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_without_a_compiler_there_is_one_diagnostic(monkeypatch: pytest.MonkeyPatch) -> None:
    from tridsl.backends.npu import build_sim

    monkeypatch.setattr(build_sim, "COMPILER", f"no-{COMPILER}")
    x = RANDOM.standard_normal(77).astype(np.float32)
    with pytest.raises(tridsl.TriError, match="E0773"):
        tridsl.compile("op f(x: f32[N]) -> y: f32[N] { y[i] = x[i] * 7 }").f(x, device="npu:sim")


def command(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tridsl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line() -> None:
    found = json.loads(command("lower", "stdlib:matmul", "-d", "npu:sim", "--shape", "A=16x32,B=32x16", "--set", "T=i8", "--until", "array", "--json"))
    assert found["stage"] == "array" and "array matmul on aie2p" in found["text"]
    assert "array" in command("lower", "stdlib:matmul", "-d", "npu:sim", "--until", "list").split()


def test_nothing_is_measured_on_a_simulated_device() -> None:
    x = RANDOM.standard_normal((4, 32)).astype(np.float32)
    for arguments in (("tune", "stdlib:softmax", "--shape", "x=4x32", "-d", "npu:sim", "--budget", "1s"), ("bench", "stdlib:softmax", "-d", "npu:sim")):
        done = subprocess.run([sys.executable, "-m", "tridsl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "E0958" in done.stderr, done.stderr
    assert stdlib.softmax(x, device="npu:sim").shape == x.shape
