"""The table of steps: each has its file, and the file its one public function."""

from __future__ import annotations

from typing import get_args

import pytest

from tridsl.schedule import apply, steps


def test_every_step_has_a_row() -> None:
    assert set(apply.STEPS) == set(get_args(steps.Step))


@pytest.mark.parametrize("kind", apply.STEPS, ids=lambda kind: kind.__name__)
def test_every_row_has_a_function(kind: type) -> None:
    function = apply.function_of(kind)
    assert function.__module__ == f"tridsl.schedule.{apply.STEPS[kind]}"
    assert function.__name__ == apply.STEPS[kind]
