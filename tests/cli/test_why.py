"""`tridsl why`: the ranking as it follows from evidence, in text and as data. Nothing is measured here."""

from __future__ import annotations

import warnings
from typing import Any

import msgspec
import pytest

from tests.cli.world import World
from tridsl.personality.evidence import Pin


def only(world: World, *more: object) -> Any:
    """The one subject of the op, as data."""
    told = world("why", world.operation, "--json", *more)
    assert told.status == 0, told.err
    (subject,) = told.data["subjects"]
    return subject


def test_nothing_is_known(world: World) -> None:
    told = world("why", world.operation)
    assert told.status == 0
    command = f"tridsl tune {world.operation} --device cpu"
    assert f"nothing was measured yet, so the default schedule is used; `{command}` measures it" in told.out
    assert "predicted" in told.out and "measured)" not in told.out
    data = only(world)
    assert (data["served"], data["winner"], data["candidates"], data["quarantined"]) == ("default", None, [], [])
    assert (data["command"], data["trials"], data["noise_floor"], data["prediction"]) == (command, 0, None, None)
    assert data["roofline"]["seconds"] > 0 and data["roofline"]["label"] == "predicted"
    assert not world.personality.exists(), "asking writes nothing"


def test_the_ranking(world: World) -> None:
    fast, middle, slow = world.at(4), world.at(2), world.at(1)
    world.keep(world.trials({middle: 1e-4, fast: 0.8e-4, slow: 2e-4}))
    data = only(world)
    assert [c["id"] for c in data["candidates"]] == [fast.id, middle.id, slow.id]
    assert [c["rank"] for c in data["candidates"]] == [1, 2, 3]
    assert data["served"] == "winner"
    assert (data["winner"]["id"], data["winner"]["status"], data["winner"]["label"]) == (fast.id, "fresh", "measured")
    assert data["winner"]["point"] == {"rows": 4, "width": 8}
    assert data["reference"] == fast.id and data["candidates"][0]["ratio"] == {"value": 1, "low": 1, "high": 1, "confidence": 0.95}
    ratio = data["candidates"][2]["ratio"]
    assert ratio["low"] < 2.5 < ratio["high"] and ratio["low"] < ratio["value"] < ratio["high"]
    assert all(c["label"] == "measured" and c["status"] == "fresh" and c["pairs"] > 0 for c in data["candidates"])
    assert [c["tie"] for c in data["candidates"]] == [True, False, False]
    assert 0 < data["noise_floor"]["ratio"] <= 0.05 and data["noise_floor"]["label"] == "measured"
    share = data["share_of_roofline"]
    assert share == {"ratio": data["roofline"]["seconds"] / data["winner"]["seconds"], "label": "predicted"}
    assert data["prediction"]["seconds"] > 0 and data["prediction"]["reasons"] and data["prediction"]["label"] == "predicted"
    assert data["title"] == "scale M=64 N=64 (f32) on cpu" and data["sizes"] == {"M": 64, "N": 64} and data["threads"] == 1


def test_the_ranking_as_text(world: World) -> None:
    fast, slow = world.at(4), world.at(1)
    world.keep(world.trials({slow: 1e-4, fast: 0.5e-4}))
    told = world("why", world.operation)
    assert told.status == 0 and "note[" not in told.out
    winner = next(line for line in told.out.splitlines() if line.startswith("winner"))
    assert fast.id[:8] in winner and "rows=4 width=8" in winner and winner.rstrip().endswith("measured")
    other = next(line for line in told.out.splitlines() if slow.id[:8] in line)
    assert " to " in other and "tie" not in other
    for part in ("measured here in 3 trials", "next: rows=1 width=8", "noise floor", "roofline", "(predicted)", "why the winner is predicted to take"):
        assert part in told.out, part


def test_ties(world: World) -> None:
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 1e-4, world.at(4): 3e-4}, noise=0.01, blocks=8, pairs=20))
    data = only(world)
    assert [c["tie"] for c in data["candidates"]] == [True, True, False]
    told = world("why", world.operation)
    assert sum(" tie " in line and " fresh " in line for line in told.out.splitlines()) == 2
    assert "1 other within the noise floor" in told.out


def test_quarantine_has_reasons(world: World) -> None:
    bad, worse = world.at(1), world.at(8)
    world.keep([
        *world.trials({world.at(2): 1e-4, world.at(4): 0.8e-4}),
        world.failed(bad, "wrong_result", "`y`[0, 1] is 3 in [red]place\x1b[31m of 4"), world.failed(worse, "crash", "SIGSEGV"),
    ])  # fmt: skip
    found = {q["id"]: q for q in only(world)["quarantined"]}
    assert found.keys() == {bad.id, worse.id}
    assert found[worse.id] == {
        "id": worse.id, "candidate": "rows=8 width=8", "point": {"rows": 8, "width": 8}, "outcome": "crash", "times": 1, "reasons": ["SIGSEGV"],
        "status": "fresh",
    }  # fmt: skip
    told = world("why", world.operation)
    assert f"{bad.id[:8]}  rows=1 width=8: wrong result (fresh)" in told.out
    assert "`y`[0, 1] is 3 in [red]place?[31m of 4" in told.out and "\x1b" not in told.out, "neither markup nor escapes are obeyed"
    assert told.out.count("SIGSEGV") == 1


def test_only_failures(world: World) -> None:
    world.keep([world.failed(world.at(1), "timeout", "no answer in 10 s")])
    data = only(world)
    assert (data["served"], data["winner"], data["candidates"]) == ("default", None, [])
    told = world("why", world.operation)
    assert "nothing that works was measured; the default is used" in told.out
    assert f"`tridsl tune {world.operation} --device cpu` measures it" in told.out
    assert "timeout" in told.out


def test_a_suspect_winner_is_served_and_to_be_verified(world: World) -> None:
    before = world.place(kernel="5.0")
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 0.5e-4}, at=before), before)
    data = only(world)
    assert data["served"] == "winner"
    assert (data["winner"]["status"], data["winner"]["label"]) == ("suspect", "measured")
    told = world("why", world.operation)
    assert "kernel 5.0→" in told.out and "suspect" in told.out
    assert f"`tridsl tune {world.operation} --device cpu` verifies it" in told.out


def test_a_prior_is_not_served_and_not_compiled(world: World) -> None:
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 0.5e-4}, origin="far.bundle"))
    data = only(world)
    assert data["served"] == "default"
    assert (data["winner"]["status"], data["winner"]["label"]) == ("prior", "measured elsewhere")
    assert all(c["label"] == "measured elsewhere" for c in data["candidates"])
    assert "not compiled" in data["prediction"]["missing"]
    told = world("why", world.operation)
    assert "far.bundle: a hint until it was run here" in told.out and "the default schedule is used until then" in told.out


def test_a_pin_that_was_measured(world: World) -> None:
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 0.5e-4}))
    world.store.add(Pin(key=world.key, candidate=world.at(1), time=5.0))
    data = only(world)
    assert (data["winner"]["id"], data["winner"]["status"], data["served"]) == (world.at(1).id, "pinned", "winner")
    assert data["reference"] == world.at(1).id and data["pin"]["time"] == 5.0
    assert data["candidates"][0]["ratio"]["value"] < 1, "the faster one, against the pinned one"
    assert "pinned by the user" in world("why", world.operation).out


def test_a_pin_that_was_not(world: World) -> None:
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 0.5e-4}))
    world.store.add(Pin(key=world.key, candidate=world.at(4), time=5.0))
    data = only(world)
    assert (data["winner"]["seconds"], data["winner"]["label"], data["share_of_roofline"]) == (None, None, None)
    assert data["reference"] == world.at(2).id
    told = world("why", world.operation)
    assert "never measured, pinned by the user" in told.out and "time over the best's" in told.out


def test_a_schedule_that_does_not_apply_any_more(world: World) -> None:
    stale = world.at(1)
    steps = tuple(msgspec.structs.replace(step, stage="gone") for step in stale.steps)
    world.keep(world.trials({msgspec.structs.replace(stale, steps=steps): 1e-4, world.at(2): 2e-4}))
    data = only(world)
    assert data["served"] == "default" and data["prediction"]["missing"].startswith("E0")
    assert "its schedule does not apply to the op any more, so the default schedule is used" in data["sentences"]


def test_limit_is_of_the_text_only(world: World) -> None:
    world.keep(world.trials({world.at(r, w): 1e-4 * r * w for r in (1, 2) for w in (8, 16, 32)}))
    told = world("why", world.operation, "--limit", "2")
    assert "and 4 more candidates: --limit 6 shows all" in told.out
    assert len(only(world, "--limit", "2")["candidates"]) == 6
    assert world("why", world.operation, "--limit", "0").status == 2


def test_what_is_asked_is_in_the_command(world: World) -> None:
    data = only(world, "--shape", "M=32,N=16", "--threads", "1")
    assert data["command"] == f"tridsl tune {world.operation} --shape M=32,N=16 --device cpu --threads 1"
    assert data["sizes"] == {"M": 32, "N": 16}


def test_every_bench_block_is_a_subject(world: World) -> None:
    file = world.operation.rpartition(":")[0]
    with open(file, "a") as stream:
        stream.write("bench scale { M = 8, N = 8 }\n")
    told = world("why", world.operation)
    assert told.out.count("nothing was measured yet") == 2
    assert [s["sizes"]["M"] for s in world("why", file, "--json").data["subjects"]] == [64, 8]


def test_lines_that_do_not_count_are_a_note(world: World) -> None:
    world.keep(world.trials({world.at(1): 1e-4, world.at(2): 0.5e-4}))
    world.damage()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = world("why", world.operation)
        data = world("why", world.operation, "--json").data
    assert told.status == 0 and "note[E0901]" in told.out and told.err == ""
    (note,) = data["notes"]
    assert note["code"] == "E0901" and "skipped" in note["message"]
    assert data["subjects"][0]["winner"]["id"] == world.at(2).id


def test_a_store_that_is_none_is_a_note(world: World) -> None:
    world.personality.write_text("a file")
    told = world("why", world.operation)
    assert told.status == 0 and "nothing was measured yet" in told.out and "note[E0905]" in told.out


@pytest.mark.parametrize(("arguments", "code"), [(("missing.tri:f",), "E0803"), (("stdlib:nonsense",), "E0534"), (("stdlib:matmul", "--device", "abacus"), "E0703")])
def test_the_users_mistakes(world: World, arguments: tuple[str, ...], code: str) -> None:
    told = world("why", *arguments)
    assert told.status == 1 and code in told.err

