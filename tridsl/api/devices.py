"""Device names to devices. Nothing here knows a backend by name: they say themselves which devices they have."""

from __future__ import annotations

from functools import cache

from tridsl.backend import Backend, BackendUnavailable, Device, Plays, backend_names, load_backend
from tridsl.diagnostics import Diagnostic, TriError, error
from tridsl.program.realise import Target

DEFAULT_DEVICE = "cpu"
"""What `device="auto"` means while no tuner has evidence."""


def devices() -> tuple[Device, ...]:
    """The processors that are here, each with `str(device)` as the name that `device=` takes. Backends whose driver is
    missing are left out; `tridsl doctor` says what they lack."""
    found: list[Device] = []
    for name in backend_names():
        try:
            found += load_backend(name).driver().devices()
        except TriError:
            continue
    order = {"cpu": 0, "gpu": 1, "npu": 2}
    return tuple(sorted((d for d in found if d.spec.kind != "reference"), key=lambda d: order.get(d.spec.kind, 3)))


@cache
def find(name: str) -> Target:
    """The device that users call `name`. Software GPUs and simulated NPUs are found only by their full name.

    Raises E0703 for a name that no backend has, and what the backend says (BackendUnavailable) when it has no driver.
    """
    wanted = DEFAULT_DEVICE if name == "auto" else name
    kind = wanted.partition(":")[0]
    missing: list[Diagnostic] = []
    software: list[str] = []
    for backend in _candidates(kind):
        driver = backend.driver()
        played = driver.played(wanted) if isinstance(driver, Plays) else None
        if played is not None:
            return Target(backend=backend, device=played)
        try:
            present = driver.devices()
        except BackendUnavailable as problem:
            missing += problem.diagnostics
            continue
        for device in present:
            if device.name == wanted or (wanted == kind and device.spec.kind == kind and not device.spec.software):
                return Target(backend=backend, device=device)
            if wanted == kind and device.spec.kind == kind:
                software.append(device.name)
    if software:
        raise error(
            "E0703",
            f"`{name}` needs hardware, but only a software device is here",
            help=f'ask for it by name: device="{software[0]}"',
        )
    if missing:
        raise TriError(*missing)
    known = ", ".join(["auto", *(str(d) for d in devices())])
    raise error("E0703", f"there is no device `{name}`", help=f"devices here: {known}")


def _candidates(kind: str) -> tuple[Backend, ...]:
    """Backends that may have devices of `kind`: the one of that name alone if there is one, so that no other is looked for."""
    try:
        named = load_backend(kind)
    except TriError:
        return tuple(backend for name in backend_names() if (backend := load_backend(name)).kind == kind)
    return (named,)
