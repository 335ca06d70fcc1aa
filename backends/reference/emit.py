"""The "code" of the reference backend: the printed kernel to read, and its JSON to run."""

from __future__ import annotations

from tridsl.backend import Code, Signature
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Tensor
from tridsl.ir.printer import print_kernel
from tridsl.ir.serial import to_json


def accepts(kernel: Kernel, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """Everything but tensors in a packed layout, which only compiled code reads."""
    return tuple(
        Diagnostic(
            code="E0710",
            message=f"the reference device cannot read `{p.name}` in layout {p.layout}",
            span=p.span,
            help="pass it unpacked, or run on the CPU",
        )
        for p in kernel.params
        if isinstance(p, Tensor) and p.layout != "row"
    )


def emit(kernel: Kernel, spec: DeviceSpec) -> Code:
    """`text` is for people; the fact `kernel` is what `build` takes."""
    return Code(
        entry=kernel.name,
        text=print_kernel(kernel),
        extension="txt",
        signature=Signature(params=kernel.params, sizes=kernel.sizes, messages=kernel.messages),
        facts=(("kernel", to_json(kernel).decode()),),
    )
