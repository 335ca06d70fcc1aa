"""The key of a measurement, made in one place: who measures and who asks for the winner must mean the same."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.backend import HOST_KINDS, Device
from tridsl.ir.op import Op
from tridsl.personality import fingerprint
from tridsl.personality.evidence import Key
from tridsl.personality.fingerprint import Fingerprint
from tridsl.schedule import shapes


def key_of(op: Op, kernel: str, sizes: Mapping[str, int], device: Device, threads: int, layouts: Mapping[str, str] | None = None) -> Key:
    """`op`: with its leading axes; its stages are not looked at. `kernel`: `evidence.meaning` of it with every `const` parameter in
    place. `layouts`: by tensor, of those that are not row-major. `threads`: of the host, that the kernel may use; other devices have
    their own."""
    tensors = op.tensors
    return Key(
        kernel=kernel, op=op.name, bucket=shapes.bucket({n: sizes[n] for n in op.sizes}, op.dynamic), device=device.name,
        fingerprint=here(device, threads).hashes,
        dtypes=tuple((t.name, t.dtype.name) for t in tensors),
        layouts=tuple(sorted((name, layout) for name, layout in (layouts or {}).items() if layout != "row")),
    )  # fmt: skip


def here(device: Device, threads: int) -> Fingerprint:
    """Where a kernel on `threads` of the host, or on a device with its own, is measured."""
    return fingerprint.here(device, threads=threads if device.spec.kind in HOST_KINDS else None)
