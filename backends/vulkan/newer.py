"""Structures of Vulkan that are newer than the binding's declarations: VK_NV_cooperative_matrix2, VK_KHR_shader_bfloat16 (Khronos' registry,
vk.xml).

cffi gives them an `FFI` of their own; pointers go between the two as numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from tridsl.backends.vulkan.api import Api
from tridsl.backends.vulkan.instance import Instance

FEATURES, SHAPE, BFLOAT16 = 1000593000, 1000593001, 1000141000
"""VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV, …_COOPERATIVE_MATRIX_FLEXIBLE_DIMENSIONS_PROPERTIES_NV,
…_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR."""
OPERATIONS = (
    ("matrix_reductions", "cooperativeMatrixReductions"),
    ("matrix_conversions", "cooperativeMatrixConversions"),
    ("matrix_places", "cooperativeMatrixPerElementOperations"),
)
"""What VK_NV_cooperative_matrix2 does with fragments besides products: the feature of a `DeviceSpec`, the member that says so."""
BFLOAT16_COMPONENT = 1000141000
"""VK_COMPONENT_TYPE_BFLOAT16_KHR."""

FLEXIBLE = "cooperative_matrix2"
"""Begins the features of its matrices of any extents."""

DECLARATIONS = """
typedef struct {
    uint32_t sType; void *pNext;
    uint32_t cooperativeMatrixWorkgroupScope, cooperativeMatrixFlexibleDimensions, cooperativeMatrixReductions, cooperativeMatrixConversions;
    uint32_t cooperativeMatrixPerElementOperations, cooperativeMatrixTensorAddressing, cooperativeMatrixBlockLoads;
} Features;
typedef struct { uint32_t sType; void *pNext; uint32_t shaderBFloat16Type, shaderBFloat16DotProduct, shaderBFloat16CooperativeMatrix; } Bfloat16;
typedef struct {
    uint32_t sType; void *pNext;
    uint32_t MGranularity, NGranularity, KGranularity, AType, BType, CType, ResultType, saturatingAccumulation, scope, workgroupInvocations;
} Shape;
typedef int32_t (*Query)(void *, uint32_t *, Shape *);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexibleShape:
    """Matrices whose extents are multiples of `granularity` (m, n, k); `types` of A, B, C and the result as Vulkan numbers them; `lanes` of
    the workgroup that works on them together, 0 for a subgroup."""

    granularity: tuple[int, int, int]
    types: tuple[int, int, int, int]
    lanes: int


def flexible_shapes(instance: Instance, handle: Any) -> Iterator[FlexibleShape]:
    """What a physical device with the extension offers, if it has the features: those of workgroups come with tensor addressing, by which
    kernels read them."""
    own, api = _ffi(), instance.api
    asked = _features(api, handle)
    if not asked.cooperativeMatrixFlexibleDimensions:
        return
    address = instance.address("vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV")
    query = own.cast("Query", int(api.ffi.cast("uintptr_t", address)))
    device = own.cast("void *", int(api.ffi.cast("uintptr_t", handle)))
    count = own.new("uint32_t *")
    query(device, count, own.NULL)
    shapes = own.new("Shape[]", [{"sType": SHAPE}] * max(1, count[0]))
    query(device, count, shapes)
    grouped = asked.cooperativeMatrixWorkgroupScope and asked.cooperativeMatrixTensorAddressing
    scopes = {api.constant("VK_SCOPE_SUBGROUP_KHR"), *([api.constant("VK_SCOPE_WORKGROUP_KHR")] if grouped else [])}
    for shape in shapes[0 : count[0]]:
        if shape.scope not in scopes:
            continue
        yield FlexibleShape(
            granularity=(shape.MGranularity, shape.NGranularity, shape.KGranularity),
            types=(shape.AType, shape.BType, shape.CType, shape.ResultType),
            lanes=shape.workgroupInvocations if shape.scope != api.constant("VK_SCOPE_SUBGROUP_KHR") else 0,
        )


def matrix_operations(api: Api, handle: Any) -> set[str]:
    """The features of `OPERATIONS` that a physical device with the extension has."""
    asked = _features(api, handle)
    return {name for name, member in OPERATIONS if getattr(asked, member)}


def _features(api: Api, handle: Any) -> Any:
    asked = _ffi().new("Features *", {"sType": FEATURES})
    api.lib.vkGetPhysicalDeviceFeatures2(handle, api.new("VkPhysicalDeviceFeatures2", pNext=_void(api, asked)))
    return asked


def bfloat16_matrices(api: Api, handle: Any) -> bool:
    """Whether a physical device with that extension has matrices of bf16."""
    asked = _ffi().new("Bfloat16 *", {"sType": BFLOAT16})
    api.lib.vkGetPhysicalDeviceFeatures2(handle, api.new("VkPhysicalDeviceFeatures2", pNext=_void(api, asked)))
    return bool(asked.shaderBFloat16Type and asked.shaderBFloat16CooperativeMatrix)


def enable_flexible(api: Api, chain: Any, features: Collection[str]) -> Any:
    """What of the extension is among the `features` of a `DeviceSpec`, in front of a chain of structures for the creation of a device."""
    wanted = [member for name, member in OPERATIONS if name in features]
    if any(name.startswith(FLEXIBLE) for name in features):
        wanted.append("cooperativeMatrixFlexibleDimensions")
    if any(name.startswith(f"{FLEXIBLE}_group_") for name in features):
        wanted += ["cooperativeMatrixWorkgroupScope", "cooperativeMatrixTensorAddressing"]
    return _before(api, chain, "Features *", sType=FEATURES, **dict.fromkeys(wanted, 1))


def enable_bfloat16(api: Api, chain: Any) -> Any:
    """Matrices of bf16, likewise."""
    return _before(api, chain, "Bfloat16 *", sType=BFLOAT16, shaderBFloat16Type=1, shaderBFloat16CooperativeMatrix=1)


def _before(api: Api, chain: Any, kind: str, **values: int) -> Any:
    own = _ffi()
    following = own.cast("void *", int(api.ffi.cast("uintptr_t", chain)))
    return _void(api, own.new(kind, {**values, "pNext": following}), chain)


def _void(api: Api, struct: Any, *more: Any) -> Any:
    """A pointer of the binding to `struct`, which lives as long (with what it points to)."""
    pointer = api.ffi.cast("void *", int(_ffi().cast("uintptr_t", struct)))
    api.keep[pointer] = (struct, *more)
    return pointer


@cache
def _ffi() -> Any:
    made: Any = import_module("cffi").FFI()  # an optional extra (`tridsl[vulkan]`), like the binding, which needs it, too
    made.cdef(DECLARATIONS)
    return made
