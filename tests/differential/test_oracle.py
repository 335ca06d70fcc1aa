"""Every op under random legal schedules gives what the op's own meaning gives: behind `schedule` and behind all lowering passes,
with sizes known and symbolic, for arrays laid out in odd ways, on devices of different kinds. The oracle runs every kernel with
its checks of bounds, of memory never written and of races on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.subjects import (
    BATCH,
    WRITTEN,
    Subject,
    library_kinds,
    library_subject,
    random_subject,
    written_subject,
)
from tests.differential.trial import attempt, check_oracle


@pytest.mark.parametrize("batch", range(4))
def test_random_ops(batch: int) -> None:
    for position in range(BATCH):
        attempt(random_subject(batch, position), 0, check_oracle)


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_written_ops(name: str) -> None:
    for variant in range(12):
        attempt(written_subject(name, variant), 0, check_oracle)


def library(variants: int) -> Iterator[Subject]:
    for kind in library_kinds():
        for variant in range(variants):
            yield library_subject(*kind, variant)


def test_library() -> None:
    for subject in library(1):
        attempt(subject, 0, check_oracle)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 4))
def test_library_more(seed: int) -> None:
    for subject in library(2):
        attempt(subject, seed, check_oracle)


@pytest.mark.full
@pytest.mark.parametrize("batch", range(4, 40))
def test_random_ops_more(batch: int) -> None:
    for position in range(BATCH):
        for seed in range(3):
            attempt(random_subject(batch, position), seed, check_oracle)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_written_ops_more(name: str) -> None:
    for variant in range(12, 300):
        attempt(written_subject(name, variant), 0, check_oracle)
