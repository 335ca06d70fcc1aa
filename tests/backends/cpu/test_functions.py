"""Every vector function, compiled for this machine, against wider references: accuracy, specials, shapes, targets."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llvmlite import binding, ir

from tridsl.backends.cpu.functions import EMITTERS, emit_function
from tridsl.backends.cpu.functions import pieces as tables
from tridsl.ir.expr import FUNCTIONS

binding.initialize_all_targets()
binding.initialize_all_asmprinters()

AVX512 = frozenset({"avx512f", "avx512vl", "avx512dq"})
PREDICATES = ("isnan", "isinf")
EXACT = ("floor", "ceil", "trunc", "round_even", "round_away")
LANES = {"f32": 16, "f64": 8}
TYPES = {"f32": np.float32, "f64": np.float64}
UNARY = sorted(name for name, count in FUNCTIONS.items() if count == 1 and name not in PREDICATES)
SAMPLES = 250_000
_ENGINES: list[Any] = []  # compiled code lives as long as its engine


def kernel(name: str, kind: str, lanes: int | None, features: frozenset[str], *, negate: bool = False, rounded: bool = False) -> str:
    """IR of `kernel(count, inputs..., output)`: the function over arrays (or over what has the other sign), `lanes` elements a step."""
    element = ir.FloatType() if kind == "f32" else ir.DoubleType()
    result = ir.IntType(8) if name in PREDICATES else element
    i64, module = ir.IntType(64), ir.Module(name="functions")
    pointers = [element.as_pointer()] * FUNCTIONS[name] + [result.as_pointer()]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64, *pointers]), "kernel")
    entry, loop, done = (function.append_basic_block() for _ in range(3))
    builder = ir.IRBuilder(entry)
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(i64)
    i.add_incoming(ir.Constant(i64, 0), entry)
    step = ir.VectorType(element, lanes) if lanes else element
    args = [builder.load(builder.bitcast(builder.gep(p, [i]), step.as_pointer()), align=4) for p in function.args[1:-1]]
    value = emit_function(builder, name, [builder.fneg(a) for a in args] if negate else args, features, rounded=rounded)
    if name in PREDICATES:
        value = builder.zext(value, ir.VectorType(result, lanes) if lanes else result)
    builder.store(value, builder.bitcast(builder.gep(function.args[-1], [i]), value.type.as_pointer()), align=1)
    following = builder.add(i, ir.Constant(i64, lanes or 1))
    i.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, function.args[0]), loop, done)
    builder.position_at_end(done)
    builder.ret_void()
    return str(module)


def optimised(text: str, machine: Any) -> Any:
    module = binding.parse_assembly(text)
    module.verify()
    passes = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    return module


def host_features() -> frozenset[str]:
    """Only what this machine has: the AVX-512 path is taken where it exists."""
    have = binding.get_host_cpu_features()
    return frozenset(name for name in AVX512 if have.get(name))


def compiled(name: str, kind: str, lanes: int | None, features: frozenset[str], *, negate: bool = False, rounded: bool = False) -> Callable[..., np.ndarray]:
    target = binding.Target.from_triple(binding.get_process_triple())
    host = binding.get_host_cpu_features().flatten()
    machine = target.create_target_machine(cpu=binding.get_host_cpu_name(), features=host, opt=2)
    engine = binding.create_mcjit_compiler(optimised(kernel(name, kind, lanes, features, negate=negate, rounded=rounded), machine), machine)
    engine.finalize_object()
    _ENGINES.append(engine)
    address = engine.get_function_address("kernel")
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, *[ctypes.c_void_p] * (FUNCTIONS[name] + 1))(address)

    def run(*inputs: np.ndarray) -> np.ndarray:
        count, width = len(inputs[0]), lanes or 1
        padded = -(-count // width) * width
        arrays = [np.pad(np.asarray(x, TYPES[kind]), (0, padded - count)) for x in inputs]
        out = np.empty(padded, np.uint8 if name in PREDICATES else TYPES[kind])
        call(padded, *(x.ctypes.data for x in arrays), out.ctypes.data)
        return out[:count]

    return run


def specials(kind: str) -> np.ndarray:
    info, dtype = np.finfo(TYPES[kind]), TYPES[kind]
    positive = [
        0.0,
        info.smallest_subnormal,
        info.tiny / 2,
        info.tiny,
        info.eps,
        0.25,
        0.5,
        1 - info.epsneg,
        1.0,
        1 + info.eps,
    ]
    # the last one is the hardest case of the reduction by pi/2 (J.-M. Muller, Elementary Functions, ch. 11)
    positive += [1.5, 2.0, 2.5, 3.0, 4.0, 10.0, 2.0**23 + 1, 2.0**24, 2.0**31, 2.0**32, info.max, math.inf, math.nan]
    positive.append(16367173 * 2.0**72 if kind == "f32" else 6381956970095103 * 2.0**797)
    return np.array([*positive, *(-p for p in positive)], dtype)


def anywhere(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform over bit patterns: every exponent alike, denormals, infinities and NaN."""
    bits = 32 if kind == "f32" else 64
    return rng.integers(0, 2**bits, count, dtype=f"u{bits // 8}").view(TYPES[kind])


def points(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Bit patterns, ordinary sizes, both sides of the reductions' boundaries, over- and underflow, specials: > 1e6."""
    dtype = TYPES[kind]
    limit = 104 if kind == "f32" else 746
    whole = rng.integers(-limit, limit, SAMPLES // 2)
    near = rng.uniform(-1e-5, 1e-5, SAMPLES // 2)
    drawn = [
        anywhere(kind, SAMPLES, rng),
        rng.standard_normal(SAMPLES) * 3,
        1 + rng.uniform(-0.6, 0.6, SAMPLES),
        rng.uniform(-limit, limit, SAMPLES),
        (whole + 0.5) * math.log(2) * (1 + near),
        whole * (math.pi / 4) * (1 + near),
        rng.uniform(-1.2e5, 1.2e5, SAMPLES // 2),
        np.linspace(-1.01, 1.01, SAMPLES // 4),
    ]
    return np.concatenate([*(x.astype(dtype) for x in drawn), specials(kind)])


def _erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf, otypes=[np.float64])(x.astype(np.float64))


REFERENCES: dict[str, Callable[..., np.ndarray]] = {
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2, "pow": np.power,
    "round_even": np.rint,
    "round_away": lambda x: np.copysign(np.floor(np.abs(x)) + (np.abs(x) - np.floor(np.abs(x)) >= 0.5), x),
    "erf": _erf,
}  # fmt: skip


def check(name: str, kind: str, got: np.ndarray, inputs: tuple[np.ndarray, ...], bound: float) -> None:
    """Signs, NaN and infinities exactly as the reference's; else within `bound` units in the last place of the true value."""
    wide = np.longdouble if kind == "f64" or name == "pow" else np.float64
    function = REFERENCES.get(name) or getattr(np, name)
    with np.errstate(all="ignore"):
        true = function(*(x.astype(wide) for x in inputs)).astype(wide)
        rounded = true.astype(TYPES[kind])
        digits, lowest = (24, -125) if kind == "f32" else (53, -1021)
        unit = np.ldexp(wide(1), np.maximum(np.frexp(true)[1], lowest) - digits)
        error = np.abs(got.astype(wide) - true) / unit
        finite = np.isfinite(got) & np.isfinite(rounded)
        same = (np.isnan(got) & np.isnan(rounded)) | (got == rounded)
        signs = np.isnan(rounded) | (np.signbit(got) == np.signbit(rounded))
    wrong = ~signs | ~np.where(finite, error <= bound, same)
    if wrong.any():
        worst = np.flatnonzero(wrong)[np.argsort(-np.nan_to_num(error[wrong], nan=np.inf))[:5]]
        rows = [
            f"{name}({', '.join(repr(x[i]) for x in inputs)}) = {got[i]!r}, not {rounded[i]!r}: {error[i]:.3g} ulp"
            for i in worst
        ]
        pytest.fail(f"{wrong.sum()} of {len(got)} wrong\n" + "\n".join(rows))


@pytest.mark.parametrize("kind", TYPES)
def test_a_sign_flipped_before_exp_costs_nothing_and_changes_nothing(kind: str) -> None:
    x = points(kind, np.random.default_rng(5))
    plain, flipped = (compiled("exp", kind, LANES[kind], host_features(), negate=n) for n in (False, True))
    assert np.array_equal(plain(-x), flipped(x), equal_nan=True)
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(cpu="sapphirerapids", opt=2)
    texts = [target.emit_assembly(optimised(kernel("exp", kind, LANES[kind], AVX512, negate=n), target)) for n in (False, True)]
    assert texts[0].count("vxor") == texts[1].count("vxor")  # multiply-adds flip it


@pytest.mark.parametrize("features", [host_features(), frozenset()], ids=["host", "portable"])
@pytest.mark.parametrize("negate", [False, True])
def test_exp_of_what_was_rounded_adds_no_more_than_that(negate: bool, features: frozenset[str]) -> None:
    """2 units in the last place, and 1.5 |x| 2**-24 of the result. Ends (but for a hair below the greatest number), infinities and NaN are exact."""
    x = points("f32", np.random.default_rng(11))
    got = compiled("exp", "f32", 16, features, negate=negate, rounded=True)(-x if negate else x)
    inside = (x > -104) & (x < 88.72)
    true = np.exp(x[inside].astype(np.float64))
    unit = np.ldexp(1.0, np.maximum(np.frexp(true)[1], -125) - 24)
    excess = np.abs(got[inside] - true) - 1.5 * np.abs(x[inside]) * 2.0**-24 * true
    assert (excess / unit).max() <= 2
    assert np.all(got[x > 88.73] == np.inf) and np.all(got[x <= -104] == 0) and np.all(got[x == 0] == 1)
    assert np.array_equal(np.isnan(got), np.isnan(x))


def test_every_function_of_the_language_has_an_emitter() -> None:
    assert EMITTERS.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", UNARY)
def test_accuracy(name: str, kind: str) -> None:
    x = points(kind, np.random.default_rng(7))
    if name == "erf":
        x = x[::5]  # the reference is slow, and has 1 ulp of f64 itself
    got = compiled(name, kind, LANES[kind], host_features())(x)
    check(name, kind, got, (x,), 0 if name in EXACT else 0.5 if name == "sqrt" else 2.0)


BY_PIECES = ["erf", "tanh"]


@pytest.mark.parametrize("name", BY_PIECES)
def test_accuracy_where_no_registers_are_looked_up(name: str) -> None:
    x = points("f32", np.random.default_rng(7))[::5]
    check(name, "f32", compiled(name, "f32", 16, frozenset())(x), (x,), 2.0)


@pytest.mark.parametrize("name", BY_PIECES)
def test_every_piece(name: str) -> None:
    """Both ends of each, what lies between, and that no piece passes 1."""
    pieces = getattr(tables, name.upper())
    first, last = (int(np.float32(a + pieces.offset).view(np.int32)) >> pieces.shift for a in (0.0, pieces.limit))
    bounds = (np.arange(first, last + 2, dtype=np.int32) << pieces.shift).view(np.float32) - np.float32(pieces.offset)
    assert last - first < 32 and bounds[-1] > pieces.limit
    near = (bounds.view(np.int32)[:, None] + np.arange(-50, 51)).astype(np.int32).view(np.float32).ravel()
    between = np.linspace(0, pieces.limit + 1, 400_000, dtype=np.float32)
    x = np.concatenate([near[np.isfinite(near)], between])
    got = compiled(name, "f32", 16, host_features())(x)
    check(name, "f32", got, (x,), 2.0)
    assert np.abs(got).max() == 1


@pytest.mark.parametrize("name", BY_PIECES)
def test_pieces_are_looked_up_in_registers(name: str) -> None:
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(cpu="sapphirerapids", opt=2)
    pieces = getattr(tables, name.upper())
    for lanes, registers in ((16, 1), (64, 4), (8, 1), (None, 1)):
        text = target.emit_assembly(optimised(kernel(name, "f32", lanes, AVX512), target))
        assert len(re.findall("vperm[it]2ps", text)) == registers * (len(pieces.coefficients) + isinstance(pieces.centre, tuple))
        assert "vdiv" not in text


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", ["exp", "exp2", "sinh", "cosh", "pow"])
def test_the_portable_scaling_gives_the_same_bits(name: str, kind: str) -> None:
    rng = np.random.default_rng(8)
    inputs = [points(kind, rng) for _ in range(FUNCTIONS[name])]
    native = compiled(name, kind, LANES[kind], host_features())(*inputs)
    portable = compiled(name, kind, LANES[kind], frozenset())(*inputs)
    np.testing.assert_array_equal(native, portable)


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", ["atan2", "pow"])
def test_accuracy_of_two_arguments(name: str, kind: str) -> None:
    rng = np.random.default_rng(9)
    a, b = (grid.ravel() for grid in np.meshgrid(specials(kind), specials(kind)))
    x = np.concatenate([anywhere(kind, SAMPLES, rng), rng.standard_normal(SAMPLES).astype(TYPES[kind])])
    y = np.concatenate([anywhere(kind, SAMPLES, rng), rng.uniform(-30, 30, SAMPLES).astype(TYPES[kind])])
    if name == "pow":  # results over the whole range, also for bases near 1
        near = (1 + rng.uniform(-1e-3, 1e-3, SAMPLES)).astype(TYPES[kind])
        base = np.abs(np.concatenate([anywhere(kind, SAMPLES, rng), near]))
        with np.errstate(all="ignore"):
            limit = 150 if kind == "f32" else 1075
            exponent = rng.uniform(-limit, limit, 2 * SAMPLES) / np.log2(base.astype(np.float64))
            x, y = np.concatenate([x, base]), np.concatenate([y, exponent.astype(TYPES[kind])])
            y[: SAMPLES // 2] = np.rint(y[SAMPLES : SAMPLES + SAMPLES // 2])
    x, y = np.concatenate([x, a]), np.concatenate([y, b])
    check(name, kind, compiled(name, kind, LANES[kind], host_features())(x, y), (x, y), 2.0)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_classification_and_fma(kind: str) -> None:
    x = np.concatenate([anywhere(kind, SAMPLES, np.random.default_rng(1)), specials(kind)])
    for name in PREDICATES:
        np.testing.assert_array_equal(compiled(name, kind, 16, host_features())(x), getattr(np, name)(x))
    one = np.ones_like(x)
    eps = np.finfo(x.dtype).eps
    got = compiled("fma", kind, 16, host_features())(one + eps, one - eps, -one)
    np.testing.assert_array_equal(got, np.full_like(x, -(eps**2)))


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_any_lane_count_gives_the_same_bits(name: str, kind: str) -> None:
    rng = np.random.default_rng(2)
    ordinary = (rng.standard_normal((FUNCTIONS[name], 1000)) * 4).astype(TYPES[kind])
    inputs = [np.concatenate([anywhere(kind, 1000, rng), some]) for some in ordinary]
    wanted = compiled(name, kind, LANES[kind], host_features())(*inputs)
    for lanes in (None, 2, 4, 32):
        np.testing.assert_array_equal(compiled(name, kind, lanes, host_features())(*inputs), wanted)


TARGETS = {
    "avx512": ("x86_64-unknown-linux-gnu", "znver4", AVX512),
    "avx2": ("x86_64-unknown-linux-gnu", "haswell", frozenset()),
    "neon": ("aarch64-unknown-linux-gnu", "neoverse-n1", frozenset()),
}


@pytest.mark.parametrize("target", TARGETS)
def test_generated_code_is_self_contained(target: str) -> None:
    """No calls and no undefined symbols, for scalars and vectors of every function."""
    triple, cpu, features = TARGETS[target]
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features="", opt=2, reloc="pic")
    for name in sorted(FUNCTIONS):
        for kind in ("f32", "f64"):
            for lanes in (None, LANES[kind]):
                module = binding.parse_assembly(kernel(name, kind, lanes, features))
                module.triple = triple
                assembly = machine.emit_assembly(optimised(str(module), machine))
                calls = re.findall(r"^\s+(?:call\w*|bl|blr)\s.*$", assembly, re.MULTILINE)
                assert not calls, f"{name} {kind} x {lanes}: {calls[:3]}"
