"""Tables of the kernel text: element types, operations and functions in terms of the AIE API (`aie_api/aie.hpp`).

Cores have no scalar floating-point unit, so every float is a vector: a single number is one that is the same in all lanes. The helper functions
are this project's own text; they are emitted where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from tridsl.dtypes import BF16, BOOL, F32, I8, I16, I32, INDEX, U8, U16, U32, DType

ELEMENTS: dict[DType, str] = {
    F32: "float", BF16: "bfloat16", I8: "int8", I16: "int16", I32: "int32", U8: "uint8", U16: "uint16", U32: "uint32",
}  # fmt: skip
"""Element types of vectors. Arithmetic on 8- and 16-bit integers wraps in their own width."""


def element(dtype: DType) -> str:
    """Of a vector. Places that are values (of an argmax, say) fit 32 bits: a core's tiles are that small."""
    return "int32" if dtype == INDEX else ELEMENTS[dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A function of the kernel text, and the helpers that it calls."""

    name: str
    text: str
    needs: tuple[str, ...] = ()


HELPERS: dict[str, Helper] = {
    helper.name: helper
    for helper in (
        Helper(
            name="widen",
            text="""// bf16 to f32: exact.
template <unsigned N> inline aie::vector<float, N> widen(const aie::vector<bfloat16, N> &v) {
  aie::accum<accfloat, N> wide;
  wide.from_vector(v, 0);
  return wide.template to_vector<float>();
}""",
        ),
        Helper(
            name="narrow",
            text="""// f32 to bf16, in the rounding mode that the kernel set.
template <unsigned N> inline aie::vector<bfloat16, N> narrow(const aie::vector<float, N> &v) {
  aie::accum<accfloat, N> wide;
  wide.from_vector(v, 0);
  return wide.template to_vector<bfloat16>();
}""",
        ),
        Helper(
            name="product",
            text="""template <typename T, unsigned N> inline aie::vector<T, N> product(const aie::vector<T, N> &a, const aie::vector<T, N> &b) {
  return aie::mul(a, b).template to_vector<T>();
}""",
        ),
        Helper(
            name="product_of_narrow",
            text="""// bf16 times bf16: exact in f32.
template <unsigned N> inline aie::vector<float, N> product_of_narrow(const aie::vector<bfloat16, N> &a, const aie::vector<bfloat16, N> &b) {
  return aie::mul(a, b).template to_vector<float>();
}""",
        ),
        Helper(
            name="reciprocal",
            text="""// 1/x: the table's approximation and two steps of Newton's method; what the steps cannot follow (0, inf, NaN) is the table's answer.
template <unsigned N> inline aie::vector<float, N> reciprocal(const aie::vector<float, N> &x) {
  const auto one = aie::broadcast<float, N>(1.0f);
  const auto first = aie::inv(x);
  auto y = first;
  for (int step = 0; step < 2; ++step)
    y = aie::add(y, product(y, aie::sub(one, product(x, y))));
  return aie::select(y, first, aie::neq(y, y));
}""",
            needs=("product",),
        ),
        Helper(
            name="upper_half",
            text="""// The first 12 of a float's 24 digits; what is left has 12 as well (Veltkamp), so that products of halves are exact.
template <unsigned N> inline aie::vector<float, N> upper_half(const aie::vector<float, N> &x) {
  const auto large = product(x, aie::broadcast<float, N>(4097.0f));
  return aie::sub(large, aie::sub(large, x));
}""",
            needs=("product",),
        ),
        Helper(
            name="quotient",
            text="""// a/b: a times 1/b, and what is missing of it: the rest a - q b is exact in halves (Dekker). Where that overflows, the first answer stays.
template <unsigned N> inline aie::vector<float, N> quotient(const aie::vector<float, N> &a, const aie::vector<float, N> &b) {
  const auto inverse = reciprocal(b);
  const auto q = product(a, inverse);
  const auto whole = product(q, b), q1 = upper_half(q), b1 = upper_half(b), q2 = aie::sub(q, q1), b2 = aie::sub(b, b1);
  const auto cut = aie::add(aie::add(aie::add(aie::sub(product(q1, b1), whole), product(q1, b2)), product(q2, b1)), product(q2, b2));
  const auto y = aie::add(q, product(aie::sub(aie::sub(a, whole), cut), inverse));
  return aie::select(q, y, aie::eq(aie::sub(y, y), aie::zeros<float, N>()));
}""",
            needs=("product", "reciprocal", "upper_half"),
        ),
        Helper(
            name="inverse_root",
            text="""// 1/sqrt(x), as `reciprocal`.
template <unsigned N> inline aie::vector<float, N> inverse_root(const aie::vector<float, N> &x) {
  const auto half = aie::broadcast<float, N>(0.5f);
  const auto more = aie::broadcast<float, N>(1.5f);
  const auto first = aie::invsqrt(x);
  auto y = first;
  for (int step = 0; step < 2; ++step)
    y = product(y, aie::sub(more, product(product(half, x), product(y, y))));
  return aie::select(y, first, aie::neq(y, y));
}""",
            needs=("product",),
        ),
        Helper(
            name="root",
            text="""// sqrt(x) = x / sqrt(x), but for 0 and inf.
template <unsigned N> inline aie::vector<float, N> root(const aie::vector<float, N> &x) {
  const auto zero = aie::zeros<float, N>();
  const auto y = product(x, inverse_root(x));
  const auto same = aie::eq(x, zero) | aie::eq(x, aie::broadcast<float, N>(__builtin_inff()));
  return aie::select(y, x, same);
}""",
            needs=("product", "inverse_root"),
        ),
        Helper(
            name="larger",
            text="""// max and min of floats: NaN where either is NaN.
template <unsigned N> inline aie::vector<float, N> larger(const aie::vector<float, N> &a, const aie::vector<float, N> &b) {
  return aie::select(aie::max(a, b), aie::add(a, b), aie::neq(a, a) | aie::neq(b, b));
}""",
        ),
        Helper(
            name="smaller",
            text="""template <unsigned N> inline aie::vector<float, N> smaller(const aie::vector<float, N> &a, const aie::vector<float, N> &b) {
  return aie::select(aie::min(a, b), aie::add(a, b), aie::neq(a, a) | aie::neq(b, b));
}""",
        ),
        Helper(
            name="power_of_two",
            text="""// 2^n * 2^f for a whole n in -126..127 and |f| <= 1/2: n goes to the exponent, a polynomial (fitted to the smallest relative error, 2e-9) gives 2^f.
template <unsigned N> inline aie::vector<float, N> power_of_two(const aie::vector<float, N> &whole, const aie::vector<float, N> &f) {
  auto p = aie::broadcast<float, N>(1.535336203e-04f);
  p = aie::add(product(p, f), aie::broadcast<float, N>(1.339887465e-03f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(9.618437359e-03f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(5.550332471e-02f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(2.402264791e-01f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(6.931472029e-01f));
  p = aie::add(product(p, f), aie::broadcast<float, N>(1.0f));
  // whole + 1.5 * 2^23 has n in its low bits
  const auto bits = aie::add(whole, aie::broadcast<float, N>(12582912.0f)).template cast_to<int32>();
  const auto exponent = aie::upshift(aie::add(aie::sub(bits, aie::broadcast<int32, N>(0x4b400000)), aie::broadcast<int32, N>(127)), 23);
  return product(p, exponent.template cast_to<float>());
}""",
            needs=("product",),
        ),
        Helper(
            name="exponential",
            text="""// e^x: x = (n + f) ln 2, the product with ln 2 in two parts. Beyond the exponents' range in two steps, so that the last results are denormal or inf.
template <unsigned N> inline aie::vector<float, N> exponential(const aie::vector<float, N> &x) {
  const auto magic = aie::broadcast<float, N>(12582912.0f);
  const auto bounded = aie::min(aie::max(x, aie::broadcast<float, N>(-104.0f)), aie::broadcast<float, N>(89.0f));
  const auto n = aie::sub(aie::add(product(bounded, aie::broadcast<float, N>(1.442695041f)), magic), magic);
  auto rest = aie::sub(bounded, product(n, aie::broadcast<float, N>(6.931457520e-1f)));
  rest = aie::sub(rest, product(n, aie::broadcast<float, N>(1.428606820e-6f)));
  const auto f = product(rest, aie::broadcast<float, N>(1.442695041f));
  const auto near = aie::min(aie::max(n, aie::broadcast<float, N>(-126.0f)), aie::broadcast<float, N>(127.0f));
  const auto far = aie::sub(n, near);
  const auto y = product(power_of_two(near, f), power_of_two(far, aie::zeros<float, N>()));
  return aie::select(y, x, aie::neq(x, x));
}""",
            needs=("product", "power_of_two"),
        ),
        Helper(
            name="hyperbolic_tangent",
            text="""// tanh(x) = 1 - 2 / (1 + e^2x); near 0 the first terms of its series, where that difference loses digits.
template <unsigned N> inline aie::vector<float, N> hyperbolic_tangent(const aie::vector<float, N> &x) {
  const auto one = aie::broadcast<float, N>(1.0f);
  const auto two = aie::broadcast<float, N>(2.0f);
  const auto y = aie::sub(one, quotient(two, aie::add(one, exponential(aie::add(x, x)))));
  const auto square = product(x, x);
  auto series = aie::broadcast<float, N>(-5.396825397e-2f);
  series = aie::add(product(series, square), aie::broadcast<float, N>(1.333333333e-1f));
  series = aie::add(product(series, square), aie::broadcast<float, N>(-3.333333333e-1f));
  const auto small = aie::add(x, product(product(x, square), series));
  return aie::select(y, small, aie::lt(aie::abs(x), aie::broadcast<float, N>(0.25f)));
}""",
            needs=("product", "quotient", "exponential"),
        ),
        Helper(
            name="error_function",
            text="""// erf(x) = sign(x) (1 - p(t) e^-x^2), t = 1 / (1 + 0.3275911 |x|); error 1.5e-7 (Abramowitz and Stegun, 7.1.26).
template <unsigned N> inline aie::vector<float, N> error_function(const aie::vector<float, N> &x) {
  const auto one = aie::broadcast<float, N>(1.0f);
  const auto size = aie::abs(x);
  const auto t = reciprocal(aie::add(one, product(size, aie::broadcast<float, N>(0.3275911f))));
  auto p = aie::broadcast<float, N>(1.061405429f);
  p = aie::add(product(p, t), aie::broadcast<float, N>(-1.453152027f));
  p = aie::add(product(p, t), aie::broadcast<float, N>(1.421413741f));
  p = aie::add(product(p, t), aie::broadcast<float, N>(-0.284496736f));
  p = aie::add(product(p, t), aie::broadcast<float, N>(0.254829592f));
  const auto y = aie::sub(one, product(product(p, t), exponential(aie::neg(product(x, x)))));
  return aie::select(aie::select(y, aie::neg(y), aie::lt(x, aie::zeros<float, N>())), x, aie::neq(x, x));
}""",
            needs=("product", "reciprocal", "exponential"),
        ),
        Helper(
            name="rounded",
            text="""// To the nearest whole number, ties to even: x + 1.5 * 2^23 has no digits behind the point. From 2^22 on what is added would leave too few; the
// halves that are left there are rounded in two steps.
template <unsigned N> inline aie::vector<float, N> rounded(const aie::vector<float, N> &x) {
  const auto magic = aie::broadcast<float, N>(12582912.0f);
  const auto size = aie::abs(x);
  const auto near = aie::sub(aie::add(x, magic), magic);
  const auto large = aie::broadcast<float, N>(8388608.0f);
  const auto far = aie::sub(aie::add(size, large), large);
  const auto signed_far = aie::select(far, aie::neg(far), aie::lt(x, aie::zeros<float, N>()));
  const auto y = aie::select(signed_far, near, aie::lt(size, aie::broadcast<float, N>(4194304.0f)));
  return aie::select(x, y, aie::lt(size, large));
}""",
        ),
        Helper(
            name="whole_part",
            text="""// What stands in front of the point.
template <unsigned N> inline aie::vector<float, N> whole_part(const aie::vector<float, N> &x) {
  const auto size = aie::abs(x);
  const auto near = rounded(size);
  const auto y = aie::select(near, aie::sub(near, aie::broadcast<float, N>(1.0f)), aie::gt(near, size));
  return aie::select(y, aie::neg(y), aie::lt(x, aie::zeros<float, N>()));
}""",
            needs=("rounded",),
        ),
        Helper(
            name="round_down",
            text="""template <unsigned N> inline aie::vector<float, N> round_down(const aie::vector<float, N> &x) {
  const auto y = rounded(x);
  return aie::select(y, aie::sub(y, aie::broadcast<float, N>(1.0f)), aie::gt(y, x));
}""",
            needs=("rounded",),
        ),
        Helper(
            name="round_up",
            text="""template <unsigned N> inline aie::vector<float, N> round_up(const aie::vector<float, N> &x) {
  const auto y = rounded(x);
  return aie::select(y, aie::add(y, aie::broadcast<float, N>(1.0f)), aie::lt(y, x));
}""",
            needs=("rounded",),
        ),
        Helper(
            name="to_integer",
            text="""// The whole part, at least `low` and at most `high`; 0 for NaN.
template <unsigned N> inline aie::vector<int32, N> to_integer(const aie::vector<float, N> &x, int32 low, int32 high) {
  const auto known = aie::select(x, aie::zeros<float, N>(), aie::neq(x, x));
  const auto least = aie::broadcast<float, N>(-2147483648.0f), beyond = aie::broadcast<float, N>(2147483648.0f);
  const auto inside = aie::min(aie::max(whole_part(known), least), aie::broadcast<float, N>(2147483520.0f));
  const auto y = aie::select(aie::to_fixed<int32>(inside, 0), aie::broadcast<int32, N>(2147483647), aie::ge(known, beyond));
  return aie::min(aie::max(y, aie::broadcast<int32, N>(low)), aie::broadcast<int32, N>(high));
}""",
            needs=("whole_part",),
        ),
        Helper(
            name="counting",
            text="""// first, first + 1, …
template <unsigned N> inline aie::vector<int32, N> counting(int32 first) {
  alignas(64) static const int32 steps[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                              22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
                                              44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
  return aie::add(aie::load_v<N>(steps), aie::broadcast<int32, N>(first));
}""",
        ),
        Helper(
            name="leading",
            text="""// The first `count` lanes: none of them where it is negative, at most all.
template <unsigned N> inline aie::mask<N> leading(int32 count) {
  return aie::mask<N>::from_uint64(count <= 0 ? 0 : count >= 64 ? ~0ull : (1ull << count) - 1);
}""",
        ),
        Helper(
            name="by_turns",
            text="""// An element of a, an element of b, and so on.
template <typename T, unsigned N> inline aie::vector<T, 2 * N> by_turns(const aie::vector<T, N> &a, const aie::vector<T, N> &b) {
  const auto [low, high] = aie::interleave_zip(a, b, 1);
  return aie::concat(low, high);
}""",
        ),
        Helper(
            name="gathered",
            text="""// R rows of C elements that lie `pitch` apart, one behind another.
template <unsigned R, unsigned C, typename T> inline aie::vector<T, R * C> gathered(const T *p, unsigned pitch) {
  aie::vector<T, R * C> block;
  for (unsigned r = 0; r < R; ++r)
    block.insert(r, aie::load_v<C>(p + r * pitch));
  return block;
}""",
        ),
        Helper(
            name="scattered",
            text="""// A block's R rows to where they lie `pitch` apart.
template <unsigned R, typename T, unsigned N> inline void scattered(T *p, unsigned pitch, const aie::vector<T, N> &block) {
  for (unsigned r = 0; r < R; ++r)
    aie::store_v(p + r * pitch, block.template extract<N / R>(r));
}""",
        ),
        Helper(
            name="as_float",
            text="inline float as_float(int32_t word) { return __builtin_bit_cast(float, word); }",
        ),
        Helper(
            name="as_bfloat16",
            text="inline bfloat16 as_bfloat16(int32_t word) { return __builtin_bit_cast(bfloat16, uint16_t(word)); }",
        ),
    )
}

Rule = tuple[str, str]
"""Text with the operands as {a}, {b}, …, and the helper that it calls (or nothing)."""

FLOAT_BINARY: dict[str, Rule] = {
    "add": ("aie::add({a}, {b})", ""), "sub": ("aie::sub({a}, {b})", ""), "mul": ("product({a}, {b})", "product"),
    "div": ("quotient({a}, {b})", "quotient"), "max": ("larger({a}, {b})", "larger"), "min": ("smaller({a}, {b})", "smaller"),
}  # fmt: skip
INTEGER_BINARY: dict[str, Rule] = {
    "add": ("aie::add({a}, {b})", ""), "sub": ("aie::sub({a}, {b})", ""), "mul": ("product({a}, {b})", "product"),
    "max": ("aie::max({a}, {b})", ""), "min": ("aie::min({a}, {b})", ""), "and": ("aie::bit_and({a}, {b})", ""),
    "or": ("aie::bit_or({a}, {b})", ""), "xor": ("aie::bit_xor({a}, {b})", ""),
}  # fmt: skip
SHIFTS: dict[str, Rule] = {"shl": ("aie::upshift({a}, {b})", ""), "shr": ("aie::downshift({a}, {b})", "")}
"""By a constant. (`downshift` of a vector rounds down, whatever the mode.)"""
MASK_BINARY: dict[str, Rule] = {"and": ("({a} & {b})", ""), "or": ("({a} | {b})", "")}
COMPARE: dict[str, Rule] = {
    "eq": ("aie::eq({a}, {b})", ""), "ne": ("aie::neq({a}, {b})", ""), "lt": ("aie::lt({a}, {b})", ""), "le": ("aie::le({a}, {b})", ""),
    "gt": ("aie::gt({a}, {b})", ""), "ge": ("aie::ge({a}, {b})", ""),
}  # fmt: skip
UNARY: dict[tuple[str, str], Rule] = {
    ("neg", "float"): ("aie::neg({a})", ""), ("neg", "int"): ("aie::neg({a})", ""), ("abs", "float"): ("aie::abs({a})", ""),
    ("abs", "int"): ("aie::abs({a})", ""), ("not", "bool"): ("(~{a})", ""),
}  # fmt: skip
CALLS: dict[str, Rule] = {
    "exp": ("exponential({a})", "exponential"), "rsqrt": ("inverse_root({a})", "inverse_root"), "sqrt": ("root({a})", "root"),
    "erf": ("error_function({a})", "error_function"), "tanh": ("hyperbolic_tangent({a})", "hyperbolic_tangent"), "fma": ("aie::add(product({a}, {b}), {c})", "product"),
    "isnan": ("aie::neq({a}, {a})", ""), "round_even": ("rounded({a})", "rounded"), "trunc": ("whole_part({a})", "whole_part"),
    "floor": ("round_down({a})", "round_down"), "ceil": ("round_up({a})", "round_up"),
}  # fmt: skip
CASTS: dict[tuple[DType, DType], Rule] = {
    (BF16, F32): ("widen({a})", "widen"), (F32, BF16): ("narrow({a})", "narrow"),
    (I8, I16): ("{a}.unpack()", ""), (I8, I32): ("{a}.unpack().unpack()", ""), (I16, I32): ("{a}.unpack()", ""),
    (U8, U16): ("{a}.unpack()", ""), (U8, U32): ("{a}.unpack().unpack()", ""), (U16, U32): ("{a}.unpack()", ""),
    (U8, I32): ("{a}.unpack().unpack().template cast_to<int32>()", ""), (U8, I16): ("{a}.unpack().template cast_to<int16>()", ""),
    (I16, I8): ("{a}.pack()", ""), (I32, I16): ("{a}.pack()", ""), (I32, I8): ("{a}.pack().pack()", ""),
    (I32, U8): ("{a}.pack().pack().template cast_to<uint8>()", ""), (I16, U8): ("{a}.pack().template cast_to<uint8>()", ""),
    (U16, U8): ("{a}.pack()", ""), (U32, U16): ("{a}.pack()", ""), (U32, U8): ("{a}.pack().pack()", ""), (I32, U16): ("{a}.pack().template cast_to<uint16>()", ""),
    (U8, I8): ("{a}.template cast_to<int8>()", ""), (I8, U8): ("{a}.template cast_to<uint8>()", ""), (U16, I16): ("{a}.template cast_to<int16>()", ""),
    (I16, U16): ("{a}.template cast_to<uint16>()", ""), (U32, I32): ("{a}.template cast_to<int32>()", ""), (I32, U32): ("{a}.template cast_to<uint32>()", ""),
    (U16, I32): ("{a}.unpack().template cast_to<int32>()", ""),
    (I32, F32): ("aie::to_float({a})", ""), (I16, F32): ("aie::to_float({a}.unpack())", ""), (I8, F32): ("aie::to_float({a}.unpack().unpack())", ""),
    (U8, F32): ("aie::to_float({a}.unpack().unpack().template cast_to<int32>())", ""),
    (U16, F32): ("aie::to_float({a}.unpack().template cast_to<int32>())", ""),
    (F32, I32): ("to_integer({a}, (-2147483647 - 1), 2147483647)", "to_integer"), (F32, I16): ("to_integer({a}, -32768, 32767).pack()", "to_integer"),
    (F32, I8): ("to_integer({a}, -128, 127).pack().pack()", "to_integer"),
    (F32, U8): ("to_integer({a}, 0, 255).pack().pack().template cast_to<uint8>()", "to_integer"),
    (F32, U16): ("to_integer({a}, 0, 65535).pack().template cast_to<uint16>()", "to_integer"),
}  # fmt: skip
REDUCTIONS: dict[str, str] = {"add": "aie::reduce_add({a})", "max": "aie::reduce_max({a})", "min": "aie::reduce_min({a})"}
"""Across the lanes. A NaN is kept by `larger` and `smaller` around it (`emit_values`)."""


def with_needs(used: set[str]) -> list[Helper]:
    """The helpers in an order in which each stands behind what it calls."""
    found: dict[str, Helper] = {}

    def visit(name: str) -> None:
        for other in HELPERS[name].needs:
            visit(other)
        found.setdefault(name, HELPERS[name])

    for name in HELPERS:
        if name in used:
            visit(name)
    return list(found.values())


def vector(dtype: DType, lanes: int) -> str:
    return f"aie::mask<{lanes}>" if dtype == BOOL else f"aie::vector<{element(dtype)}, {lanes}>"
