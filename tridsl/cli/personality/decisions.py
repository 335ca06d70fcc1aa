"""`tridsl personality pin|forget`: the user's decisions. They are records like the measurements, and stay until they are forgotten."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from tridsl.autotune.predicted import Predictor
from tridsl.autotune.request import Request
from tridsl.autotune.space import Asked, Point, Space, describe, show, space_of
from tridsl.cli.evidence import (
    LEAST,
    Known,
    asked,
    candidate_data,
    command_line,
    count,
    kept,
    key_data,
    known,
    open_whole_store,
    report,
    short,
)
from tridsl.cli.output import Report
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, Subject, subjects
from tridsl.cli.targets import services_for
from tridsl.diagnostics import error
from tridsl.personality.candidate import Candidate, candidate
from tridsl.personality.keys import here
from tridsl.schedule.values import Value


def pin(question: Question, wanted: str, settings: Settings) -> Report:
    """Use a candidate for one subject, whatever the evidence says. E0817 none is meant, E0818 several are, E0819 one that did not
    run here; E0952, E0953 for values, E0902, E0905 for the store, and what makes its schedule illegal."""
    store, notes = open_whole_store(settings)
    subject = _one(subjects(question, services_for(settings), settings))
    request = subject.request
    found = known(store, request.key)
    exact = asked(question, subject)
    command = command_line("tune", exact)
    chosen = _by_values(request, wanted) if "=" in wanted else _by_id(found, wanted, exact)
    _refuse_failed(found, chosen, exact)
    Predictor(request.subject).cost(chosen.schedule)  # whether its steps apply to the op
    now = time.time()
    store.know(here(request.device, request.team))
    store.pin(request.key, chosen, now)
    kept(store, notes)
    measured = any(s.candidate == chosen for s in found.ranking.standings)
    text = [f"{request.key.text}: {chosen.text} ({short(chosen)}) is pinned until `{command_line('personality forget', exact, '--pins')}`"]
    text += [] if measured else [f"it was never measured: `{command}` says how it compares"]
    data = {"operation": subject.operation, **key_data(request.key), "pinned": candidate_data(chosen), "time": now, "measured_before": measured}
    return report(data, text, notes)


def _one(found: tuple[Subject, ...]) -> Subject:
    """E0818."""
    if len(found) == 1:
        return found[0]
    raise error(
        "E0818", f"`{found[0].operation}` stands for {len(found)} subjects, and a pin is of one", notes=tuple(s.title for s in found),
        help="say which by --shape, --set and --device",
    )  # fmt: skip


def _refuse_failed(found: Known, chosen: Candidate, exact: Question) -> None:
    """E0819: who failed is not run again because of a pin, and who is only known from elsewhere has to run here first."""
    for failure in found.ranking.quarantined:
        if failure.candidate == chosen:
            raise error(
                "E0819", f"{chosen.text} is quarantined: {failure.outcome.replace('_', ' ')}", notes=failure.reasons[:3],
                help=f"if that is over: {command_line('personality forget', exact)}; then {command_line('tune', exact)}",
            )  # fmt: skip
    standing = next((s for s in found.ranking.standings if s.candidate == chosen), None)
    if standing is not None and standing.status == "prior":
        raise error("E0819", f"{chosen.text} was never run on this machine", help=f"measure it first: {command_line('tune', exact)}")


def _by_id(found: Known, wanted: str, exact: Question) -> Candidate:
    """E0817, E0818."""
    digits = wanted.lower()
    if not re.fullmatch(f"[0-9a-f]{{{LEAST},32}}", digits):
        raise error(
            "E0817", f"`{wanted}` is neither the beginning of a candidate's id nor values of tunables",
            help=f"write at least {LEAST} digits of an id that `tridsl why` prints, or values as rows=4,vectors=2",
        )  # fmt: skip
    ranking = found.ranking
    everyone = {s.candidate for s in ranking.standings} | {q.candidate for q in ranking.quarantined} | {t.candidate for t in found.trials}
    if found.pin is not None:
        everyone.add(found.pin.candidate)
    fitting = sorted((c for c in everyone if c.id.startswith(digits)), key=lambda c: c.id)
    if not fitting:
        hint = f"`{command_line('why', exact)}` prints the ids" if everyone else f"measure some first: {command_line('tune', exact)}"
        raise error("E0817", f"{found.key.text} has no candidate `{wanted}`, of {len(everyone)} that are known", help=hint)
    if len(fitting) > 1:
        raise error("E0818", f"`{wanted}` begins the ids of {len(fitting)} candidates", notes=tuple(f"{c.id}: {c.text}" for c in fitting[:5]), help="write more digits")
    return fitting[0]


def _by_values(request: Request, wanted: str) -> Candidate:
    """The only point of the op's space that has these values. E0804, E0818, E0952, E0953."""
    subject = request.subject
    space = space_of(subject.op, subject.device.spec, request.sizes, request.blocks)
    point = _point(space, _values(wanted))
    return candidate(space.schedule(point), dict(point))


def _values(wanted: str) -> dict[str, str]:
    """`rows=4,vectors=2`; also with spaces between, as candidates are printed. E0804."""
    found: dict[str, str] = {}
    for part in re.split(r"[,\s]+", wanted.strip(", \t")):
        name, equals, value = part.partition("=")
        if not (name and equals and value) or name in found:
            raise error("E0804", f"`{wanted}` is no list of values", help="write each tunable once, as rows=4,vectors=2")
        found[name] = value
    return found


def _point(space: Space, wanted: Mapping[str, str]) -> Point:
    """Walks the choices in the order in which they are asked. What is not said must follow from what is."""
    given: dict[str, Value] = {}
    used: dict[str, str] = {}
    open_: list[Asked] = []
    while len(given) < len(asked := space.ask(given)):
        choice = asked[len(given)]
        name = choice.name if choice.name in wanted else choice.name.rpartition(".")[2]
        if name in wanted:
            if name in used:
                raise error("E0818", f"`{name}` is a choice of several stages", help=f"write {used[name]}=… or {choice.name}=…")
            used[name] = choice.name
            given[choice.name] = _value(choice, wanted[name])
            continue
        possible = [v for v in choice.values if space.allows({**given, choice.name: v})] or list(choice.values)
        if len(possible) > 1:
            open_.append(choice)
        given[choice.name] = possible[0]
    unknown = [name for name in wanted if name not in used]
    if unknown:
        raise error("E0952", f"{space.name} has no choice `{unknown[0]}` here", help=f"its choices: {', '.join(given) or 'none'}")
    point = tuple(given.items())
    if open_:
        raise error(
            "E0818", f"the values leave {count(len(open_), 'choice')} of {space.name} open",
            notes=tuple(f"{c.name}: {', '.join(map(show, c.values))}" for c in open_),
            help=f"with the defaults for the rest: {describe(point).replace(' ', ',')}",
        )  # fmt: skip
    return point


def _value(choice: Asked, text: str) -> Value:
    """The value that is written like this. E0953."""
    for value in choice.values:
        if text in (show(value), str(value)):
            return value
    raise error("E0953", f"{text} is no value of `{choice.name}` here", help=f"its values: {', '.join(map(show, choice.values))}")


def forget(question: Question, settings: Settings, *, pins_only: bool = False) -> Report:
    """Let what is known of the subjects, or their pins, count no longer. E0703, E0801, E0803, E0805, E0814, E0902, E0905."""
    store, notes = open_whole_store(settings)
    found = subjects(question, services_for(settings), settings)
    now = time.time()
    gone = {s.request.key.subject: (s, store.forget(s.request.key, now, pins_only=pins_only)) for s in found}
    kept(store, notes)
    noun = "pin" if pins_only else "record"
    total = sum(number for _, number in gone.values())
    text = [f"{s.title}: {count(number, noun)}" for s, number in gone.values()]
    text.append(f"{count(total, noun)} no longer count{'s' if total == 1 else ''}; the journals keep them")
    data = {"pins_only": pins_only, "forgotten": total, "subjects": [{"operation": s.operation, **key_data(s.request.key), "forgotten": n} for s, n in gone.values()]}
    return report(data, text, notes)
