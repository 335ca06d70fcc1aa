"""Launches that a device runs as one become one step of the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.backend import Held, RecordedLaunch, Recorder
from tridsl.plan import Place
from tridsl.program.realise import Target
from tridsl.program.runs import Run
from tridsl.runtime.execute import Reference, Step


def recorded(launches: Sequence[Step], run: Run, target: Target, places: Mapping[int, Place], memory_bytes: int) -> Step:
    """`launches` of `run` on `target`, whose driver is a `Recorder`. `places` are the program's arrays by table number; those that
    live inside the run share `memory_bytes` on the device, where the plan put them."""
    driver = target.backend.driver()
    assert isinstance(driver, Recorder)
    arrays: dict[Reference, Held] = {}
    for launch in launches:
        for slot in launch.slots:
            if isinstance(slot, Reference) and slot not in arrays:
                arrays[slot] = _held(places[slot.number], run, repeated=slot.shape)
    outer = [reference for reference, held in arrays.items() if held.offset is None]
    numbers = {reference: number for number, reference in enumerate(arrays)}
    executable = driver.record(
        [
            RecordedLaunch(
                executable=launch.executable,
                slots=tuple(numbers[slot] if isinstance(slot, Reference) else slot for slot in launch.slots),
            )
            for launch in launches
        ],
        list(arrays.values()),
        memory_bytes,
        target.device,
    )
    return Step(
        executable=executable,
        slots=tuple(outer),
        threads=1,
        contiguous=True,
        written=tuple(number for number, reference in enumerate(outer) if arrays[reference].download),
    )


def _held(place: Place, run: Run, repeated: tuple[int, ...] | None) -> Held:
    """An array as the recording sees it; the caller passes it `repeated` to another shape where that is set."""
    upload, download = place.name in run.uploads, place.name in run.downloads and repeated is None
    if not upload and not download:
        assert place.offset is not None
        return Held(bytes=place.bytes, offset=place.offset)
    size = place.bytes
    if repeated is not None:
        elements = 1
        for extent in repeated:
            elements *= extent
        size = elements * place.dtype.storage_bytes
    return Held(bytes=size, upload=upload, download=download)
