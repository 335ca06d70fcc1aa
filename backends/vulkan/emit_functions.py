"""Which GLSL helper functions a shader needs: text of everything that GLSL does not define tightly enough.

`max` of NaN, division by zero and out-of-range conversions are undefined in GLSL, and errors of functions loose (Vulkan asks
3 + 2|x| ulp of `exp`, an absolute 2^-11 of `sin`). Each helper names the helpers it calls; only used ones are emitted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tridsl.backends.vulkan.glsl_helper import Helper
from tridsl.backends.vulkan.glsl_math import MATH
from tridsl.backends.vulkan.glsl_native import native


def ordered_helpers(names: Iterable[str], features: Collection[str] = ()) -> list[Helper]:
    """The helpers `names` and all they use, each after what it uses, in table order among equals; the device's own functions where
    its `features` say that they will do."""
    table = HELPERS | native(features)
    done: dict[str, Helper] = {}

    def visit(name: str) -> None:
        if name not in done:
            for used in table[name].uses:
                visit(used)
            done[name] = table[name]

    for name in sorted(names):
        visit(name)
    return list(done.values())


def _per_type(template: str, types: Iterable[str]) -> str:
    return "\n".join(template.replace("T", name) for name in types)


_BITS = {
    "is_nan": Helper("bool is_nan(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }\n"),
    "is_inf": Helper("bool is_inf(float x) { return (floatBitsToUint(x) & 0x7fffffffu) == 0x7f800000u; }\n"),
    "is_nan_double": Helper(
        "bool is_nan_double(double x) { uvec2 b = unpackDouble2x32(x); uint h = b.y & 0x7fffffffu;"
        " return h > 0x7ff00000u || (h == 0x7ff00000u && b.x != 0u); }\n"
    ),
    "is_inf_double": Helper(
        "bool is_inf_double(double x) { uvec2 b = unpackDouble2x32(x);"
        " return (b.y & 0x7fffffffu) == 0x7ff00000u && b.x == 0u; }\n"
    ),
    "bf16_bits": Helper(
        "uint bf16_bits(float x) { uint b = floatBitsToUint(x);"
        " return is_nan(x) ? (b >> 16) | 0x40u : (b + 0x7fffu + ((b >> 16) & 1u)) >> 16; }\n",
        ("is_nan",),
    ),
    "f16_bits": Helper(  # without branches, in which lanes would wait for one another
        """uint f16_bits(float x) {
    uint b = floatBitsToUint(x), s = (b >> 16) & 0x8000u, a = b & 0x7fffffffu;
    precise float low = uintBitsToFloat(a) + 0.5;                    // one unit of its last place is the least denormal
    uint tiny = floatBitsToUint(low) - 0x3f000000u, large = (a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13;
    uint r = a < 0x38800000u ? tiny : large;
    r = a < 0x477ff000u ? r : 0x7c00u;                              // 65520 and above: inf
    r = a > 0x7f800000u ? 0x7e00u : r;
    return s | r;
}
"""
    ),
    "f16_pair": Helper("uint f16_pair(float a, float b) { return f16_bits(a) | (f16_bits(b) << 16); }\n", ("f16_bits",)),
    "round_half": Helper(  # without branches: to 11 bits, or to multiples of 2^-24 (one unit of the last place of 0.75)
        """float round_half(float x) {
    uint b = floatBitsToUint(x), s = b & 0x80000000u, a = b & 0x7fffffffu;
    precise float low = (uintBitsToFloat(a) + 0.75) - 0.75;
    uint r = a < 0x38800000u ? floatBitsToUint(low) : (a + 0xfffu + ((a >> 13) & 1u)) & 0xffffe000u;
    r = a >= 0x477ff000u ? max(a, 0x7f800000u) : r;                 // 65520 and above: inf; NaN stays
    return uintBitsToFloat(s | r);
}
"""
    ),
    "byte_column": Helper(  # one byte of each of four words
        """uint byte_column(uvec4 rows, int bit) {
    uvec4 b = rows >> bit;
    return bitfieldInsert(bitfieldInsert(bitfieldInsert(b.x, b.y, 8, 8), b.z, 16, 8), b.w, 24, 8);
}
"""
    ),
    "half_column": Helper(
        """uvec2 half_column(uvec4 rows, int bit) {
    uvec4 h = bitfieldExtract(rows, bit, 16);
    return h.xz | (h.yw << 16);
}
"""
    ),
    "shifted_31": Helper(  # word by word: NVIDIA's compiler (driver 580) takes 2^31 for a negative factor of a widened i32
        """int64_t shifted_31(int64_t x) {
    uvec2 w = unpackUint2x32(uint64_t(x));
    return int64_t(packUint2x32(uvec2(w.x << 31, (w.y << 31) | (w.x >> 1))));
}
"""
    ),
    "nan_max": Helper(
        "float nan_max(float a, float b) { return is_nan(a) || a > b ? a : b; }\n"  # b where it is NaN: no comparison holds
        "float nan_min(float a, float b) { return is_nan(a) || a < b ? a : b; }\n",
        ("is_nan",),
    ),
    "nan_max_double": Helper(
        "double nan_max(double a, double b) { return is_nan_double(a) ? a : is_nan_double(b) ? b : a > b ? a : b; }\n"
        "double nan_min(double a, double b) { return is_nan_double(a) ? a : is_nan_double(b) ? b : a < b ? a : b; }\n",
        ("is_nan_double",),
    ),
    "pow2": Helper(
        "float pow2(int n) { return uintBitsToFloat(uint(clamp(n, -126, 127) + 127) << 23); }\n"
        "float scale2(float x, int n) { precise float half_way = x * pow2(n / 2); return half_way * pow2(n - n / 2); }\n"
    ),
}

_INTEGERS = {
    # GLSL's own `min` of integers is lost on constants: where a shader has float controls, SPIRV-Tools' `ccp` (seen in 2022.4 and 2023.1)
    # cannot fold SMin and its like, and does not say so: a sum, a choice or a running minimum of them is then what it is without them. (Of
    # 64 bits it does not try.)
    "lesser": Helper(_per_type("T lesser(T a, T b) { return a < b ? a : b; }\n", ("int", "uint"))),
    "greater": Helper(_per_type("T greater(T a, T b) { return a > b ? a : b; }\n", ("int", "uint"))),
    "floor_div": Helper(
        _per_type(
            "T floor_div(T a, T b) {\n"
            "    if (b == T(0)) return T(0);\n"
            "    if (b == T(-1)) return T(0) - a;\n"
            "    T q = a / b, r = a - q * b;\n"
            "    return (r != T(0) && (r < T(0)) != (b < T(0))) ? q - T(1) : q;\n"
            "}\n"
            "T floor_mod(T a, T b) { return (b == T(0) || b == T(-1)) ? T(0) : a - floor_div(a, b) * b; }\n",
            ("int", "int64_t"),
        )
        + "uint floor_div(uint a, uint b) { return b == 0u ? 0u : a / b; }\n"
        + "uint floor_mod(uint a, uint b) { return b == 0u ? 0u : a % b; }\n"
    ),
    "dot4": Helper(
        "int dot4(uint p, uint q) {\n"
        "    int a = int(p), b = int(q);\n"
        "    int s = bitfieldExtract(a, 0, 8) * bitfieldExtract(b, 0, 8) + bitfieldExtract(a, 8, 8) * bitfieldExtract(b, 8, 8);\n"
        "    return s + bitfieldExtract(a, 16, 8) * bitfieldExtract(b, 16, 8) + (a >> 24) * (b >> 24);\n"
        "}\n"
    ),
    "shift": Helper(
        _per_type(
            "T shift_left(T a, T b, int bits) { return (b < T(0) || b >= T(bits)) ? T(0) : a << b; }\n"
            "T shift_right(T a, T b, int bits) { return (b < T(0) || b >= T(bits)) ? (a < T(0) ? T(-1) : T(0)) : a >> b; }\n",
            ("int", "int64_t"),
        )
        + "uint shift_left(uint a, uint b, int bits) { return b >= uint(bits) ? 0u : a << b; }\n"
        + "uint shift_right(uint a, uint b, int bits) { return b >= uint(bits) ? 0u : a >> b; }\n"
    ),
    "to_int": Helper(  # truncate, saturate, NaN → 0; the bounds are the type's, `above` is the first float past `high`
        "int to_int(float x, int low, int high) {\n"
        "    float above = high == 0x7fffffff ? 2147483648.0 : float(high);\n"
        "    if (is_nan(x)) return 0;\n"
        "    return x >= above ? high : x <= float(low) ? low : int(x);\n"
        "}\n"
        "uint to_uint(float x, uint high) {\n"
        "    float above = high == 0xffffffffu ? 4294967296.0 : float(high);\n"
        "    return !(x > 0.0) ? 0u : x >= above ? high : uint(x);\n"
        "}\n",
        ("is_nan",),
    ),
    "to_int64": Helper(
        "int64_t to_int64(float x) {\n"
        "    if (is_nan(x)) return 0L;\n"
        "    if (x >= 9223372036854775808.0) return 9223372036854775807L;\n"
        "    return x < -9223372036854775808.0 ? -9223372036854775807L - 1L : int64_t(x);\n"
        "}\n",
        ("is_nan",),
    ),
    "to_int_double": Helper(
        "int64_t to_int64(double x, int64_t low, int64_t high) {\n"
        "    if (is_nan_double(x)) return 0L;\n"
        "    return x >= double(high) ? high : x <= double(low) ? low : int64_t(x);\n"
        "}\n",
        ("is_nan_double",),
    ),
}

_ROUNDING = {
    "round_away": Helper(
        "float round_away(float x) { float t = trunc(x); return abs(x - t) >= 0.5 ? t + (x < 0.0 ? -1.0 : 1.0) : t; }\n"
    ),
    "round_away_double": Helper(
        "double round_away(double x) { double t = trunc(x);"
        " return abs(x - t) >= 0.5lf ? t + (x < 0.0lf ? -1.0lf : 1.0lf) : t; }\n"
    ),
}

HELPERS: dict[str, Helper] = _BITS | _INTEGERS | _ROUNDING | MATH

FUNCTION_CALLS: dict[str, tuple[str, str]] = {
    # name: GLSL spelling for float, helper it needs
    **{name: (f"{name}_", name) for name in (
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "atan",
        "atan2", "erf", "pow",
    )},
    "acos": ("acos_", "asin"), "sqrt": ("sqrt", ""), "rsqrt": ("1.0 / sqrt", ""), "fma": ("fma", ""), "floor": ("floor", ""),
    "ceil": ("ceil", ""), "trunc": ("trunc", ""), "round_even": ("roundEven", ""), "round_away": ("round_away", "round_away"),
    "isnan": ("is_nan", "is_nan"), "isinf": ("is_inf", "is_inf"),
}  # fmt: skip

OF_ROUNDED = {"exp": ("exp_of_rounded_", "exp_of_rounded")}
"""Functions that some devices have shorter where their argument carries the error of a rounding of its own."""

DOUBLE_CALLS: dict[str, tuple[str, str]] = {
    "sqrt": ("sqrt", ""), "rsqrt": ("1.0lf / sqrt", ""), "fma": ("fma", ""), "floor": ("floor", ""), "ceil": ("ceil", ""),
    "trunc": ("trunc", ""), "round_even": ("roundEven", ""), "round_away": ("round_away", "round_away_double"),
    "isnan": ("is_nan_double", "is_nan_double"), "isinf": ("is_inf_double", "is_inf_double"),
}  # fmt: skip
"""GLSL has no transcendental functions of double; what is missing here `accepts` refuses."""
