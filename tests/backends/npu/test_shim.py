"""The stand-in of the AIE API: as strict as the hardware where that matters, and clean under sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, Subject, subject
from tridsl.backends.npu.build_sim import ARCHITECTURES, Library, compile_library

HEADER = "#include <aie_api/aie.hpp>\n"
ROUND = HEADER + """
extern "C" void to_bf16(const float *x, bfloat16 *y, int32_t mode) {
  if (mode >= 0) aie::set_rounding(aie::rounding_mode(mode));
  aie::accum<accfloat, 16> wide;
  wide.from_vector(aie::load_unaligned_v<16>(x));
  aie::store_unaligned_v(y, wide.to_vector<bfloat16>());
}
extern "C" void to_i8(const int32 *x, int8 *y, int32_t saturate, int32_t shift) {
  if (saturate) aie::set_saturation(aie::saturation_mode::saturate);
  aie::accum<acc32, 16> wide;
  wide.from_vector(aie::load_unaligned_v<16>(x));
  aie::store_unaligned_v(y, wide.to_vector<int8>(shift));
}
extern "C" void zipped(const int8 *x, int8 *y, int32_t step) {
  const auto both = aie::interleave_zip(aie::load_v<64>(x), aie::load_v<64>(x + 64), step);
  aie::store_v(y, both.first);
  aie::store_v(y + 64, both.second);
}
extern "C" void parts(const bfloat16 *x, bfloat16 *y, int32_t part) {
  aie::vector<bfloat16, 32> v = aie::load_v<32>(x);
  const auto taken = v.extract<8>(part);
  v.insert(0, taken);
  aie::store_v(y, aie::concat(v, aie::load_v<32>(x)));
}
extern "C" void aligned(const float *x, float *y) { aie::store_v(y, aie::load_v<16>(x)); }
"""


@pytest.fixture(scope="module")
def library() -> Library:
    return Library(compile_library(ROUND, "aie2p"))


def run(library: Library, name: str, *arguments: Any) -> str | None:
    values = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    return library.call(name, values, [isinstance(a, np.ndarray) for a in arguments])


def test_parts_of_a_vector(library: Library) -> None:
    x, y = _aligned(32), _aligned(64)
    x[:] = np.arange(32)
    assert run(library, "parts", x, y, 2) is None
    np.testing.assert_array_equal(y, np.r_[x[16:24], x[8:], x])
    assert "part that is not there" in str(run(library, "parts", x, y, 4))


def _aligned(count: int) -> Any:
    raw = np.zeros(count + 64, ml_dtypes.bfloat16)
    return raw[-raw.ctypes.data % 128 // 2 :][:count]


def narrowed(library: Library, values: list[float], mode: int) -> list[float]:
    x = np.array(values + [0.0] * (16 - len(values)), np.float32)
    y = np.zeros(16, ml_dtypes.bfloat16)
    assert run(library, "to_bf16", x, y, mode) is None
    return [float(v) for v in y[: len(values)]]


def test_rounding_is_floor_until_it_is_set(library: Library) -> None:
    just_above, half, just_below = 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-9
    assert narrowed(library, [just_above, half, just_below, -just_above], -1) == [1.0, 1.0, 1.0, -(1 + 2**-7)]
    assert narrowed(library, [just_above, half, just_below, 1 + 3 * 2**-8], 6) == [1.0, 1.0, 1 + 2**-7, 1 + 2**-6]


@pytest.mark.parametrize(
    ("mode", "want"),
    [(0, (0, -1, 0, -1)), (1, (1, 0, 1, 0)), (2, (1, 0, 0, 0)), (3, (0, -1, 0, 0)), (4, (1, -1, 0, 0)), (5, (0, 0, 0, 0)), (6, (0, 0, 0, 0)), (7, (1, -1, 0, 0))],
)
def test_every_rounding_mode_at_a_tie_and_below(library: Library, mode: int, want: tuple[int, ...]) -> None:
    """Steps of 2^-7 above and below 256: ties of both signs, then a quarter of a step."""
    step = 2.0
    values = [256 + step / 2, -256 - step / 2, 256 + step / 4, -256 - step / 4]
    got = narrowed(library, values, mode)
    assert [(g - (256 if v > 0 else -256)) / step for g, v in zip(got, values)] == list(want)


def test_all_floats_round_to_even_as_numpy_does(library: Library) -> None:
    x = np.random.default_rng(5).integers(0, 1 << 32, 1600, np.uint32).view(np.float32)
    for part in x.reshape(-1, 16):
        y = np.zeros(16, ml_dtypes.bfloat16)
        run(library, "to_bf16", part.copy(), y, 6)
        with np.errstate(invalid="ignore"):
            want = part.astype(ml_dtypes.bfloat16)
        same = (y.view(np.uint16) == want.view(np.uint16)) | (np.isnan(y.astype(np.float32)) & np.isnan(part))
        assert same.all()


def test_integers_wrap_until_saturation_is_set(library: Library) -> None:
    x = np.array([127, 128, -128, -129, 300, -300] + [0] * 10, np.int32)
    y = np.zeros(16, np.int8)
    run(library, "to_i8", x, y, 0, 0)
    assert y[:6].tolist() == x[:6].astype(np.int8).tolist()
    run(library, "to_i8", x, y, 1, 0)
    assert y[:6].tolist() == [127, 127, -128, -128, 127, -128]
    run(library, "to_i8", x, y, 1, 2)
    assert y[:6].tolist() == [31, 32, -32, -33, 75, -75]


def test_accesses_must_be_aligned(library: Library) -> None:
    memory = np.zeros(64, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    x, y = memory[start : start + 16], np.zeros(32, np.float32)
    y = y[-(y.ctypes.data // 4) % 16 :][:16]
    assert run(library, "aligned", x, y) is None
    assert run(library, "aligned", memory[start + 1 : start + 17], y) == "load_v of a vector that is not aligned"


@pytest.mark.parametrize(("generation", "legal"), [("aie2", ("4, 8, 8", "4, 8, 4")), ("aie2p", ("8, 8, 8", "8, 8, 8"))])
def test_only_the_generations_matrix_shapes_compile(generation: str, legal: tuple[str, str]) -> None:
    for types, good in zip(("int8, int8", "bfloat16, bfloat16"), legal):
        text = HEADER + 'extern "C" unsigned f() {{ return aie::mmul<{}, {}>::size_C; }}\n'
        assert compile_library(text.format(good, types), generation)
        with pytest.raises(RuntimeError, match="no such matrix instruction"):
            compile_library(text.format("16, 8, 8", types), generation)


def test_vectors_have_the_sizes_of_registers() -> None:
    with pytest.raises(RuntimeError, match="vectors have 128"):
        compile_library(HEADER + 'extern "C" unsigned f() { return aie::vector<float, 12>::size(); }\n', "aie2")


SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def harness(given: Subject) -> str:
    """The kernels, and a program that calls each on buffers of exactly their size."""
    buffers = {b.name: b for b in given.design.buffers}
    core = given.design.cores[0]
    ports = {p.name: p.buffers[0] for p in core.ports}
    calls: list[str] = []

    def visit(steps: Any) -> None:
        for step in steps:
            if type(step).__name__ == "Repeat":
                visit(step.body)
            elif type(step).__name__ == "Invoke":
                arguments = []
                for a in step.arguments:
                    if a.number is not None:
                        arguments.append("0")
                    else:
                        b = buffers[ports[a.port] if a.port is not None else a.buffer]
                        arguments.append(f"Memory({b.bytes})")
                calls.append(f"  {step.function}({', '.join(arguments)});")

    visit(core.program)
    body = "\n".join(calls)
    return f"""{given.kernels}
#include <stdlib.h>
#include <string.h>
struct Memory {{
  void *start;
  explicit Memory(size_t size) {{ posix_memalign(&start, 128, size); memset(start, 0, size); }}
  template <typename T> operator T *() const {{ return (T *)start; }}
}};
int main() {{
{body}
  return 0;
}}
"""


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


KERNELS = [
    *(pytest.param("softmax", (floats(9, 77),), generation, id=f"softmax {generation}") for generation in GENERATIONS),
    pytest.param("edges", (np.zeros((9, 70, 4), np.uint8), 100), "aie2p", id="fifos of lines"),
    *(
        pytest.param(*case, "aie2", id=name, marks=pytest.mark.full)
        for name, case in {
            "every second column": ("conv2d", (floats(1, 2, 8, 20), floats(3, 2, 3, 3), 2, 1)), "compaction": ("above", (floats(300), np.float32(0))),
            "backwards": ("reverse", (floats(9, 77),)), "scan": ("cumsum", (floats(6, 70),)), "argmax": ("argmax", (floats(6, 70),)),
            "patches": ("patch_embed", (floats(1, 3, 16, 24), floats(32, 3, 4, 4), floats(32))), "parts of rows": ("rope", (floats(9, 40), floats(9, 20), floats(9, 20))),
        }.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "generation"), KERNELS)
def test_kernels_are_clean_under_sanitizers(name: str, arguments: tuple[Any, ...], generation: str, tmp_path: Path) -> None:
    """In a process of their own: address and undefined behaviour."""
    given = subject(name, *arguments, generation=generation)
    source, program = tmp_path / "kernels.cc", tmp_path / "kernels"
    source.write_text(harness(given))
    shim = Path(compile_library.__code__.co_filename).parent / "shim"
    command = ["g++", "-std=c++20", *SANITIZED, "-w", "-fno-strict-aliasing", f"-D__AIE_ARCH__={ARCHITECTURES[generation]}", "-I", str(shim)]
    subprocess.run([*command, "-o", str(program), str(source)], check=True, capture_output=True, text=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert done.returncode == 0, done.stderr


def test_the_power_up_state_comes_back_before_every_call(library: Library) -> None:
    assert narrowed(library, [1 + 3 * 2**-9], 6) == [1 + 2**-7]
    assert narrowed(library, [1 + 3 * 2**-9], -1) == [1.0]


def test_vectors_take_turns_by_groups(library: Library) -> None:
    """Groups of the one and the other; the halves of what that makes are two vectors."""
    x, y = np.arange(128, dtype=np.int8), np.zeros(192, np.int8)
    x, y = (np.require(a, requirements="A") for a in (x, y))
    place = -y.ctypes.data % 64
    aligned = np.zeros(192, np.int8)
    start = -aligned.ctypes.data % 64
    aligned[start : start + 128] = x
    got = y[place : place + 128]
    assert run(library, "zipped", aligned[start:], got, 4) is None
    groups = np.stack([x[:64].reshape(-1, 4), x[64:].reshape(-1, 4)], axis=1)
    np.testing.assert_array_equal(got, groups.reshape(-1))
    assert run(library, "zipped", aligned[start:], got, 3) is not None
