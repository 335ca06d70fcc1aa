"""Every subject that the store has evidence of, judged where it would be used: on its device here, at a number of threads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from tridsl.api.devices import find
from tridsl.backend import HOST_KINDS, Device
from tridsl.cli.evidence import Known, known
from tridsl.cli.settings import Settings
from tridsl.diagnostics import TriError
from tridsl.personality.evidence import Key, Trial
from tridsl.personality.fingerprint import Fingerprint, Hashes, compare_hashes
from tridsl.personality.keys import here
from tridsl.personality.store import Store
from tridsl.program.realise import default_threads
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A subject on a device with a number of threads (None: the device's own). `found` None: the device is not here."""

    key: Key
    device: Device | None
    threads: int | None
    trials: tuple[Trial, ...]
    found: Known | None

    @property
    def speaks(self) -> bool:
        """Whether the evidence says anything about this machine."""
        return self.found is not None and (self.found.ranking.winner is not None or bool(self.found.ranking.quarantined))

    @property
    def sizes(self) -> Mapping[str, int]:
        """The exact sizes of the latest trial; none are known of a pin without trials."""
        latest = max(self.trials, key=lambda t: (t.time, t.id), default=None)
        return dict(latest.sizes) if latest is not None else {}


def places(store: Store, settings: Settings) -> tuple[Place, ...]:
    """By the subjects' texts. What was measured here with one thread is judged for one thread, and so on; what was only
    measured elsewhere is judged for the threads that a call would use."""
    groups: dict[str, list[Key]] = {}
    for key in store.subjects():
        groups.setdefault(key.subject, []).append(key)
    machines = store.machines()
    found = [place for keys in groups.values() for place in _places(store, keys, machines, settings)]
    return tuple(sorted(found, key=lambda p: (p.key.text, p.key.subject, p.threads or 0)))


def _places(store: Store, keys: list[Key], machines: Mapping[Hashes, Fingerprint], settings: Settings) -> Iterator[Place]:
    first, trials = keys[0], store.trials(keys[0])
    device = next((d for d in map(_device, dict.fromkeys(key.device for key in keys)) if d is not None), None)
    if device is None:
        yield Place(key=first, device=None, threads=None, trials=trials, found=None)
        return
    for threads in _teams(device, keys, trials, machines, settings):
        key = msgspec.structs.replace(first, device=device.name, fingerprint=here(device, threads or 1).hashes)
        yield Place(key=key, device=device, threads=threads, trials=trials, found=known(store, key))


def _device(name: str) -> Device | None:
    try:
        return find(name).device
    except TriError:
        return None


def _teams(
    device: Device, keys: list[Key], trials: tuple[Trial, ...], machines: Mapping[Hashes, Fingerprint], settings: Settings
) -> tuple[int | None, ...]:  # fmt: skip
    """Numbers of threads that this very unit was measured with, else the usual one."""
    if device.spec.kind not in HOST_KINDS:
        return (None,)
    usual = settings.threads or default_threads(math.prod(size for _, size in trials[-1].sizes) if trials else 1)
    unit = here(device, usual).hashes
    own = {key.fingerprint for key in keys if compare_hashes(key.fingerprint, unit) in (None, "software")}
    told = {dict(machines[at].software).get("threads", "") if at in machines else str(usual) for at in own}
    return tuple(sorted(int(text) for text in told if text.isdigit() and int(text) > 0)) or (usual,)
