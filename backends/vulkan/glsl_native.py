"""Functions that some devices compute themselves, well enough and faster than any text: they take the place of helpers of the same name.

`exp2_2ulp`: the driver's `exp2` is within 2 ulp over all of f32, where Vulkan asks for 3 + 2|x| only (`facts.DRIVER_FEATURES`). e^x is
then 2^t, t = x log2 e rounded, times 2^(what the rounding lost), of which two terms are enough: 0.6 ulp more. Where x was rounded itself
(`ir.rounding`), 2^t is as exact as x: off by |x| 2^-24, and infinite from that much below the limit.
`half_round_even`: `packHalf2x16` rounds to nearest even, keeps denormals, infinities and NaN, where Vulkan leaves the rounding open.
`integer_dot_product`: four products of bytes and their sum are one instruction (SPV_KHR_integer_dot_product, for which GLSL of old
compilers has no name).
`nan_preserve32`: NaN is kept as it is (SPV_KHR_float_controls), so that asking for it means something.
"""

from __future__ import annotations

from collections.abc import Collection

from tridsl.backends.vulkan.glsl_helper import Helper

_EXP2 = {
    "exp": Helper(
        """float exp_(float x) {
    float c = x < -104.0 ? -104.0 : x;                               // NaN stays
    precise float t = c * 1.44269502;
    precise float lost = fma(c, 1.92596299e-8, fma(c, 1.44269502, -t));
    float e = exp2(t);
    precise float y = fma(e, lost * 0.693147181, e);                 // not e * lost, which may be denormal
    return x > 88.7228394 ? uintBitsToFloat(0x7f800000u) : y;
}
""",
    ),
    "exp_of_rounded": Helper("float exp_of_rounded_(float x) { precise float t = x * 1.44269502; return exp2(t); }\n"),
    "exp2": Helper("float exp2_(float x) { return exp2(x); }\n"),
}

_HALF = {
    "f16_bits": Helper("uint f16_bits(float x) { return packHalf2x16(vec2(x, 0.0)); }\n"),
    "f16_pair": Helper("uint f16_pair(float a, float b) { return packHalf2x16(vec2(a, b)); }\n"),
}

_DOT = {
    # SPIR-V: DotProductInput4x8BitPacked and DotProduct; OpSDotKHR; packed format 4x8Bit
    "dot4": Helper(
        """spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450)
int dot4_(uint a, uint b, spirv_literal int format);
int dot4(uint a, uint b) { return dot4_(a, b, 0); }
"""
    ),
}

NATIVE: dict[str, dict[str, Helper]] = {
    "exp2_2ulp": _EXP2,
    "half_round_even": _HALF,
    "integer_dot_product": _DOT,
    "nan_preserve32": {"is_nan": Helper("bool is_nan(float x) { return isnan(x); }\n")},
}
"""Feature of the device → helpers it replaces."""


def native(features: Collection[str]) -> dict[str, Helper]:
    return {name: helper for feature, helpers in NATIVE.items() if feature in features for name, helper in helpers.items()}
