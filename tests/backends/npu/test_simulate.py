"""The simulator by itself: what it computes, and that it stops where hardware would hang or answer with wrong numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from tests.backends.npu.small import (
    LINE,
    MEMTILE,
    PROGRAM,
    ROUNDS,
    SHIM,
    WORDS,
    AddOne,
    buffer,
    chain,
    moving,
    run,
    small,
    task,
)
from tridsl.backends.npu.design import ArrayDesign, Await, Dimension, Repeat
from tridsl.backends.npu.simulate import Deadlock, Fault, Race, Simulator


def changed_program(keep: Any) -> ArrayDesign:
    """The small design with some steps of its core left out."""
    (loop,) = PROGRAM
    core = replace(small().cores[0], program=(replace(loop, body=tuple(s for s in loop.body if keep(s))),))
    return replace(small(), cores=(core,))


def changed_chain(number: int, design: ArrayDesign | None = None, **fields: Any) -> ArrayDesign:
    """The small design with another descriptor in chain `number`."""
    design = design or small()
    old = design.chains[number]
    new = replace(old, descriptors=(replace(old.descriptors[0], **fields),))
    return replace(design, chains=(*design.chains[:number], new, *design.chains[number + 1 :]))


def test_words_go_through_the_array() -> None:
    kernels = AddOne()
    np.testing.assert_array_equal(run(small(), kernels), np.arange(ROUNDS * WORDS) + 1)
    assert len(kernels.calls) == ROUNDS


def test_a_second_dispatch_finds_the_array_as_the_first_did() -> None:
    simulator = Simulator(small(), AddOne(), 63, 4)
    for start in (0, 100):
        x, y = np.arange(ROUNDS * WORDS, dtype=np.int32) + start, np.zeros(ROUNDS * WORDS, np.int32)
        simulator.run({"x": x, "y": y}, {})
        np.testing.assert_array_equal(y, x + 1)


def test_strided_transfers_move_what_they_say() -> None:
    swapped = (Dimension(size=2, stride=1), Dimension(size=4, stride=2))
    found = run(changed_chain(1, dimensions=swapped)).reshape(ROUNDS, 4, 2)
    want = np.arange(ROUNDS * WORDS).reshape(ROUNDS, 4, 2) + 1
    np.testing.assert_array_equal(found.reshape(ROUNDS, -1), want.transpose(0, 2, 1).reshape(ROUNDS, -1))


@pytest.mark.parametrize("missing", ["x", "y"])
def test_a_missing_release_is_a_deadlock(missing: str) -> None:
    with pytest.raises(Deadlock, match="waits for"):
        run(changed_program(lambda step: type(step).__name__ != "Release" or step.port != missing))


@pytest.mark.parametrize("missing", ["x", "y"])
def test_a_missing_acquire_is_a_race(missing: str) -> None:
    with pytest.raises((Race, KeyError)):
        run(changed_program(lambda step: type(step).__name__ != "Acquire" or step.port != missing))


def test_a_channel_without_its_lock_is_a_race() -> None:
    free = changed_chain(1, acquire="mx_spare", release="mx_spare")
    lock = replace(free.locks[0], name="mx_spare", number=9, initial=1)
    with pytest.raises(Race, match="while"):
        run(replace(free, locks=(*free.locks, lock)))


def test_a_wrong_number_of_rounds_is_found() -> None:
    (loop,) = PROGRAM
    core = replace(small().cores[0], program=(Repeat(variable="t", count=ROUNDS + 1, body=loop.body),))
    with pytest.raises(Fault, match="finished 0 rounds of 1"):
        run(replace(small(), cores=(core,)))


def test_a_transfer_that_is_repeated_once_too_often_is_found() -> None:
    with pytest.raises(Fault, match="leaves behind|stuck"):
        run(replace(small(), sequence=(task("out", "x", repeats=2), *small().sequence[1:])))


def test_a_host_that_waits_for_nothing_is_a_deadlock() -> None:
    with pytest.raises(Deadlock, match="the host's sequence waits for a transfer"):
        run(replace(small(), sequence=(*small().sequence, Await(tile=SHIM, direction="in", channel=0))))


def test_a_result_that_is_too_short_is_a_deadlock() -> None:
    with pytest.raises(Deadlock, match="more bytes"):
        run(changed_chain(2, design=replace(small(), buffers=(*small().buffers, buffer("long", (0, 2), 8192, (64,)))), dimensions=(Dimension(size=64, stride=1),), buffer="long"))


def test_a_lock_out_of_range_is_a_fault() -> None:
    (loop,) = PROGRAM
    often = Repeat(variable="again", count=64, body=(loop.body[3],))
    core = replace(small().cores[0], program=(replace(loop, body=(loop.body[0], *loop.body[1:3], loop.body[3], often)),))
    with pytest.raises((Fault, KeyError)):
        run(replace(small(), cores=(core,)))


def test_a_function_that_writes_beyond_its_buffer_is_found() -> None:
    with pytest.raises(Fault, match="writes outside of its results"):
        run(small(), AddOne(beyond=1))


def test_streams_hold_a_few_words_only() -> None:
    """A core that never takes its input stops the channels in front of it; nothing is lost in a queue without an end."""
    with pytest.raises(Deadlock, match="room in its stream"):
        run(replace(small(), cores=()))


def test_a_chain_may_have_several_buffers() -> None:
    design = with_two_buffers()
    np.testing.assert_array_equal(run(design), np.arange(ROUNDS * WORDS) + 1)


def with_two_buffers() -> ArrayDesign:
    design = small()
    first = replace(moving(0, "mx", True), following=2)
    second = replace(first, number=2, buffer="mx2", following=0)
    out = replace(moving(1, "mx", False), following=3)
    again = replace(out, number=3, buffer="mx2", following=1)
    chains = (chain(MEMTILE, "in", 0, first, second), chain(MEMTILE, "out", 0, out, again), *design.chains[2:])
    locks = tuple(replace(lock, initial=2) if lock.name == "mx_empty" else lock for lock in design.locks)
    return replace(design, buffers=(*design.buffers, buffer("mx2", MEMTILE, 128)), locks=locks, chains=chains)


def test_the_same_line_is_what_the_small_design_moves() -> None:
    assert all(d.dimensions == LINE for c in small().chains for d in c.descriptors)
