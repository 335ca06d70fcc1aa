"""The Vulkan instance: what is here, and what the validation layer says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tridsl.backend import BackendUnavailable
from tridsl.backends.vulkan.api import Api, VulkanError
from tridsl.diagnostics import Diagnostic

API_VERSION = 1 << 22 | 2 << 12
"""Vulkan 1.2: buffer device addresses, timeline semaphores and scalar block layout are core there."""

NEWEST_VERSION = 1 << 22 | 3 << 12
"""Vulkan 1.3, the newest that is used where a device has it: its SPIR-V for matrices of workgroups."""

VALIDATION_LAYER = b"VK_LAYER_KHRONOS_validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """`messages` grows as the validation layer speaks (warnings and errors). `anchors` keep C callbacks alive."""

    api: Api
    handle: Any
    messages: list[str] = field(default_factory=list)
    anchors: tuple[Any, ...] = ()

    def physical_devices(self) -> list[Any]:
        return self.api.enumerate("vkEnumeratePhysicalDevices", "VkPhysicalDevice", self.handle)

    def address(self, name: str) -> Any:
        """An extension's entry point."""
        return self.api.lib.vkGetInstanceProcAddr(self.handle, name.encode())

    def function(self, name: str) -> Any:
        """The same, typed."""
        return self.api.ffi.cast(f"PFN_{name}", self.address(name))


def open_instance(api: Api, validation: bool) -> Instance:
    """A Vulkan instance; BackendUnavailable E0704 without a driver, E0701 where validation is asked for and not installed."""
    application = api.new(
        "VkApplicationInfo", pApplicationName=b"tridsl", pEngineName=b"tridsl", apiVersion=NEWEST_VERSION
    )
    messages: list[str] = []
    layers: tuple[bytes, ...] = ()
    extensions: tuple[bytes, ...] = ()
    chain, callback = api.ffi.NULL, None
    if validation:
        present = [
            api.text(layer.layerName)
            for layer in api.enumerate("vkEnumerateInstanceLayerProperties", "VkLayerProperties")
        ]
        if VALIDATION_LAYER.decode() not in present:
            raise BackendUnavailable(
                Diagnostic(
                    code="E0701",
                    message="vulkan: validation was asked for, but Khronos' validation layer is not installed",
                    help="install it: apt-get install vulkan-validationlayers",
                )
            )
        layers, extensions = (VALIDATION_LAYER,), (b"VK_EXT_debug_utils",)
        callback = _message_callback(api, messages)
        chain = _messenger(api, callback)
    create = api.new(
        "VkInstanceCreateInfo",
        pNext=chain,
        pApplicationInfo=application,
        enabledLayerCount=len(layers),
        ppEnabledLayerNames=layers,
        enabledExtensionCount=len(extensions),
        ppEnabledExtensionNames=extensions,
    )
    try:
        handle = api.create("vkCreateInstance", "VkInstance", create, api.ffi.NULL)
    except VulkanError as problem:
        raise no_driver(str(problem)) from None
    instance = Instance(api=api, handle=handle, messages=messages, anchors=(callback, chain))
    if validation:
        out = api.ffi.new("VkDebugUtilsMessengerEXT *")
        instance.function("vkCreateDebugUtilsMessengerEXT")(handle, chain, api.ffi.NULL, out)
    return instance


def no_driver(problem: str) -> BackendUnavailable:
    return BackendUnavailable(
        Diagnostic(
            code="E0704",
            message=f"vulkan: the loader is here, but it finds no usable Vulkan 1.2 driver ({problem})",
            help="install or update one: the GPU maker's driver, or apt-get install mesa-vulkan-drivers (has a software device, too)",
        )
    )


def _messenger(api: Api, callback: Any) -> Any:
    severity = ("WARNING", "ERROR")
    return api.new(
        "VkDebugUtilsMessengerCreateInfoEXT",
        messageSeverity=sum(api.constant(f"VK_DEBUG_UTILS_MESSAGE_SEVERITY_{name}_BIT_EXT") for name in severity),
        messageType=api.constant("VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT"),
        pfnUserCallback=callback,
    )


def _message_callback(api: Api, messages: list[str]) -> Any:
    def receive(severity: int, kinds: int, data: Any, user: Any) -> int:
        messages.append(api.text(data.pMessage))
        return 0

    return api.ffi.callback("PFN_vkDebugUtilsMessengerCallbackEXT", receive)
