"""The Vulkan C API through cffi: declarations of the `vulkan` package, our own library handle.

Only the package's parsed C declarations (`vulkan._vulkancache.ffi`) are used. Its Python wrappers are left aside: they
return arrays where one handle is meant, hide promoted entry points behind extension names, and their
`vkGetBufferDeviceAddress` fails; raw calls through cffi have none of that and release the GIL.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tridsl.backend import BackendUnavailable
from tridsl.diagnostics import Diagnostic

LOADERS = ("libvulkan.so.1", "libvulkan.so", "libvulkan.1.dylib", "vulkan-1.dll")
"""Names of the Vulkan loader, in the order in which they are tried."""

DECLARATIONS = "vulkan._vulkancache"
"""The module that holds the C declarations as a cffi `FFI`."""


class VulkanError(RuntimeError):
    """A Vulkan function returned an error; `result` is the `VkResult` and `name` its C name."""

    def __init__(self, result: int, name: str, function: str) -> None:
        super().__init__(f"{function} returned {name} ({result})")
        self.result = result
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """`ffi` declares, `lib` is the loader. `keep` holds what a C struct points to for as long as the struct lives."""

    ffi: Any
    lib: Any
    keep: weakref.WeakKeyDictionary[Any, tuple[Any, ...]] = field(default_factory=weakref.WeakKeyDictionary)

    def new(self, type_name: str, **values: Any) -> Any:
        """A zeroed struct with its `sType` set. Tuples become C arrays, bytes C strings, structs behind pointers stay alive."""
        struct = self.ffi.new(f"{type_name} *")
        members = dict(self.ffi.typeof(type_name).fields)
        if "sType" in members and "sType" not in values:
            struct.sType = getattr(self.lib, structure_type(type_name))
        kept = []
        for name, value in values.items():
            converted = self._convert(members[name].type, value)
            kept.append((value, converted))
            setattr(struct, name, converted)
        self.keep[struct] = tuple(kept)
        return struct

    def _convert(self, member: Any, value: Any) -> Any:
        if member.kind != "pointer":
            return value[0] if self._is_pointer(value) and member.kind in ("struct", "union") else value
        if isinstance(value, bytes):
            return self.ffi.new("char[]", value)
        if isinstance(value, (tuple, list)):
            items = [self.ffi.new("char[]", item) if isinstance(item, bytes) else item for item in value]
            array = self.ffi.new(
                f"{member.item.cname}[]", [item[0] if self._is_struct(item) else item for item in items]
            )
            self.keep[array] = tuple(items)
            return array
        return value

    def _is_pointer(self, value: Any) -> bool:
        return isinstance(value, self.ffi.CData) and self.ffi.typeof(value).kind == "pointer"

    def _is_struct(self, value: Any) -> bool:
        """A pointer to a real struct; handles point to opaque ones, which Vulkan names `…_T`."""
        if not self._is_pointer(value):
            return False
        item = self.ffi.typeof(value).item
        return item.kind == "struct" and not item.cname.endswith("_T")

    def constant(self, name: str) -> int:
        return int(getattr(self.lib, name))

    def check(self, function: str, *arguments: Any, allow: Sequence[str] = ()) -> int:
        """Call `function`; a result that is neither `VK_SUCCESS` nor named in `allow` raises VulkanError."""
        result = int(getattr(self.lib, function)(*arguments))
        if result != 0 and result not in [self.constant(name) for name in allow]:
            raise VulkanError(result, str(self.ffi.string(self.ffi.cast("VkResult", result))), function)
        return result

    def create(self, function: str, handle: str, *arguments: Any) -> Any:
        """The handle that `function(*arguments, &handle)` makes."""
        out = self.ffi.new(f"{handle} *")
        self.check(function, *arguments, out)
        return out[0]

    def enumerate(self, function: str, item: str, *arguments: Any) -> list[Any]:
        """All items of one of Vulkan's "count, then array" functions."""
        count = self.ffi.new("uint32_t *")
        call = getattr(self.lib, function)
        call(*arguments, count, self.ffi.NULL)
        array = self.ffi.new(f"{item}[]", max(1, count[0]))
        call(*arguments, count, array)
        items = [array[position] for position in range(count[0])]
        if items and self.ffi.typeof(items[0]).kind == "struct":
            for struct in items:  # a struct inside an array does not own the array
                self.keep[struct] = (array,)
        return items

    def text(self, characters: Any) -> str:
        return str(self.ffi.string(characters).decode("utf-8", "replace")) if characters else ""


def structure_type(type_name: str) -> str:
    """`VkBufferCreateInfo` → `VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO`, as the Vulkan registry spells them."""
    body, vendor = re.fullmatch(r"Vk(.*?)(KHR|EXT|NV)?", type_name).groups()  # type: ignore[union-attr]  # every such name matches
    words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[0-9])(?=[A-Z])", "_", body)
    words = re.sub(r"(?<=VULKAN_)(1)(\d)", r"\1_\2", words.upper())
    return f"VK_STRUCTURE_TYPE_{words}" + (f"_{vendor}" if vendor else "")


def open_api(loaders: Sequence[str] = LOADERS, declarations: str = DECLARATIONS) -> Api:
    """The API, or BackendUnavailable (E0701) that says which part is missing and what to install."""
    import importlib  # the declarations are an optional extra (`tridsl[vulkan]`) and cost 15 ms

    try:
        ffi = importlib.import_module(declarations).ffi
    except ImportError as problem:
        raise _missing(
            f"the Python package `vulkan` cannot be imported ({problem})", "pip install 'tridsl[vulkan]'"
        ) from None
    except OSError as problem:  # the package itself opens the loader
        raise _no_loader(str(problem)) from None
    problems = []
    for name in loaders:
        try:
            return Api(ffi=ffi, lib=ffi.dlopen(name))
        except OSError as problem:
            problems.append(str(problem))
    raise _no_loader("; ".join(problems))


def _no_loader(problem: str) -> BackendUnavailable:
    return _missing(
        f"the Vulkan loader was not found ({problem})",
        "apt-get install libvulkan1 (Windows: the graphics driver brings it)",
    )


def _missing(message: str, install: str) -> BackendUnavailable:
    return BackendUnavailable(Diagnostic(code="E0701", message=f"vulkan: {message}", help=f"install it: {install}"))
