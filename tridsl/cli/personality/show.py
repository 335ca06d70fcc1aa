"""`tridsl personality show`: what is known about this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tridsl.api.devices import find
from tridsl.backend import Device
from tridsl.cli.evidence import (
    LABELS,
    add_row,
    count,
    key_data,
    open_store,
    report,
    short,
    skipped_data,
    table,
    winner_data,
)
from tridsl.cli.output import Report
from tridsl.cli.personality.places import Place, places
from tridsl.cli.settings import Settings
from tridsl.personality.belief import duration
from tridsl.personality.fingerprint import LEVELS, Fingerprint
from tridsl.personality.keys import here
from tridsl.program.realise import default_threads


def show(settings: Settings, *, everything: bool = False) -> Report:
    """Subjects, this machine's fingerprint, and the store. `everything`: also subjects whose evidence says nothing here."""
    store, notes = open_store(settings)
    found = places(store, settings)
    shown = tuple(p for p in found if everything or p.speaks)
    machines = _machines(found, settings)
    skipped = store.skipped()
    lines = skipped_data(skipped)
    data = {
        "folder": str(store.folder), "exists": store.folder.exists(), "subjects": [_data(p) for p in shown], "hidden": len(found) - len(shown),
        "machine": {name: _fingerprint(f) for name, f in machines.items()}, "skipped": lines,
    }  # fmt: skip
    return report(data, _text(str(store.folder), found, shown, machines, lines), notes)


def _machines(found: tuple[Place, ...], settings: Settings) -> dict[str, Fingerprint]:
    """The CPU's fingerprint, and that of every device that has evidence and is here."""
    present: dict[str, Device] = {device.name: device for device in (find("cpu").device, *(p.device for p in found if p.device is not None))}
    return {name: here(device, settings.threads or default_threads(float("inf"))) for name, device in present.items()}


def _fingerprint(found: Fingerprint) -> dict[str, Any]:
    hashes = found.hashes
    return {level: {"hash": getattr(hashes, level, None), "facts": dict(getattr(found, level))} for level in LEVELS}


def _data(place: Place) -> dict[str, Any]:
    found = place.found
    return {
        **key_data(place.key), "sizes": dict(place.sizes), "threads": place.threads, "present": place.device is not None,
        "served": None if found is None else found.served, "winner": None if found is None else winner_data(found),
        "trials": len(place.trials), "counting": None if found is None else found.ranking.trials,
        "quarantined": None if found is None else len(found.ranking.quarantined),
    }  # fmt: skip


def _text(
    folder: str, found: tuple[Place, ...], shown: tuple[Place, ...], machines: dict[str, Fingerprint], skipped: list[dict[str, Any]]
) -> Iterator[Any]:  # fmt: skip
    yield f"evidence in {folder}"
    if shown:
        yield ""
        yield _table(shown)
    else:
        yield "nothing is known about this machine yet; `tridsl tune stdlib --device cpu` measures the library"
    if len(found) > len(shown):
        yield f"\n{count(len(found) - len(shown), 'subject')} more whose evidence says nothing about this machine: --all shows them"
    for name, fingerprint in machines.items():
        yield f"\n{name}, by level:\n" + "\n".join(f"  {line}" for line in fingerprint.text.split("\n"))
    if skipped:
        faults = Counter(line["fault"] for line in skipped)
        kinds = ", ".join(f"{number} {fault}" for fault, number in sorted(faults.items()))
        yield f"\n{count(len(skipped), 'line')} skipped ({kinds}): `tridsl personality verify` lists them"


def _table(shown: tuple[Place, ...]) -> Any:
    made = table("subject", "threads", "winner", "", "median", "", "status", "trials", "quarantined", fixed=("winner", "median", "status"))
    for place in shown:
        threads, trials = str(place.threads or ""), str(len(place.trials))
        found = place.found
        won = found.ranking.winner if found is not None else None
        if found is None or won is None:
            status = "device not here" if found is None else "nothing good" if place.speaks else "from elsewhere"
            add_row(made, place.key.text, threads, "", "", "", "", status, trials, "" if found is None else str(len(found.ranking.quarantined)))
            continue
        standing = found.standing
        time = ("", "") if won.seconds is None or standing is None else (duration(won.seconds), LABELS[standing.status])
        add_row(
            made, place.key.text, threads, short(won.candidate), won.candidate.text, *time, won.status, trials, str(len(found.ranking.quarantined))
        )
    return made
