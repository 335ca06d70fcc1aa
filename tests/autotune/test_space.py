"""Spaces: lazily listed, told apart, walked; legal points only; errors at the user's line."""

from __future__ import annotations

from random import Random

import pytest

from tests.autotune.kernels import MATMUL, SAXPY, TEXT, module, op
from tests.differential.trial import SPECS
from tridsl.autotune.space import Space, among, automatic_space, describe, listed_space, nearest, space_of, text_space
from tridsl.diagnostics import TriError
from tridsl.schedule.automatic import automatic
from tridsl.schedule.text import text_schedule

SPEC = SPECS["wide"]
SIZES = {"M": 64, "N": 64, "K": 64}


def text() -> Space:
    found = text_space(module(TEXT).schedules["f"], op(TEXT), SPEC, SIZES)
    assert found is not None
    return found


def matmul() -> Space:
    return automatic_space(op(MATMUL), SPEC, SIZES)


def listed() -> Space:
    return listed_space("listed", [
        (("a", 1), ("b", "x")), (("a", 1), ("b", "y")), (("a", 4), ("c", True)), (("a", 4), ("c", False)), (("a", 16), ("b", "x")),
    ])  # fmt: skip


def test_text_spaces_have_the_legal_points_only() -> None:
    space, bound = text(), module(TEXT)
    points = list(space.points())
    assert points[0] == space.default() == (("rows", 2), ("width", 8))
    wanted = {(r, w) for r in (1, 2, 4, 8) for w in (8, 16, 32, 64) if r * w <= 128}
    assert len(points) == len(wanted) and {tuple(v for _, v in p) for p in points} == wanted
    for point in points:
        assert point in space
        assert space.schedule(point) == text_schedule(bound.schedules["f"], op(TEXT), SPEC, SIZES, dict(point))
    assert (("rows", 8), ("width", 64)) not in space and (("rows", 3), ("width", 8)) not in space


def test_a_schedule_text_goes_before_the_automatic_one() -> None:
    assert space_of(op(TEXT), SPEC, SIZES, module(TEXT).schedules["f"]).name == "the schedule of `f` for cpu"
    assert space_of(op(MATMUL), SPEC, SIZES).schedule(matmul().default()) == automatic(op(MATMUL), SPEC, SIZES)


@pytest.mark.parametrize("space", [text(), matmul(), listed()], ids=["text", "automatic", "listed"])
def test_samples_and_neighbours_are_points(space: Space) -> None:
    random = Random(5)
    for _ in range(30):
        point = space.sample(random)
        assert point in space
        around = list(space.neighbours(point))
        assert point not in around and len(set(around)) == len(around) and all(p in space for p in around)
        assert all(0 < space.distance(point, p) == space.distance(p, point) for p in around)
        assert space.near(dict(point)) == point and space.distance(point, point) == 0
    assert [space.sample(Random(9)) for _ in range(3)] == [space.sample(Random(9)) for _ in range(3)]


def test_neighbours_reach_every_point() -> None:
    for space in (text(), listed()):
        seen, edge = {space.default()}, [space.default()]
        while edge:
            edge = [n for p in edge for n in space.neighbours(p) if n not in seen]
            seen.update(edge)
        assert seen == set(space.points())


def test_dependent_choices_exist_where_they_matter() -> None:
    space = automatic_space(op(MATMUL), SPEC, dict.fromkeys(SIZES, 512))
    with_, without = (space.near({"C.pack": pack}) for pack in (True, False))
    assert with_ is not None and without is not None
    assert "C.depth" in dict(with_) and "C.depth" not in dict(without)
    assert with_ in space and without in space


def test_restrictions() -> None:
    space = matmul().only({"C.rows": [4, 8], "C.vectors": [1], "C.pack": [False], "C.threads": [False]})
    points = space.listing()
    assert points is not None and len(points) == 2
    assert {dict(p)["C.rows"] for p in points} == {4, 8} and all(dict(p)["C.vectors"] == 1 for p in points)
    assert all(p in matmul() and matmul().schedule(p) == space.schedule(p) for p in points)
    with pytest.raises(TriError, match="E0952"):
        matmul().only({"C.colour": [1]})
    with pytest.raises(TriError, match="E0953"):
        matmul().only({"C.rows": [99]}).default()


def test_large_spaces_are_not_listed() -> None:
    assert automatic_space(op(MATMUL), SPEC, {"M": 1024, "N": 1024, "K": 1024}).listing(500) is None


def test_simple_points_change_little() -> None:
    space = text()
    assert space.simplicity(space.default()) < space.simplicity((("rows", 4), ("width", 16)))


def test_wrong_points() -> None:
    for space, point, code in (
        (text(), (("rows", 2), ("height", 8)), "E0952"),
        (text(), (("rows", 2),), "E0952"),
        (text(), (("rows", 3), ("width", 8)), "E0953"),
        (text(), (("rows", 8), ("width", 64)), "E0953"),
        (matmul(), (("C.rows", 4),), "E0952"),
    ):
        with pytest.raises(TriError) as caught:
            space.schedule(point)
        assert caught.value.code == code


def test_impossible_requires_are_found_without_listing_everything() -> None:
    many = "".join(f"  param p{n} in 0..100\n" for n in range(8))
    wrong = TEXT.replace("  require", f"{many}  require p0 > 1000\n  require")
    with pytest.raises(TriError) as caught:
        text_space(module(wrong).schedules["f"], op(wrong), SPEC, SIZES)
    assert caught.value.code == "E0433" and caught.value.diagnostics[0].span is not None


def test_values() -> None:
    assert nearest(10, (1, 4, 8, 16)) == 8 and nearest("x", (1, 2)) == 1 and nearest(True, (1, True)) is True
    assert among(True, (True,)) and not among(True, (1,)) and not among(0, (False,))
    assert describe((("a", 1), ("b", True))) == "a=1 b=true"
    assert automatic_space(op(SAXPY), SPEC, {"N": 10}).default() in automatic_space(op(SAXPY), SPEC, {"N": 10})
