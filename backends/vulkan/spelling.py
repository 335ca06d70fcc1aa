"""What a device has counts where the GLSL compiler has words for it: drivers are often newer (Debian 12's glslc knows no cooperative matrices)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tridsl.backend import BackendUnavailable
from tridsl.backends.vulkan.build import find_compiler
from tridsl.backends.vulkan.emit_matrix import TENSORS, matrix_extensions
from tridsl.backends.vulkan.newer import OPERATIONS
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.structs import replace


def spelled(spec: DeviceSpec, knows: Callable[[str], bool] | None = None) -> DeviceSpec:
    """`spec` without the matrix instructions, and what else is done with fragments, that the compiler cannot take. `knows` an extension or not; None asks the compiler that is here."""
    rows = [row for row in INTRINSICS.values() if row.feature.startswith("cooperative_matrix") and row.feature in spec.features]
    words = {row.feature: (*matrix_extensions(row.a), *([TENSORS] if row.grouped else [])) for row in rows}
    words |= {name: (TENSORS,) for name, _ in OPERATIONS if name in spec.features}
    unknown = {feature for feature, extensions in words.items() if not all((knows or compiler_knows)(e) for e in extensions)}
    return replace(spec, features=spec.features - unknown) if unknown else spec


@cache
def compiler_knows(extension: str) -> bool:
    """Whether a shader may require it. Without a compiler nothing is known to be missing: who compiles says that there is none."""
    try:
        find_compiler()(f"#version 460\n#extension {extension} : require\nlayout(local_size_x = 1) in;\nvoid main() {{}}\n")
    except BackendUnavailable:
        return True
    except RuntimeError:
        return False
    return True
