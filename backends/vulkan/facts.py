"""One physical device as a `DeviceSpec`: only what it was asked and answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tridsl.backends.vulkan.api import Api
from tridsl.backends.vulkan.group_shape import GROUPED_LANES
from tridsl.backends.vulkan.imports import EXTENSION as HOST_POINTERS
from tridsl.backends.vulkan.imports import page_bytes
from tridsl.backends.vulkan.instance import API_VERSION, NEWEST_VERSION, Instance
from tridsl.backends.vulkan.newer import BFLOAT16_COMPONENT, bfloat16_matrices, flexible_shapes, matrix_operations
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec, chip_of_pci
from tridsl.dtypes import BF16, F16, F32, I8, I32, U8, U32, DType

FEATURE_STRUCTS = (
    "VkPhysicalDeviceFeatures2",
    "VkPhysicalDeviceVulkan11Features",
    "VkPhysicalDeviceVulkan12Features",
)

FEATURES: tuple[tuple[str, int, str], ...] = (
    # name in DeviceSpec.features, index into FEATURE_STRUCTS, member
    ("float64", 0, "shaderFloat64"),
    ("int64", 0, "shaderInt64"),
    ("int16", 0, "shaderInt16"),
    ("storage16", 1, "storageBuffer16BitAccess"),
    ("storage8", 2, "storageBuffer8BitAccess"),
    ("float16", 2, "shaderFloat16"),
    ("int8", 2, "shaderInt8"),
    ("scalar_layout", 2, "scalarBlockLayout"),
    ("subgroup_extended_types", 2, "shaderSubgroupExtendedTypes"),
    ("timeline_semaphore", 2, "timelineSemaphore"),
    ("buffer_device_address", 2, "bufferDeviceAddress"),
    ("memory_model", 2, "vulkanMemoryModel"),
    ("memory_model_device_scope", 2, "vulkanMemoryModelDeviceScope"),
)
"""The features that are read, and enabled where present."""

REQUIRED = ("int64", "storage16", "storage8", "scalar_layout", "timeline_semaphore", "buffer_device_address")
"""Without these a device is not offered: every kernel needs addresses, and 8 and 16 bit tensors are ordinary ones."""

PROPERTY_FEATURES: tuple[tuple[str, str], ...] = (
    ("denorm_preserve32", "shaderDenormPreserveFloat32"),
    ("denorm_preserve16", "shaderDenormPreserveFloat16"),
    ("round_even16", "shaderRoundingModeRTEFloat16"),
    ("round_even32", "shaderRoundingModeRTEFloat32"),
    ("nan_preserve32", "shaderSignedZeroInfNanPreserveFloat32"),
)
"""Float controls: members of VkPhysicalDeviceVulkan12Properties."""

SUBGROUP_FEATURES = (
    ("subgroup_arithmetic", ("BASIC", "VOTE", "ARITHMETIC")),
    ("subgroup_shuffle_relative", ("BASIC", "SHUFFLE_RELATIVE")),
)
"""What compute shaders do across a subgroup, by the names of VkSubgroupFeatureFlagBits."""

BFLOAT16 = "VK_KHR_shader_bfloat16"
MATRICES = "VK_KHR_cooperative_matrix"
DOTS = "VK_KHR_shader_integer_dot_product"
FLEXIBLE_MATRICES = "VK_NV_cooperative_matrix2"
SUBGROUP_SIZES = "VK_EXT_subgroup_size_control"

EXTENSION_FEATURES = {
    DOTS: "integer_dot_product",
    "VK_EXT_memory_budget": "memory_budget",
    SUBGROUP_SIZES: "subgroup_size_control",
}


DRIVER_FEATURES: dict[int, frozenset[str]] = {
    1: frozenset({"exp2_2ulp"}),  # AMD proprietary
    2: frozenset({"exp2_2ulp"}),  # AMD open source
    3: frozenset({"exp2_2ulp"}),  # Mesa RADV
    4: frozenset({"exp2_2ulp", "half_round_even"}),  # NVIDIA proprietary
}
"""What drivers do better than Vulkan asks, by VkDriverId. AMD, "RDNA 3 Instruction Set Architecture": V_EXP_F32 has 1 ulp. NVIDIA, "PTX
ISA": ex2.approx.f32 has a relative error of at most 2^-22; its conversions to halves (cvt.rn) keep denormals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalDevice:
    """A device that can run our kernels. `queue_family` has compute; `shares_memory`: the device reads the host's memory;
    `imports_pages`: also such as it did not allocate; `nanoseconds_per_tick` of its clock, 0 where it has none."""

    handle: Any
    spec: DeviceSpec
    description: str
    queue_family: int
    shares_memory: bool
    imports_pages: bool
    extensions: frozenset[str]
    max_groups: tuple[int, int, int]
    max_local: tuple[int, int, int]
    nanoseconds_per_tick: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A device that cannot run our kernels, and why."""

    name: str
    reason: str


LLVMPIPE_ITERATIONS = 65535
"""LP_MAX_TGSI_LOOP_ITERATIONS of Mesa's gallivm: all loops of an invocation together, then they end without a word."""


COMPONENTS = {"FLOAT16": F16, "FLOAT32": F32, "SINT8": I8, "UINT8": U8, "SINT32": I32, "UINT32": U32}
"""Component types of cooperative matrices that kernels use."""


def query_device(instance: Instance, handle: Any) -> PhysicalDevice | Unfit:
    """Facts of a physical device, or why it cannot run our kernels (too old, no compute queue, a feature missing)."""
    api = instance.api
    limits = _properties(api, handle)
    name, version = api.text(limits.properties.deviceName), limits.properties.apiVersion
    if version < API_VERSION:
        return Unfit(name=name, reason=f"its driver has Vulkan {version >> 22 & 0x7F}.{version >> 12 & 0x3FF}")
    extensions = frozenset(
        api.text(e.extensionName)
        for e in api.enumerate("vkEnumerateDeviceExtensionProperties", "VkExtensionProperties", handle, api.ffi.NULL)
    )
    vulkan11 = api.new("VkPhysicalDeviceVulkan11Properties")
    vulkan12 = api.new("VkPhysicalDeviceVulkan12Properties", pNext=vulkan11)
    sizes = api.new("VkPhysicalDeviceSubgroupSizeControlProperties")
    asked = api.new("VkPhysicalDeviceSubgroupSizeControlFeatures")
    if SUBGROUP_SIZES in extensions:
        vulkan11.pNext = sizes
        api.lib.vkGetPhysicalDeviceFeatures2(handle, api.new("VkPhysicalDeviceFeatures2", pNext=asked))
    limits = _properties(api, handle, vulkan12)
    features = _features(api, handle)
    features |= {name for name, member in PROPERTY_FEATURES if getattr(vulkan12, member)}
    features |= {name for name, needed in SUBGROUP_FEATURES if _has_in_subgroups(api, vulkan11, needed)}
    features.add("packed_words")  # integers of 32 bits are all it takes
    features |= DRIVER_FEATURES.get(vulkan12.driverID, frozenset())
    features |= {name for extension, name in EXTENSION_FEATURES.items() if extension in extensions}
    if asked.subgroupSizeControl and sizes.requiredSubgroupSizeStages & api.constant("VK_SHADER_STAGE_COMPUTE_BIT"):
        features.add("subgroup_size_choice")
    if MATRICES in extensions and "memory_model" in features and asked.computeFullSubgroups:  # which matrices need before SPIR-V 1.6
        names = _components(api, BFLOAT16 in extensions and bfloat16_matrices(api, handle))
        features |= _matrix_features(instance, handle, names)
        if FLEXIBLE_MATRICES in extensions:
            features |= _flexible_features(instance, handle, names, grouped=version >= NEWEST_VERSION)
            features |= matrix_operations(api, handle) if version >= NEWEST_VERSION else set()  # their shaders are for that version
    imports_pages = HOST_POINTERS in extensions and page_bytes(instance, handle) > 0
    if imports_pages:
        features.add("external_memory_host")
    queue_family = _compute_queue(api, handle)
    lacking = [feature for feature in REQUIRED if feature not in features]
    if queue_family is None or lacking:
        return Unfit(name=name, reason=f"it has no {', '.join(lacking) or 'compute queue'}")
    kind = limits.properties.deviceType
    software = kind == api.constant("VK_PHYSICAL_DEVICE_TYPE_CPU")
    shares = software or kind == api.constant("VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU")
    lowest, highest = sizes.minSubgroupSize or vulkan11.subgroupSize, sizes.maxSubgroupSize or vulkan11.subgroupSize
    device = limits.properties.limits
    chip = chip_of_pci(limits.properties.vendorID, limits.properties.deviceID)
    spec = DeviceSpec(
        name=name,
        kind="gpu",
        features=frozenset(features),
        subgroup_sizes=tuple(size for size in (1 << bit for bit in range(8)) if lowest <= size <= highest),
        shared_bytes=device.maxComputeSharedMemorySize,
        max_group_lanes=device.maxComputeWorkGroupInvocations,
        max_push_bytes=device.maxPushConstantsSize,
        cores=chip.cores if chip else None,
        l2_bytes=chip.l2_bytes if chip else None,
        l3_bytes=chip.l3_bytes if chip else None,
        memory_bytes=available_bytes(api, handle, frozenset()),  # all of it: a spec is part of cache keys
        software=software,
        max_loop_iterations=LLVMPIPE_ITERATIONS if "llvmpipe" in name.lower() else None,
    )
    return PhysicalDevice(
        handle=handle,
        spec=spec,
        description=f"{spec.name} ({api.text(vulkan12.driverName)} {api.text(vulkan12.driverInfo)})",
        queue_family=queue_family,
        shares_memory=shares,
        imports_pages=imports_pages,
        extensions=extensions,
        max_groups=tuple(device.maxComputeWorkGroupCount),
        max_local=tuple(device.maxComputeWorkGroupSize),
        nanoseconds_per_tick=device.timestampPeriod if device.timestampComputeAndGraphics else 0.0,
    )


def feature_chain(api: Api) -> list[Any]:
    """The structs of FEATURE_STRUCTS, linked, for a query or for device creation."""
    structs = [api.new(name) for name in FEATURE_STRUCTS]
    for before, after in pairwise(structs):
        before.pNext = after
    api.keep[structs[0]] = tuple(structs)
    return structs


def feature_holder(structs: list[Any], position: int) -> Any:
    """The struct whose members FEATURES names: the core features sit one level down."""
    return structs[0].features if position == 0 else structs[position]


def available_bytes(api: Api, handle: Any, extensions: frozenset[str]) -> int:
    """Bytes of the largest device-local heap that are still free (its size where the driver keeps no budget)."""
    budget = api.new("VkPhysicalDeviceMemoryBudgetPropertiesEXT")
    has_budget = "VK_EXT_memory_budget" in extensions
    memory = api.new("VkPhysicalDeviceMemoryProperties2", **({"pNext": budget} if has_budget else {}))
    api.lib.vkGetPhysicalDeviceMemoryProperties2(handle, memory)
    heaps = memory.memoryProperties
    local = api.constant("VK_MEMORY_HEAP_DEVICE_LOCAL_BIT")
    free = [
        max(0, budget.heapBudget[i] - budget.heapUsage[i]) if has_budget else heaps.memoryHeaps[i].size
        for i in range(heaps.memoryHeapCount)
        if heaps.memoryHeaps[i].flags & local
    ]
    return max(free, default=0)


def _properties(api: Api, handle: Any, chain: Any = None) -> Any:
    properties = api.new("VkPhysicalDeviceProperties2", **({"pNext": chain} if chain is not None else {}))
    api.lib.vkGetPhysicalDeviceProperties2(handle, properties)
    return properties


def _features(api: Api, handle: Any) -> set[str]:
    structs = feature_chain(api)
    api.lib.vkGetPhysicalDeviceFeatures2(handle, structs[0])
    return {name for name, position, member in FEATURES if getattr(feature_holder(structs, position), member)}


def _has_in_subgroups(api: Api, properties: Any, names: tuple[str, ...]) -> bool:
    """Whether compute shaders have these operations of subgroups."""
    needed = sum(api.constant(f"VK_SUBGROUP_FEATURE_{name}_BIT") for name in names)
    in_compute = properties.subgroupSupportedStages & api.constant("VK_SHADER_STAGE_COMPUTE_BIT")
    return bool(in_compute) and properties.subgroupSupportedOperations & needed == needed


def _matrix_features(instance: Instance, handle: Any, names: Mapping[int, DType]) -> set[str]:
    """The features of matrix instructions (`devices.intrinsics`) that subgroups have."""
    api = instance.api
    query = instance.function("vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR")
    count = api.ffi.new("uint32_t *")
    query(handle, count, api.ffi.NULL)
    shapes = api.ffi.new("VkCooperativeMatrixPropertiesKHR[]", max(1, count[0]))
    for position in range(count[0]):
        shapes[position].sType = api.constant("VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR")
    query(handle, count, shapes)
    found = {
        (s.MSize, s.NSize, s.KSize, *(names.get(kind) for kind in (s.AType, s.BType, s.CType, s.ResultType)))
        for s in (shapes[position] for position in range(count[0]))
        if s.scope == api.constant("VK_SCOPE_SUBGROUP_KHR")
    }
    rows = [row for row in INTRINSICS.values() if row.feature.startswith("cooperative_matrix") and not row.flexible]
    missing = {row.feature for row in rows if (row.m, row.n, row.k, row.a, row.b, row.acc, row.acc) not in found}
    return {row.feature for row in rows} - missing


def _components(api: Api, bfloat16: bool) -> dict[int, DType]:
    """Numbers of the component types."""
    numbers = {api.constant(f"VK_COMPONENT_TYPE_{name}_KHR"): dtype for name, dtype in COMPONENTS.items()}
    return numbers | ({BFLOAT16_COMPONENT: BF16} if bfloat16 else {})


def _flexible_features(instance: Instance, handle: Any, names: Mapping[int, DType], *, grouped: bool) -> set[str]:
    """The features of matrix instructions whose extents are multiples of what subgroups, or workgroups of `GROUPED_LANES`, take."""
    found = [(s.granularity, tuple(names.get(kind) for kind in s.types), s.lanes) for s in flexible_shapes(instance, handle)]
    rows = (r for r in INTRINSICS.values() if r.feature.startswith("cooperative_matrix") and r.flexible and (grouped or not r.grouped))
    return {
        row.feature
        for row in rows
        for (m, n, k), types, lanes in found
        if types == (row.a, row.b, row.acc, row.acc) and lanes == (GROUPED_LANES if row.grouped else 0) and not (row.m % m or row.n % n or row.k % k)
    }


def _compute_queue(api: Api, handle: Any) -> int | None:
    count = api.ffi.new("uint32_t *")
    api.lib.vkGetPhysicalDeviceQueueFamilyProperties(handle, count, api.ffi.NULL)
    families = api.ffi.new("VkQueueFamilyProperties[]", max(1, count[0]))
    api.lib.vkGetPhysicalDeviceQueueFamilyProperties(handle, count, families)
    compute = api.constant("VK_QUEUE_COMPUTE_BIT")
    return next((i for i in range(count[0]) if families[i].queueFlags & compute), None)
