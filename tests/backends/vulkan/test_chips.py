"""Chip files of GPUs: ops are lowered for them without the GPU, and what their automatic schedules give compiles."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.cli.command import program
from tests.stdlib.calling import prepared
from tridsl.backend import Device
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.build import split_phases
from tridsl.backends.vulkan.facts import REQUIRED
from tridsl.devices.spec import chip_names, chip_of_pci, load_chip
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.op import Scalar
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build, lower

GPUS = [name for name in chip_names() if load_chip(name).kind == "gpu"]
SHAPES = {
    "softmax": ((8, 4096),), "layernorm": ((8, 1000), (1000,), (1000,)), "cumsum": ((100_000,),), "sum": ((100_000,),), "matmul": ((256, 128), (128, 256)),
    "gelu": ((10_000,),), "attention": ((2, 256, 64), (2, 256, 64), (2, 256, 64)),
}  # fmt: skip
MATRICES = ("cooperative_matrix", "cooperative_matrix_bf16", "cooperative_matrix_i8_k16", "cooperative_matrix_i8_k32")


def _side(name: str, chip: str, dtype: str, *, matrices: bool) -> tuple[object, Build]:
    kind = next(k for t, k in NUMPY_TYPES.items() if t.name == dtype)
    numbers = {"scale": np.float32(0.125), "causal": False} if name == "attention" else {}
    op, given, sizes = prepared(name, tuple(np.zeros(shape, kind) for shape in SHAPES[name]), {}, numbers)
    constants = tuple((p.name, given[p.name]) for p in op.inputs if isinstance(p, Scalar) and p.const)
    spec = load_chip(chip)
    spec = spec if matrices else replace(spec, features=spec.features.difference(MATRICES))
    return op, Build(spec=spec, backend=BACKEND, facts=Specialisation(sizes=tuple(sizes.items()), constants=constants))


def test_there_are_files_for_the_gpus_that_matter() -> None:
    assert {"radeon_780m", "radeon_890m", "radeon_8060s", "hopper", "lavapipe"} <= set(GPUS)
    for name in GPUS:
        spec = load_chip(name)
        assert set(REQUIRED) <= spec.features and spec.subgroup_sizes and spec.shared_bytes and spec.max_group_lanes and spec.pci


def test_gpus_are_recognised_by_their_number() -> None:
    for number, name in (((0x1002, 0x150E), "radeon_890m"), ((0x1002, 0x1586), "radeon_8060s"), ((0x1002, 0x15BF), "radeon_780m"), ((0x10DE, 0x2330), "hopper")):
        found = chip_of_pci(*number)
        assert found is not None and found.name == name
    assert chip_of_pci(0x10DE, 0x0001) is None


def test_the_software_device_is_what_its_file_says(device: Device) -> None:
    if "22.3.6" not in device.description or "256 bits" not in device.description:
        pytest.skip("another version of Mesa than the file describes")
    told = load_chip("lavapipe")
    for fact in ("features", "subgroup_sizes", "shared_bytes", "max_group_lanes", "max_push_bytes", "max_loop_iterations", "software"):
        assert getattr(device.spec, fact) == getattr(told, fact), fact


ONE_OF_A_KIND = list({(load_chip(name).features, load_chip(name).subgroup_sizes): name for name in GPUS if not load_chip(name).software}.values())


@pytest.mark.parametrize("chip", ONE_OF_A_KIND)
def test_automatic_schedules_compile(chip: str, device: Device) -> None:
    """By the GLSL compiler that is here; cooperative matrices need a newer one than Debian 12's, so they are lowered only."""
    for name, dtype in (("softmax", "f16"), ("cumsum", "f32"), ("sum", "i32"), ("matmul", "f32")):
        op, side = _side(name, chip, dtype, matrices=False)
        binary = build(op, side)  # type: ignore[arg-type]
        assert binary.blob
    for dtype in ("f16", "i8"):
        op, side = _side("matmul", chip, dtype, matrices=True)
        text = lower(op, side).text  # type: ignore[arg-type]
        assert ("coopMatMulAdd" in text) == ("cooperative_matrix" in load_chip(chip).features)


@pytest.mark.parametrize(("name", "dtype"), [("matmul", "f16"), ("matmul", "bf16"), ("matmul", "i8"), ("attention", "f16"), ("attention", "bf16")])
@pytest.mark.parametrize("chip", [name for name in GPUS if name.startswith("radeon")])
def test_radeons_multiply_by_matrices_of_32_lanes(chip: str, name: str, dtype: str) -> None:
    """Although their drivers may also give 64 lanes: whole subgroups of 32 are asked for, and the workgroup is made of them."""
    op, side = _side(name, chip, dtype, matrices=True)
    code = lower(op, side)  # type: ignore[arg-type]  # parameters of a test have no types of their own
    shader = next(part for part in split_phases(code.text) if "coopMatMulAdd" in part)
    lanes = re.search(r"local_size_x = (\d+), local_size_y = 1, local_size_z = 1", shader)
    subgroups = re.findall(r"gl_SubgroupID\) / (\d+) % (\d+)", shader)
    assert side.spec.matrix_lanes == 32 and lanes is not None and subgroups
    assert int(lanes[1]) == 32 * max(int(below) * int(own) for below, own in subgroups)


def test_drivers_that_choose_the_size_of_subgroups_are_not_asked_for_matrices() -> None:
    either = load_chip("radeon_780m")
    chosen = replace(either, features=either.features - {"subgroup_size_choice"})
    assert chosen.matrix_lanes is None
    for name in ("matmul", "attention"):
        op, side = _side(name, "radeon_780m", "f16", matrices=True)
        assert "coopMat" not in lower(op, replace(side, spec=chosen)).text  # type: ignore[arg-type]  # parameters of a test have no types of their own
    assert [replace(either, subgroup_sizes=sizes).matrix_lanes for sizes in ((8,), (8, 16, 32), (16, 64), (32, 64))] == [8, 32, 64, 32]


@pytest.mark.parametrize("chip", GPUS)
def test_lower_for_a_gpu_that_is_not_here(chip: str) -> None:
    found = program("lower", "stdlib:softmax", "--chip", chip, "--device", "gpu", "--shape", "x=8x512")
    assert found.status == 0, found.err
    assert "subgroupMax" in found.out and "#version 460" in found.out
