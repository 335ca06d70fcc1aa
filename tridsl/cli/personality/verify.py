"""`tridsl personality verify`: whether the evidence is sound, and what should be measured again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tridsl.cli.evidence import count, key_data, open_store, report, skipped_data, winner_data
from tridsl.cli.output import OK, USER, Report
from tridsl.cli.personality.commands import command_of
from tridsl.cli.personality.places import Place, places
from tridsl.cli.settings import Settings
from tridsl.cli.targets import services_for
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    """A winner that was not measured under this software. `exact`: the command is known to measure this subject."""

    place: Place
    command: str
    exact: bool


def verify(settings: Settings) -> Report:
    """Reads every journal again. Status 1 when lines do not count or something cannot be read."""
    store, notes = open_store(settings)
    services = services_for(settings)
    records = sum(1 for _ in store.records())
    doubts = [_Doubt(place=p, command=c, exact=e) for p in places(store, settings) if _doubtful(p) for c, e in [command_of(p, services, settings)]]
    skipped = skipped_data(store.skipped())
    sound = not skipped and not notes
    data = {
        "folder": str(store.folder), "sound": sound, "records": records, "skipped": skipped,
        "to_verify": [_data(d) for d in doubts],
    }  # fmt: skip
    rest = [note for note in notes if note.code != "E0901"]  # the lines are listed in full
    made = report(data, _text(records, skipped, doubts, sound), rest, OK if sound else USER)
    return made


def _doubtful(place: Place) -> bool:
    won = place.found.ranking.winner if place.found is not None else None
    return won is not None and won.status in ("suspect", "prior")


def _data(doubt: _Doubt) -> dict[str, Any]:
    assert doubt.place.found is not None
    return {
        **key_data(doubt.place.key), "threads": doubt.place.threads, "winner": winner_data(doubt.place.found), "command": doubt.command,
        "exact": doubt.exact,
    }  # fmt: skip


def _text(records: int, skipped: list[dict[str, Any]], doubts: list[_Doubt], sound: bool) -> Iterator[str]:
    yield f"{count(records, 'record')} read, {count(len(skipped), 'line')} skipped"
    for line in skipped:
        yield f"  {line['file']}: byte {line['offset']}: {line['fault']}: {line['why']}"
    if skipped:
        yield "skipped lines stay where they are and do not count; everything else does"
    for doubt in doubts:
        found = doubt.place.found
        assert found is not None and found.ranking.winner is not None
        won = found.ranking.winner
        yield f"\n{doubt.place.key.text}: the winner is {won.status}: {won.candidate.text}"
        yield f"  {doubt.command}" + ("" if doubt.exact else "   (FILE: where the op is written)")
    if sound and not doubts:
        yield "every winner was measured here under this software" if records else "nothing was measured yet"
