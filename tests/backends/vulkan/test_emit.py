"""The emitted text: readable, the same every time, with no more than a kernel needs."""

from __future__ import annotations

import pytest

from tests.backends.vulkan.kernels import (
    SUM,
    accumulate,
    call,
    elementwise,
    kernel,
    lane,
    load,
    matmul,
    serial,
    softmax,
    tensor,
    var,
)
from tests.schedule.programs import op_of, scheduled, steps_of
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.build import split_phases
from tridsl.backends.vulkan.emit_expr import constant_text
from tridsl.backends.vulkan.lane_extremes import furthest
from tridsl.backends.vulkan.ranges import INT64, Range, range_of
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.dtypes import BF16, F16, F32, F64, I32, I64, U32
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, add, binary, index, minimum, mul, sub
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Tensor
from tridsl.structs import replace

SPEC = DeviceSpec(
    name="test", kind="gpu", features=frozenset({"float64"}), max_group_lanes=1024, subgroup_sizes=(8,), shared_bytes=32768,
    max_push_bytes=128,
)  # fmt: skip


def text(kernel: Kernel, spec: DeviceSpec = SPEC) -> str:
    for stage in BACKEND.lower:
        kernel = stage.run(kernel, spec)
    return BACKEND.emit(kernel, spec).text


def test_elementwise_in_full() -> None:
    twice = elementwise(index(100), (F32,), F32, lambda x: Binary(op="add", a=x, b=x, dtype=F32))
    assert (
        text(twice).split("\n", 1)[1]
        == """#version 460
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference2 : require
#extension GL_EXT_scalar_block_layout : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
layout(constant_id = 0) const int k0 = 64;
layout(constant_id = 1) const int k1 = 100;
layout(constant_id = 2) const int k2 = 64;
layout(constant_id = 3) const int k3 = 64;
layout(local_size_x = 64, local_size_y = 1, local_size_z = 1) in;

layout(buffer_reference, scalar, buffer_reference_align = 4) buffer Pointer_f32 { float v[]; };
layout(push_constant, scalar) uniform Push { uint64_t a0; uint64_t a1; } push;

void main() {
    Pointer_f32 t_x0 = Pointer_f32(push.a0);
    Pointer_f32 t_y = Pointer_f32(push.a1);
    {
        int i_y_i_o = int(gl_WorkGroupID.x);
        {
            int i_y_i_i = int(gl_LocalInvocationID.x);
            if (i_y_i_i < min(k0, (k1 - (i_y_i_o * k0)))) {
                t_y.v[((i_y_i_o * k2) + i_y_i_i)] = (t_x0.v[((i_y_i_o * k3) + i_y_i_i)] + t_x0.v[((i_y_i_o * k3) + i_y_i_i)]);
            }
        }
    }
}
"""
    )


def test_emission_repeats() -> None:
    assert text(softmax(index(3), index(700))) == text(softmax(index(3), index(700)))
    assert text(matmul(var("M"), index(7), index(8))) == text(matmul(var("M"), index(7), index(8)))


def test_only_used_helpers_are_there() -> None:
    with_exp = text(elementwise(index(4), (F32,), F32, lambda x: call("exp", x)))
    assert "exp_(float x)" in with_exp and "log_" not in with_exp and "floor_div" not in with_exp


def test_known_sizes_are_counted_in_32_bits_and_unknown_ones_in_64() -> None:
    known, unknown = (text(elementwise(size, (F32,), F32, lambda x: x)) for size in (index(1000), var("N")))
    assert "int64_t " not in known.split("void main")[1]
    assert "int64_t n_N = int64_t(push.a2);" in unknown and "for (int64_t i_y_i_o" in unknown
    large = text(elementwise(index(1 << 33), (F32,), F32, lambda x: x))
    assert "int64_t" in large.split("void main")[1]


def test_half_is_rounded_by_hand_where_the_device_promises_nothing() -> None:
    narrow = elementwise(index(4), (F16,), BF16, lambda x: x)
    assert "unpackHalf2x16" in text(narrow) and "float16_t" not in text(narrow)
    promised = DeviceSpec(name="t", kind="gpu", features=frozenset({"round_even16"}), max_group_lanes=128)
    assert "float16_t" in text(narrow, promised)


def test_each_phase_is_a_shader() -> None:
    shaders = split_phases(text(softmax(index(2), index(3))))
    assert len(shaders) == 1 and shaders[0].startswith("#version 460\n")


def test_literals() -> None:
    assert constant_text(0.1, F32) == "0.1" and constant_text(1.0, F32) == "1.0" and constant_text(1e30, F32) == "1e+30"
    assert constant_text(3.4028234663852886e38, F32) == "3.4028235e+38"
    assert constant_text(0.1, BF16) == "0.100097656" and constant_text(0.1, F16) == "0.099975586"
    assert constant_text(float("-inf"), F32) == "uintBitsToFloat(4286578688u)"
    assert constant_text(-0.0, F32) == "uintBitsToFloat(2147483648u)"
    assert constant_text(0.1, F64) == "0.1lf" and constant_text(-2.5, F64) == "(-2.5lf)"
    assert (
        constant_text(-(2**31), I32) == "(-2147483647 - 1)"
        and constant_text(-(2**63), I64) == "(-9223372036854775807L - 1L)"
    )
    assert constant_text(2**32 - 1, U32) == "4294967295u"


def test_ranges_of_index_arithmetic() -> None:
    ranges = {"i": Range(0, 9), "n": Range(0, INT64.high)}
    i, n = var("i"), var("n")
    assert range_of(add(mul(i, index(12)), index(5)), ranges) == Range(5, 113)
    assert range_of(sub(index(100), mul(i, index(12))), ranges) == Range(-8, 100)
    assert range_of(minimum(index(12), n), ranges) == Range(0, 12)
    assert range_of(binary("floordiv", i, index(4)), ranges) == Range(0, 2)
    assert range_of(binary("mod", n, index(7)), ranges) == Range(0, 6)
    assert range_of(mul(n, n), ranges) == INT64
    assert range_of(Const(value=3, dtype=I32), ranges) == Range(3, 3)


N, LANE = Var(name="N"), Var(name="l")
FURTHEST = [
    (N, N, N),
    (LANE, index(31), index(0)),
    (sub(N, mul(LANE, index(4))), N, sub(N, index(124))),
    (binary("floordiv", sub(N, LANE), index(8)), binary("floordiv", N, index(8)), binary("floordiv", sub(N, index(31)), index(8))),
    (binary("max", LANE, N), binary("max", index(31), N), binary("max", index(0), N)),
    (mul(LANE, N), None, None),
    (binary("mod", LANE, index(4)), None, None),
    (Load(tensor="ends", index=(N,), dtype=I64), None, None),
]


@pytest.mark.parametrize(("expression", "most", "least"), FURTHEST, ids=[str(n) for n in range(len(FURTHEST))])
def test_the_furthest_of_the_lanes(expression: Expr, most: Expr | None, least: Expr | None) -> None:
    lanes = {"l": Range(0, 31)}
    found = (furthest(expression, lanes), furthest(expression, lanes, up=False))
    assert tuple(e and simplify_index(e) for e in found) == tuple(e and simplify_index(e) for e in (most, least))


def test_lanes_that_work_together_as_long_as_each_likes() -> None:
    """How long nothing but the data says."""
    combine = accumulate("y", SUM, load("x", F32, LANE, var("y:k")), index(0))
    loop = serial("y:k", load("ends", I64, LANE), combine, reduce=True)
    made = kernel("f", (tensor("x", F32, 32, 64), tensor("ends", I64, 32), tensor("y", F32, 1, role="output")), lane("l", index(32), loop))
    with pytest.raises(TriError, match="leave it at different times") as caught:
        BACKEND.emit(made, SPEC)  # lowered, each lane would have a sum of its own
    assert caught.value.code == "E0707"


def test_lanes_combine_into_nothing_outside_a_result() -> None:
    """Beyond the end of a padded axis there may be another group's element, which it reads and writes itself."""
    op = op_of("op f(x: i32[M, K], y: i32[N, K]) -> z: i32[M, N] {\n z[i, j] = sum[k](x[i, k] - y[j, k])\n}")
    steps = steps_of(op, 'z.pad(j, 7)\n z.split(k, 8)\n z.order(i, k.o, k.i, j)\n z.bind(i="group.x", k.i="lane.x")', SPEC)
    written = text(scheduled(op, steps, spec=SPEC, lowered=True))
    assert written.count("if (gl_LocalInvocationID.x == 0u && (i_z_j < n_N))") == 1


def test_an_element_of_a_reversed_view() -> None:
    """GLSL refuses a constant index below zero, though a pointer's array may go on there."""
    kernel = scheduled(op_of("op f(x: f32[16]) -> y: f32 {\n y = x[4] * 2\n}"), (), spec=SPEC, lowered=True)
    x, y = kernel.params
    assert isinstance(x, Tensor)
    written = text(replace(kernel, params=(replace(x, strides=(index(-1),)), y)))
    assert "uint64_t(t_x) + uint64_t(int64_t((-4)) * 4L)" in written and ".v[-" not in written
