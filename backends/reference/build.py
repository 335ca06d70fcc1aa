"""The "machine code" of the reference backend is the kernel as JSON (`ir.serial`)."""

from __future__ import annotations

from tridsl.backend import Binary, Code
from tridsl.devices.spec import DeviceSpec


def build(code: Code, spec: DeviceSpec) -> Binary:
    kernel = str(dict(code.facts)["kernel"])
    return Binary(backend="reference", entry=code.entry, blob=kernel.encode(), signature=code.signature)
