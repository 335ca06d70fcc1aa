"""The driver: facts, memory, staging, failures, and what is said when a part is missing."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.backends.vulkan.conftest import Run
from tests.backends.vulkan.kernels import call, elementwise, group, kernel, lane, load, serial, store, tensor, var
from tridsl.backend import BackendUnavailable, Binary, Code, Device, Signature
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.build import build, find_compiler
from tridsl.backends.vulkan.commands import download, upload
from tridsl.backends.vulkan.container import Constant, Module, pack_modules, unpack_modules
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.executable import VulkanExecutable, make_pipeline
from tridsl.backends.vulkan.extent import encode_extent, evaluate_extent
from tridsl.backends.vulkan.settings import VulkanSettings
from tridsl.diagnostics import TriError
from tridsl.dtypes import BOOL, F32, F64, I8, I64, DType
from tridsl.ir.expr import Binary as Operation
from tridsl.ir.expr import Cast, Expr, Var, add, ceildiv, index, minimum, mul
from tridsl.ir.loop import Check, Kernel
from tridsl.ir.op import Scalar

Load = Callable[[Kernel], VulkanExecutable]
N = var("N")


def doubled(size: Expr = N) -> Kernel:
    return elementwise(size, (F32,), F32, lambda x: Operation(op="add", a=x, b=x, dtype=F32))


def test_facts_are_those_of_the_device(device: Device) -> None:
    spec = device.spec
    assert device.backend == "vulkan" and spec.kind == "gpu"
    assert device.name == ("gpu:software" if spec.software else "gpu:0")
    assert spec.subgroup_sizes and all(size & (size - 1) == 0 for size in spec.subgroup_sizes)
    assert (
        (spec.shared_bytes or 0) >= 16384 and (spec.max_group_lanes or 0) >= 128 and (spec.max_push_bytes or 0) >= 128
    )
    assert (spec.memory_bytes or 0) > 1 << 20
    assert {"int64", "storage8", "storage16", "buffer_device_address"} <= spec.features


def test_a_missing_part_is_named_with_what_to_install() -> None:
    cases = {
        "E0701": VulkanSettings(loaders=("libno-such-vulkan.so.1",)),
        "E0701 ": VulkanSettings(declarations="vulkan_no_such_module"),
    }
    for code, settings in cases.items():
        with pytest.raises(BackendUnavailable) as caught:
            VulkanDriver(settings=settings).devices()
        assert caught.value.code == code.strip()
        assert "install" in caught.value.diagnostics[0].help
    with pytest.raises(BackendUnavailable) as caught:
        find_compiler(libraries=("libno-such-shaderc.so",), program="no-such-glslc")
    assert caught.value.code == "E0708" and "glslc" in caught.value.diagnostics[0].help


def test_a_loader_without_drivers_is_told_apart(driver: VulkanDriver) -> None:
    """In a process of its own, whose environment names a driver that is not there."""
    program = (
        "from tridsl.backend import BackendUnavailable\n"
        "from tridsl.backends.vulkan.driver import VulkanDriver\n"
        "try:\n    VulkanDriver().devices()\n"
        "except BackendUnavailable as missing:\n    print(missing.code, missing.diagnostics[0].help)\n"
    )
    nowhere = {"VK_ICD_FILENAMES": "/nonexistent.json", "VK_DRIVER_FILES": "/nonexistent.json"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("E0704 install") and "mesa-vulkan-drivers" in done.stdout


def test_unknown_devices_are_refused_with_the_known_ones(driver: VulkanDriver, device: Device) -> None:
    with pytest.raises(TriError, match=device.name) as caught:
        driver.open("gpu:77")
    assert caught.value.code == "E0703"


def test_refused_glsl_is_our_fault_and_shows_its_source(device: Device) -> None:
    code = BACKEND.emit(doubled(), device.spec)
    broken = Code(
        entry="x", text=code.text.replace("void main", "vide main"), extension="glsl", signature=code.signature
    )
    with pytest.raises(RuntimeError, match=r"\d+ \| vide main"):
        build(broken, device.spec)


def test_a_compiler_whose_optimiser_crashes_goes_without(tmp_path: Path) -> None:
    """And one that always does is named with its signal."""
    crashing = tmp_path / "glslc"
    crashing.write_text('#!/bin/sh\ncase "$*" in *" -O "*) kill -SEGV $$;; esac\nwhile [ "$1" != -o ]; do shift; done\nprintf done > "$2"\n')
    crashing.chmod(0o755)
    assert find_compiler(libraries=(), program=str(crashing))("void main() {}") == b"done"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    with pytest.raises(RuntimeError, match="signal 11"):
        find_compiler(libraries=(), program=str(crashing))("void main() {}")


def test_binaries_survive_packing_and_damage_is_seen() -> None:
    sizes = (Constant(number=0, width=4, value=4096), Constant(number=7, width=8, value=-(1 << 40)))
    modules = (Module(spirv=b"abcd" * 3, constants=sizes), Module(spirv=b""), Module(spirv=b"efgh", constants=sizes[:1]))
    blob = pack_modules(modules)
    assert unpack_modules(blob) == modules
    older, odd = blob[:4] + b"\x01" + blob[5:], blob.replace(b"\x07\0\0\0\x08", b"\x07\0\0\0\x05")
    cut = tuple(blob[:length] for length in range(len(blob)))
    for damaged in (*cut, b"XXXX" + blob[4:], blob[:4] + b"\x09" + blob[5:], older, odd, blob[:12] + b"\xff" * 8 + blob[20:]):
        with pytest.raises(ValueError, match="Vulkan binary"):
            unpack_modules(damaged)


def test_extents_as_text() -> None:
    expression = minimum(index(7), ceildiv(add(N, mul(var("M"), index(3))), index(64)))
    text = encode_extent(expression)
    assert text == "7 $N $M 3 mul add 63 add 64 floordiv min"
    for n in (0, 1, 64, 65, 10**12):
        assert evaluate_extent(text, {"N": n, "M": 5}) == min(7, (n + 15 + 63) // 64)
    assert evaluate_extent("5 0 floordiv", {}) == 0


def test_memory_of_a_thousand_calls_is_given_back(device: Device, other: Callable[..., VulkanDriver]) -> None:
    copying = other(import_bytes=None)
    executable, pool = copying.load(build_for(doubled(), device), device), copying.open(device.name).memory
    rng = np.random.default_rng(0)
    for size in rng.integers(0, 60000, 1000):
        x, y = np.full(size, 1.5, np.float32), np.zeros(size, np.float32)
        executable((x, y, int(size)), 1)
        assert size == 0 or y[-1] == 3
    assert pool.used_bytes == 0
    assert len(pool.blocks) == 1 and pool.blocks[0].is_empty
    big = np.ones(8 << 20, np.float32)
    executable((big, big.copy(), big.size), 1)
    assert pool.used_bytes == 0 and pool.reserved_bytes >= 2 * big.nbytes  # the same call again takes nothing from the driver
    executable((big[:10], big[:10].copy(), 10), 1)
    assert pool.used_bytes == 0 and len(pool.blocks) == 1


def test_commands_are_recorded_again_only_for_other_arguments(load: Load) -> None:
    executable = load(doubled())
    x, y = np.ones(1000, np.float32), np.zeros(1000, np.float32)
    executable((x, y, 1000), 1)
    first = executable.recorded
    executable((x + 1, y, 1000), 1)
    assert executable.recorded is first and (y == 4).all()
    executable((x, y, 999), 1)
    assert executable.recorded is not first


def test_out_of_memory_says_how_much(driver: VulkanDriver, device: Device) -> None:
    pool = driver.open(device.name).memory
    with pytest.raises(TriError, match=r"asked for 4611686018427387904 bytes, \d+ bytes available") as caught:
        pool.allocate(1 << 62)
    assert caught.value.code == "E0602"
    pool.release(pool.allocate(1000))
    assert pool.used_bytes == 0


@pytest.fixture
def other() -> Iterator[Callable[..., VulkanDriver]]:
    """Further drivers, closed and silent at the end."""
    made: list[VulkanDriver] = []

    def make(**settings: object) -> VulkanDriver:
        made.append(VulkanDriver(settings=VulkanSettings(validation=True, **settings)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    gc.collect()
    for driver in made:
        driver.close()
        assert driver.messages == ()


def build_for(kernel: Kernel, device: Device) -> Binary:
    for stage in BACKEND.lower:
        kernel = stage.run(kernel, device.spec)
    return build(BACKEND.emit(kernel, device.spec), device.spec)


def test_pipelines_may_ask_for_the_size_of_their_subgroups(device: Device, other: Callable[..., VulkanDriver]) -> None:
    """What kernels for matrices do on devices with several sizes; validation has nothing against it."""
    if "subgroup_size_choice" not in device.spec.features:
        pytest.skip("this device has no choice of subgroup sizes")
    opened = other().open(device.name)
    api, none = opened.api, opened.api.ffi.NULL
    layout = api.create("vkCreatePipelineLayout", "VkPipelineLayout", opened.handle, api.new("VkPipelineLayoutCreateInfo"), none)
    lanes = device.spec.subgroup_sizes[-1]
    (spirv,) = unpack_modules(build(Code(entry="x", text=f"// ---- phase 0 x\n#version 460\nlayout(local_size_x = {lanes}) in;\nvoid main() {{}}\n", extension="glsl", signature=Signature(params=(), sizes=())), device.spec).blob)
    api.lib.vkDestroyPipeline(opened.handle, make_pipeline(opened, layout, spirv, lanes=lanes), none)
    api.lib.vkDestroyPipelineLayout(opened.handle, layout, none)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1.0])
def test_a_call_watches_for_its_end(device: Device, other: Callable[..., VulkanDriver], seconds: float) -> None:
    """Where the device is not this processor: seen in time, or slept for."""
    chosen = other(watch_seconds=seconds)
    opened = chosen.open(device.name)
    opened.physical = replace(opened.physical, spec=replace(opened.physical.spec, software=False))
    executable = chosen.load(build_for(doubled(), device), device)
    x, y = np.ones(1000, np.float32), np.zeros(1000, np.float32)
    for _ in range(3):
        y[:] = 0
        executable((x, y, 1000), 1)
        assert (y == 2).all()


def test_staging_gives_the_same(device: Device, driver: VulkanDriver, other: Callable[..., VulkanDriver]) -> None:
    """The way of discrete GPUs: memory that the host does not see, and copies."""
    staged = other(staging=True)
    executable = staged.load(build_for(doubled(), device), device)
    pools = staged.open(device.name)
    assert not pools.memory.mapped and pools.staging is not None
    for size in (0, 1, 4097, 0, 100000):
        x, y = np.arange(size, dtype=np.float32), np.zeros(size, np.float32)
        executable((x, y, size), 1)
        np.testing.assert_array_equal(y, 2 * x)
    assert pools.memory.used_bytes == pools.staging.used_bytes == 0


@pytest.mark.parametrize("staging", [False, True])
def test_arrays_stay_on_the_device_between_calls(
    device: Device, other: Callable[..., VulkanDriver], staging: bool
) -> None:
    chosen = other(staging=staging)
    executable, opened = chosen.load(build_for(doubled(), device), device), chosen.open(device.name)
    values = np.arange(1000, dtype=np.float32)
    first, second = opened.memory.allocate(values.nbytes), opened.memory.allocate(values.nbytes)
    upload(opened, memoryview(values).cast("B"), first)
    executable((first, second, 1000), 1)
    executable((second, first, 1000), 1)
    found = np.zeros_like(values)
    download(opened, first, memoryview(found).cast("B"))
    np.testing.assert_array_equal(found, 4 * values)
    for array in (first, second):
        opened.memory.release(array)
    assert opened.memory.used_bytes == 0


def test_a_forked_child_is_told_and_the_parent_goes_on(load: Load) -> None:
    executable = load(doubled())
    x, y = np.ones(10, np.float32), np.zeros(10, np.float32)
    child = os.fork()
    if child == 0:
        code = ""
        try:
            executable((x, y, 10), 1)
        except TriError as problem:
            code = problem.code
        os._exit(0 if code == "E0705" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    executable((x, y, 10), 1)
    assert (y == 2).all()


def test_a_late_kernel_takes_its_device_out(device: Device, driver: VulkanDriver) -> None:
    slow = VulkanDriver(settings=VulkanSettings(timeout_seconds=1e-6))
    busy = kernel(
        "busy",
        (tensor("y", F32, 64, role="inout"),),
        group("g", index(40), lane("l", index(64), serial("s", index(2000 if device.spec.software else 200_000), store("y", _sine(), var("l"))))),
    )
    executable = slow.load(build_for(busy, device), device)
    with pytest.raises(TriError, match="did not finish within") as caught:
        executable((np.zeros(64, np.float32),), 1)
    assert caught.value.code == "E0705" and device.name in str(caught.value)
    with pytest.raises(TriError, match="out of use"):
        executable((np.zeros(64, np.float32),), 1)
    assert device.name not in [found.name for found in slow.devices()]
    assert device.name in [found.name for found in driver.devices()]  # only there
    handle = slow.open(device.name)
    handle.api.lib.vkDeviceWaitIdle(handle.handle)


def _sine() -> Expr:
    return call("sin", load("y", F32, var("l")))


def test_calls_from_threads_take_turns(load: Load) -> None:
    executable = load(doubled())
    results: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        y = np.zeros(5000, np.float32)
        for _ in range(10):
            executable((np.full(5000, number, np.float32), y, 5000), 1)
        results[number] = y

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((y == 2 * number).all() for number, y in results.items()) and len(results) == 4


@pytest.mark.parametrize("dtype", [F32, F64, I8, I64], ids=str)
def test_scalars_and_many_arguments(run: Run, device: Device, dtype: DType) -> None:
    """Twenty scalars do not fit push constants of 128 bytes: then all slots lie behind one address."""
    for count in (2, 20):
        scalars = tuple(Scalar(name=f"s{n}", dtype=dtype) for n in range(count))
        total: Expr = Var(name="s0", dtype=dtype)
        for scalar in scalars[1:]:
            total = Operation(op="sub", a=total, b=Var(name=scalar.name, dtype=dtype), dtype=dtype)
        made = kernel("scalars", (*scalars, tensor("y", dtype, 1, role="output")), store("y", total, index(0)))
        arguments = dict(BACKEND.emit(made, device.spec).facts)["arguments"]
        assert arguments == ("push" if 8 * (count + 1) <= (device.spec.max_push_bytes or 0) else "buffer")
        y = np.zeros(1, dtype.name.replace("f", "float").replace("i", "int"))
        run(made, *[3 - n for n in range(count)], y)
        assert y[0] == np.array(3 - sum(3 - n for n in range(1, count))).astype(y.dtype)


def test_strided_arrays_go_as_the_bytes_they_span(run: Run) -> None:
    """Negative and zero strides, and an output whose gaps keep their contents."""
    strides = (var("x.s"),)
    n = 50
    made = elementwise(index(n), (F32,), F32, lambda x: Operation(op="add", a=x, b=x, dtype=F32))
    x, y = made.params
    made = replace(
        made,
        params=(replace(x, strides=strides), replace(y, strides=(var("y.s"),))),
        sizes=("x.s", "y.s"),  # type: ignore[arg-type]
    )
    base = np.arange(200, dtype=np.float32)
    for view in (base[:100:2], base[100:0:-2], np.broadcast_to(base[7:8], (n,))):
        out = np.full(150, -1, np.float32)
        run(made, view, out[::3], view.strides[0] // 4, 3)
        np.testing.assert_array_equal(out[::3], 2 * view)
        assert (np.delete(out, np.s_[::3]) == -1).all()


def test_a_failed_check_is_an_index_error(run: Run) -> None:
    at = load("ids", I64, var("i"))
    inside = Operation(op="lt", a=at, b=index(10), dtype=BOOL)
    made = kernel(
        "checked",
        (tensor("ids", I64, 100), tensor("y", F32, 100, role="output")),
        group(
            "g",
            index(1),
            lane("i", index(100), Check(condition=inside, number=1), store("y", Cast(a=at, dtype=F32), var("i"))),
        ),
    )
    made = replace(made, messages=("never", "`ids` outside 0..10"))
    y = np.zeros(100, np.float32)
    run(made, np.full(100, 9), y)
    with pytest.raises(IndexError, match="`ids` outside 0..10"):
        run(made, np.arange(100), y)
    np.testing.assert_array_equal(y, np.arange(100))
