"""How GLSL spells the element types.

A *value* is what arithmetic works on: `bool`, `int` (also for i8 and i16, kept sign-extended), `uint`, `int64_t`, `float`
(also for f16 and bf16), `double`. An *element* is what lies in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I4, I8, I16, I32, I64, TRIT, U4, U8, U16, U32, DType

STORAGE_8 = "GL_EXT_shader_8bit_storage"
STORAGE_16 = "GL_EXT_shader_16bit_storage"
INT64 = "GL_EXT_shader_explicit_arithmetic_types_int64"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementType:
    """One row. `{}` stands for the operand.

    `load` makes a value of an element, `store` an element of a value, `narrow` wraps or rounds a value to the type's own
    values; `argument` reads a scalar from its 8-byte slot. `shared_feature`: what a device needs to keep elements (rather
    than values) in shared memory.
    """

    value: str
    element: str
    load: str = "{}"
    store: str = "{}"
    narrow: str = "{}"
    argument: str
    extension: str = ""
    feature: str = ""
    shared_feature: str = ""
    helpers: tuple[str, ...] = ()


def _small(value: str, element: str, bits: int, extension: str, shared_feature: str) -> ElementType:
    narrow = f"bitfieldExtract({{}}, 0, {bits})"
    return ElementType(
        value=value,
        element=element,
        load=f"{value}({{}})",
        store=f"{element}({{}})",
        narrow=narrow,
        argument=narrow.format(f"{value}({{}})"),
        extension=extension,
        shared_feature=shared_feature,
    )


def _packed(value: str, element: str, bits: int) -> ElementType:
    """Types narrower than a byte, one to a byte."""
    narrow = f"bitfieldExtract({{}}, 0, {bits})"
    row = _small(value, element, 8, STORAGE_8, "int8")
    return ElementType(
        value=value,
        element=element,
        load=narrow.format(f"{value}({{}})"),
        store=f"{element}({narrow})",
        narrow=narrow,
        argument=narrow.format(f"{value}({{}})"),
        extension=row.extension,
        shared_feature=row.shared_feature,
    )


ELEMENTS: dict[DType, ElementType] = {
    BOOL: ElementType(
        value="bool",
        element="uint8_t",
        load="(uint({}) != 0u)",
        store="uint8_t(uint({}))",
        argument="((uint({}) & 0xffu) != 0u)",
        extension=STORAGE_8,
        shared_feature="int8",
    ),
    I8: _small("int", "int8_t", 8, STORAGE_8, "int8"),
    U8: _small("uint", "uint8_t", 8, STORAGE_8, "int8"),
    I16: _small("int", "int16_t", 16, STORAGE_16, "int16"),
    U16: _small("uint", "uint16_t", 16, STORAGE_16, "int16"),
    I32: ElementType(value="int", element="int", argument="int({})"),
    U32: ElementType(value="uint", element="uint", argument="uint({})"),
    I64: ElementType(value="int64_t", element="int64_t", argument="int64_t({})"),
    F16: ElementType(
        value="float",
        element="float16_t",
        load="float({})",
        store="float16_t({})",
        narrow="round_half({})",  # NVIDIA's compiler (driver 580) takes float(float16_t(x)) for x
        argument="unpackHalf2x16(uint({})).x",
        extension=STORAGE_16,
        feature="round_even16",
        shared_feature="float16",
        helpers=("round_half",),
    ),
    BF16: ElementType(
        value="float",
        element="uint16_t",
        load="uintBitsToFloat(uint({}) << 16)",
        store="uint16_t(bf16_bits({}))",
        narrow="uintBitsToFloat(bf16_bits({}) << 16)",
        argument="uintBitsToFloat(uint({}) << 16)",
        extension=STORAGE_16,
        shared_feature="int16",
        helpers=("bf16_bits",),
    ),
    F32: ElementType(value="float", element="float", argument="uintBitsToFloat(uint({}))"),
    F64: ElementType(
        value="double", element="double", argument="packDouble2x32(unpackUint2x32({}))", feature="float64"
    ),
    TRIT: _packed("int", "int8_t", 2),
    I4: _packed("int", "int8_t", 4),
    U4: _packed("uint", "uint8_t", 4),
}

HALF_BY_BITS = ElementType(
    value="float",
    element="uint16_t",
    load="unpackHalf2x16(uint({})).x",
    store="uint16_t(f16_bits({}))",
    narrow="round_half({})",
    argument="unpackHalf2x16(uint({})).x",
    extension=STORAGE_16,
    shared_feature="int16",
    helpers=("f16_bits", "round_half"),
)
"""f16 where the device does not promise to round its conversions to nearest even."""


def element_type(dtype: DType, features: frozenset[str]) -> ElementType:
    """The row of `dtype` for a device with `features`."""
    return HALF_BY_BITS if dtype == F16 and "round_even16" not in features else ELEMENTS[dtype]
