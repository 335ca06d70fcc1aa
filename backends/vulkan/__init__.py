"""GPUs through Vulkan 1.2: kernels as GLSL compute shaders, compiled by shaderc, run by the driver of the machine."""

from tridsl.backend import Backend
from tridsl.backends.vulkan.accepts import accepts
from tridsl.backends.vulkan.build import build
from tridsl.backends.vulkan.driver import process_driver
from tridsl.backends.vulkan.emit import emit
from tridsl.backends.vulkan.lower import LOWER

BACKEND = Backend(
    name="vulkan",
    version="4",
    kind="gpu",
    lower=LOWER,
    accepts=accepts,
    emit=emit,
    build=build,
    build_with=build,
    driver=process_driver,
)
