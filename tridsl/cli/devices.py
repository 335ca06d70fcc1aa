"""`tridsl devices`: what is here, and why the rest is not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from tridsl.backend import Device, backend_names, load_backend
from tridsl.cli.output import Report
from tridsl.diagnostics import TriError

KINDS = ("cpu", "gpu", "npu")
"""Kinds of processors that devices are listed for, in this order."""


def devices() -> Report:
    """Every device, and for each kind without one the reason."""
    present, absent = find()
    table = Table("device", "kind", "description", "facts", box=None, pad_edge=False)
    for device in present:
        table.add_row(str(device), device.spec.kind, device.description, facts(device))
    for row in absent:
        table.add_row(row["kind"], row["kind"], "absent", f"{row['reason']}; {row['fix']}" if row["fix"] else row["reason"])
    found = [
        {"device": str(d), "kind": d.spec.kind, "backend": d.backend, "description": d.description, "software": d.spec.software, "facts": _values(d)}
        for d in present
    ]
    return Report(data={"devices": found, "absent": absent}, text=(table,))


def find() -> tuple[tuple[Device, ...], list[dict[str, str]]]:
    """Devices of every backend, and (kind, backend, reason, fix) for each that has none."""
    present: list[Device] = []
    absent: list[dict[str, str]] = []
    kinds = set()
    for name in backend_names():
        backend = load_backend(name)
        kinds.add(backend.kind)
        if backend.kind not in KINDS:
            continue
        try:
            present += backend.driver().devices()
        except TriError as problem:
            first = problem.diagnostics[0]
            absent.append({"kind": backend.kind, "backend": name, "reason": first.message, "fix": first.help})
    for kind in KINDS:
        if kind not in kinds:
            absent.append({"kind": kind, "backend": "", "reason": f"tridsl has no {kind.upper()} backend yet", "fix": ""})
    return tuple(sorted(present, key=lambda d: KINDS.index(d.spec.kind))), absent


def facts(device: Device) -> str:
    """The facts that matter to a person, on one line."""
    spec = device.spec
    parts = [
        f"{spec.vector_bits}-bit vectors" if spec.vector_bits else "",
        f"{spec.cores} cores" if spec.cores else "",
        f"subgroups of {', '.join(map(str, spec.subgroup_sizes))}" if spec.subgroup_sizes else "",
        f"{spec.shared_bytes >> 10} KiB shared" if spec.shared_bytes else "",
        f"{spec.memory_bytes / 2**30:.1f} GiB" if spec.memory_bytes else "",
        "imports host memory" if "external_memory_host" in spec.features else "",
        "software: used only when named" if spec.software else "",
    ]
    return ", ".join(part for part in parts if part)


def _values(device: Device) -> dict[str, Any]:
    """The facts that are known; features sorted."""
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(device.spec).items() if value not in (None, "", ())}
