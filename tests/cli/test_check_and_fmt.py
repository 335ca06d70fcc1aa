"""check and fmt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import Command
from tridsl import stdlib
from tridsl.grammar import explanations

GOOD = """# doubles
op twice[T in {f32, f16}](x: T[N]) -> y: T[N] {
  y[i] = 2 * x[i]  # each element
}

schedule twice for cpu {
  y.split(i, 64).vector(i.i)
}
"""
MONOID = """monoid %s(x: %s) -> %s {
  state d: %s = %s
  lift {
    d = x
  }
  merge a, b {
    d = %s
  }
  result d
}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.tri"
    file.write_text(GOOD)
    return file


def test_check_of_a_right_file(command: Command, good: Path) -> None:
    found = command("check", good, "--json")
    assert found.status == 0
    assert found.data == {"files": [{"file": str(good), "ops": ["twice"], "errors": []}]}


def test_check_reports_all_mistakes_of_all_files(command: Command, good: Path, tmp_path: Path) -> None:
    wrong, syntax = tmp_path / "wrong.tri", tmp_path / "syntax.tri"
    wrong.write_text("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = z[i]\n}\nop g(x: i32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\n")
    syntax.write_text("op f(x: f32[N] -> y: f32[N] { y[i] = x[i] }\n")
    found = command("check", good, wrong, syntax, tmp_path / "none.tri", "--json")
    assert found.status == 1
    errors = {f["file"]: [e["code"] for e in f["errors"]] for f in found.data["files"]}
    assert errors[str(good)] == []
    assert len(errors[str(wrong)]) == 2
    assert len(errors[str(syntax)]) == 1 and errors[str(syntax)][0].startswith("E01")
    assert errors[str(tmp_path / "none.tri")] == ["E0803"]


@pytest.mark.parametrize(
    ("schedule", "code"),
    [("y.split(q, 64)", "E04"), ("y.vectorise(i)", "E0434"), ("y.split(i)", "E0435"), ("y.split(i, 64).vector(i.x)", "E04")],
)
def test_check_applies_schedules(command: Command, tmp_path: Path, schedule: str, code: str) -> None:
    file = tmp_path / "schedule.tri"
    file.write_text(f"op f(x: f32[N]) -> y: f32[N] {{\n  y[i] = x[i]\n}}\nschedule f for cpu {{\n  {schedule}\n}}\n")
    found = command("check", file, "--json")
    assert found.status == 1
    (mistake,) = found.data["files"][0]["errors"]
    assert mistake["code"].startswith(code)
    assert mistake["line"] == 5


@pytest.mark.parametrize(
    ("name", "dtype", "identity", "merge", "right"),
    [
        ("total", "f32", "0", "a.d + b.d", True), ("greatest", "f32", "lowest", "max(a.d, b.d)", True), ("first", "i32", "0", "a.d", False),
        ("difference", "f32", "0", "a.d - b.d", False), ("product", "i32", "0", "a.d * b.d", False), ("bits", "i32", "0", "a.d | b.d", True),
        ("mean", "f32", "0", "(a.d + b.d) / 2", False),
    ],
)  # fmt: skip
def test_laws_of_monoids(command: Command, tmp_path: Path, name: str, dtype: str, identity: str, merge: str, right: bool) -> None:
    file = tmp_path / "monoid.tri"
    file.write_text(MONOID % (name, dtype, dtype, dtype, identity, merge))
    assert command("check", file).status == 0  # not asked for
    found = command("check", file, "--prove-monoids", "--json")
    assert [e["code"] for e in found.data["files"][0]["errors"]] == ([] if right else ["E0812"])
    assert found.status == (0 if right else 1)


def test_the_librarys_monoids_keep_the_laws(command: Command) -> None:
    for name in stdlib.names():
        path = Path(stdlib.__file__).with_name(f"{name}.tri")
        if "monoid" in path.read_text():
            assert command("check", path, "--prove-monoids").status == 0


def test_fmt_writes_only_what_changes(command: Command, good: Path, tmp_path: Path) -> None:
    untidy = tmp_path / "untidy.tri"
    untidy.write_text("op   f(x:f32[N])->y:f32[N]{ y[i]=x[i] } # same\n")
    untidy.chmod(0o640)
    before = good.stat().st_mtime_ns
    assert command("fmt", "--check", good, untidy).status == 1
    shown = command("fmt", "--diff", good, untidy)
    assert shown.status == 1 and shown.out.startswith(f"--- {untidy}")
    assert untidy.read_text().startswith("op   f")
    found = command("fmt", good, untidy, "--json")
    assert found.status == 0
    assert found.data["changed"] == [str(untidy)] and found.data["unchanged"] == [str(good)]
    assert good.stat().st_mtime_ns == before
    assert "# same" in untidy.read_text() and "op f(x: f32[N]) -> y: f32[N] {" in untidy.read_text()
    assert untidy.stat().st_mode & 0o777 == 0o640
    assert command("fmt", "--check", good, untidy).status == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.tri", "untidy.tri"]


def test_fmt_writes_nothing_when_a_file_is_wrong(command: Command, tmp_path: Path) -> None:
    untidy, wrong = tmp_path / "untidy.tri", tmp_path / "wrong.tri"
    untidy.write_text("op   f(x:f32[N])->y:f32[N]{ y[i]=x[i] }\n")
    wrong.write_text("op (\n")
    found = command("fmt", untidy, wrong)
    assert found.status == 1
    assert "wrong.tri:1" in found.err
    assert untidy.read_text().startswith("op   f")


def test_the_library_and_the_examples_are_formatted_and_right(command: Command) -> None:
    library = sorted(Path(stdlib.__file__).parent.glob("*.tri"))
    examples = sorted((Path(__file__).parents[2] / "examples").glob("*.tri"))
    assert library and examples
    assert command("check", *library, *examples).status == 0
    assert command("fmt", "--check", *examples).status == 0


def test_programs_of_the_explanations(command: Command, tmp_path: Path) -> None:
    """`right` has no mistake, `wrong` has that one."""
    found = [(code, e) for code, e in explanations().items() if code.startswith("E08")]
    assert found
    for code, explanation in found:
        for text, codes in ((explanation.right, []), (explanation.wrong, [code])):
            if text:
                file = tmp_path / f"{code}.tri"
                file.write_text(text)
                shown = command("check", "--prove-monoids", file, "--json").data["files"][0]
                assert [e["code"] for e in shown["errors"]] == codes


def test_a_picture_op_of_ones_own(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "invert.tri"
    file.write_text(explanations()["E0808"].right)
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(picture).save(tmp_path / "in.png")
    found = command("run", f"{file}:invert", "--image", tmp_path / "in.png", "-d", "cpu", "-o", tmp_path / "out.png")
    assert found.status == 0, found.err
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out.png")), 255 - picture)


def test_schedules_that_need_sizes_are_checked_at_those_of_the_bench_blocks(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "sizes.tri"
    text = "op f(x: f32[R, N]) -> y: f32[R, N] {\n  e[r, n] = exp(x[r, n])\n  y[r, n] = e[r, n] / sum[k](e[r, k])\n}\n"
    text += "schedule f for cpu {\n  y.sum.at(y, r)\n  e.at(y, r).store(reg)\n}\n"
    file.write_text(text)
    assert command("check", file).status == 1
    file.write_text(text + "bench f { R = 8, N = 16 }\n")
    assert command("check", file).status == 0
