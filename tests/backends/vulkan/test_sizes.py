"""One compiled shader for many sizes: templates, what is compiled once, and that no answer depends on the values in the text."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.vulkan.kernels import elementwise, var
from tests.backends.vulkan.test_schedules import close, on_device, random
from tests.backends.vulkan.texts import with_sizes
from tests.stdlib.calling import call
from tridsl import stdlib as library
from tridsl.api.decorator import JitFunction
from tridsl.api.engine import Services
from tridsl.api.library import compile_text
from tridsl.api.store import DiskStore
from tridsl.backend import Code, Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.container import unpack_modules
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.template import LEAST_LIMIT, LEAST_SIZE, Size, name_sizes, size_text, split_template
from tridsl.dtypes import F32
from tridsl.ir.expr import Binary, index
from tridsl.ir.loop import Kernel
from tridsl.program.realise import Realiser
from tridsl.runtime.artifacts import Artifacts

BUILD: Any = importlib.import_module("tridsl.backends.vulkan.build")  # the package's attribute of that name is the function

PICK = "op pick(x: f32[N], at: i32[M]) -> y: f32[M] {\n  y[i] = x[clamp(i64(at[i]), 0, N - 1)]\n}\n"


def bits(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=size).astype(np.float32)


def picked(size: int, count: int) -> tuple[Any, ...]:
    return bits(size), np.random.default_rng(count).integers(0, size, count, np.int32)


PAIRS: dict[str, tuple[str, tuple[Any, ...], tuple[Any, ...]]] = {
    "elementwise": ("saxpy", (2.0, bits(4001), bits(4001)), (2.0, bits(8003), bits(8003))),
    "rows": ("softmax", (random("f32", 40, 1000),), (random("f32", 50, 1004),)),
    "product": ("matmul", (random("f32", 70, 33), random("f32", 33, 45)), (random("f32", 71, 35), random("f32", 35, 47))),
    "one row": ("matmul", (random("f32", 1, 100), random("f32", 100, 200)), (random("f32", 1, 300), random("f32", 300, 400))),
    "reduction": ("sum", (random("f32", 2, 5000),), (random("f32", 2, 6000),)),
    "scan": ("cumsum", (random("f32", 2, 500),), (random("f32", 2, 508),)),
    "convolution": ("conv2d", (random("f32", 1, 3, 40, 40), random("f32", 4, 3, 3, 3), 1, 1), (random("f32", 1, 3, 48, 48), random("f32", 4, 3, 3, 3), 1, 1)),
    "gather": (PICK, picked(100, 200), picked(3000, 200)),
    "compaction": ("above", (bits(3000), 0.5), (bits(3064), 0.5)),
}


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates that are compiled from here on, in a process that has compiled none."""
    compiler, done = BUILD.find_compiler(), []

    def run(source: str) -> bytes:
        done.append(source)
        return bytes(compiler(source))

    monkeypatch.setattr(BUILD, "_COMPILED", {})
    monkeypatch.setattr(BUILD, "find_compiler", lambda: replace(compiler, run=run))
    return done


@pytest.mark.parametrize("kind", PAIRS)
def test_a_shader_that_was_compiled_for_one_shape_is_right_for_another(driver: VulkanDriver, device: Device, compilations: list[str], kind: str) -> None:
    name, first, second = PAIRS[kind]
    for arguments in (first, second, first):
        _, results = on_device(driver, device, name, *arguments)
        known = len(compilations)
        if arguments is first:
            assert known > 0
            before = known
        assert known == before, "compiled again for sizes alone"
        wanted = call(name, *arguments)
        for found, exact in zip(results, wanted if isinstance(wanted, tuple) else (wanted,)):
            close(found[: len(exact)] if found.ndim else found, np.asarray(exact))


def twice(size: int) -> Kernel:
    return elementwise(index(size), (F32,), F32, lambda x: Binary(op="add", a=x, b=x, dtype=F32))


def emitted(kernel: Kernel, device: Device) -> Code:
    for stage in BACKEND.lower:
        kernel = stage.run(kernel, device.spec)
    return BACKEND.emit(kernel, device.spec)


class Kept:
    """`backend.Records` in memory."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}

    def key(self, *parts: object) -> str:
        return repr(parts)

    def get(self, key: str) -> bytes | None:
        return self.records.get(key)

    def put(self, key: str, record: bytes) -> None:
        self.records[key] = record


def test_records_serve_the_next_process(device: Device, compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    assert BACKEND.build_with is not None
    one, other = (BACKEND.build_with(emitted(twice(size), device), device.spec, kept) for size in (1000, 2001))
    assert len(compilations) == len(kept.records) == 1
    monkeypatch.setattr(BUILD, "_COMPILED", {})
    assert BACKEND.build_with(emitted(twice(1000), device), device.spec, kept) == one != other
    assert len(compilations) == 1
    (first,), (second,) = unpack_modules(one.blob), unpack_modules(other.blob)
    assert first.spirv == second.spirv and [c.value for c in first.constants] != [c.value for c in second.constants]


def test_another_compiler_at_the_same_place_compiles_anew(device: Device, compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kept, code = Kept(), emitted(twice(1000), device)
    known = BUILD.find_compiler()
    assert re.search(r"\d\.\d", known.version()), "a compiler without a version"
    for version, count in ((known.version(), 1), ("of tomorrow", 2), (known.version(), 2)):
        monkeypatch.setattr(BUILD, "_COMPILED", {})
        monkeypatch.setattr(BUILD, "find_compiler", lambda version=version: replace(known, version=lambda: version))
        BACKEND.build_with(code, device.spec, kept)
        assert len(compilations) == len(kept.records) == count


def test_templates_that_are_remembered_are_counted(device: Device, compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BUILD, "TEMPLATES_LIMIT", 2)
    codes = [replace(code, text=f"{code.text}// {n}\n") for n in range(4) for code in (emitted(twice(1000), device),)]
    for code in codes:
        BACKEND.build(code, device.spec)
        assert len(BUILD._COMPILED) <= 2
    assert len(compilations) == 4
    BACKEND.build(codes[3], device.spec)  # the last one is still there
    assert len(compilations) == 4


def test_the_users_cache_keeps_templates(gpu: str, compilations: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From process to process, for calls and for programs."""
    for number, width in enumerate((1000, 1004, 1008)):
        services = Services(realiser=Realiser(store=DiskStore(Artifacts(tmp_path))))
        softmax = compile_text(library.source("softmax").text, library.source, services).softmax
        x = random("f32", 40, width)
        found = JitFunction(softmax, services, gpu, None, tune=False)(x) if number == 1 else softmax(x, device=gpu)
        close(found, call("softmax", x))
        assert len(compilations) == 1
        monkeypatch.setattr(BUILD, "_COMPILED", {})


def test_the_values_in_the_text_are_the_shader_without_constants(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    code = emitted(twice(5000), device)
    template = importlib.import_module("tridsl.backends.vulkan.template")
    monkeypatch.setattr(template, "LEAST_SIZE", 1 << 62)
    monkeypatch.setattr(template, "LEAST_LIMIT", 1 << 62)
    plain = emitted(twice(5000), device).text
    declared = re.compile(r"layout\(constant_id.*\n")
    assert plain != code.text and declared.sub("", with_sizes(code.text)) == plain
    assert not declared.search(plain)


def test_small_numbers_and_structure_stay_in_the_text() -> None:
    assert [size_text(value, "int") for value in (0, LEAST_SIZE - 1, 1 - LEAST_SIZE)] == ["0", str(LEAST_SIZE - 1), f"({1 - LEAST_SIZE})"]
    whole = [size_text(value, kind, written_out=True) for value, kind in ((4096, "int"), (-4096, "int"), (4096, "uint"), (1 << 40, "int64_t"))]
    assert whole == ["4096", "(-4096)", "4096u", f"{1 << 40}L"]
    assert size_text(LEAST_LIMIT - 1, "int", limit=True) == str(LEAST_LIMIT - 1)
    assert name_sizes(size_text(LEAST_LIMIT, "int", limit=True))[0] == name_sizes(size_text(LEAST_SIZE, "int"))[0] == "k0"


def test_sizes_are_named_as_the_text_uses_them() -> None:
    """Equal ones once; limits, steps through different tensors, and types are told apart."""
    marks = [size_text(512, "int"), size_text(64, "int"), size_text(512, "int"), size_text(512, "int", limit=True), size_text(512, "uint")]
    marks += [size_text(-(1 << 40), "int64_t"), *(size_text(512, "int", of=name) for name in ("t_A", "t_B", "t_A"))]
    body, sizes = name_sizes(" + ".join(marks))
    assert body == "k0 + k1 + k0 + k2 + k3 + k4 + k5 + k6 + k5"
    assert [(s.number, s.kind, s.value, s.width) for s in sizes] == [
        (0, "int", 512, 4), (1, "int", 64, 4), (2, "int", 512, 4), (3, "uint", 512, 4), (4, "int64_t", -(1 << 40), 8), (5, "int", 512, 4), (6, "int", 512, 4),
    ]  # fmt: skip
    shader = "\n".join(["#version 460", *(size.declaration for size in sizes), "void main() {}"])
    template, found = split_template(shader)
    assert found == sizes and "512" not in template and split_template(template)[0] == template


def test_constants_of_64_bits_and_below_zero(driver: VulkanDriver, device: Device) -> None:
    """As the driver is given them, not as the template has them."""
    sizes = (Size(number=40, kind="int64_t", value=-(1 << 40) - 3), Size(number=41, kind="int", value=-70000), Size(number=42, kind="uint", value=(1 << 32) - 5))
    code = emitted(elementwise(var("N"), (F32,), F32, lambda x: x), device)
    line = next(line for line in code.text.splitlines() if re.match(r" *t_y\.v\[|.*\)\.v\[0\] = ", line))
    target = line.split(" = ")[0]
    values = "float(int(k40 >> 20)) + float(k41) + float(k42 >> 28)"
    text = code.text.replace(line, f"{target} = {values};").replace("layout(local_size_x", "\n".join(s.declaration for s in sizes) + "\nlayout(local_size_x", 1)
    binary = BACKEND.build(Code(entry=code.entry, text=text, extension="glsl", signature=code.signature, facts=code.facts), device.spec)
    x, y = np.zeros(5, np.float32), np.zeros(5, np.float32)
    driver.load(binary, device)((x, y, 5), 1)
    assert (y == float((-(1 << 40) - 3 >> 20) - 70000 + 15)).all()


