"""run: arrays, pictures, stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.command import Command
from tridsl import pipeline
from tridsl.autotune.answers import compare
from tridsl.ir.loop import Kernel, Store
from tridsl.ir.walk import rewrite

CPU = ("--device", "cpu")


def test_random_arrays_of_a_shape(command: Command) -> None:
    found = command("run", "stdlib:softmax", "--shape", "x=3x50", *CPU, "--json")
    assert found.status == 0
    y = found.data["results"]["y"]
    assert y["shape"] == [3, 50] and y["dtype"] == "float32"
    assert y["mean"] == pytest.approx(1 / 50)
    assert command("run", "stdlib:softmax", "--shape", "x=3x50", *CPU, "--seed", "1", "--json").data != found.data


def test_arrays_from_files(command: Command, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4, 30)).astype(np.float32)
    gamma = np.linspace(1, 2, 30, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "g.npy", gamma)
    result = tmp_path / "made" / "y.npy"
    found = command(
        "run", "stdlib:rmsnorm", "--input", f"x={tmp_path / 'x.npy'}", "--input", f"gamma={tmp_path / 'g.npy'}", "--set", "eps=1e-3", *CPU, "-o", result
    )
    assert found.status == 0, found.err
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-3) * gamma
    np.testing.assert_allclose(np.load(result), want, rtol=1e-5)


def test_several_results(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.float32([3, 1, 4, 1, 5]))
    places = ("-o", f"y={tmp_path / 'y.npy'}", "-o", f"pos={tmp_path / 'pos.npy'}")
    found = command("run", "stdlib:above", "--input", f"x={tmp_path / 'x.npy'}", "--set", "t=3", *CPU, *places)
    assert found.status == 0, found.err
    assert np.load(tmp_path / "y.npy").tolist() == [3, 4, 5]
    assert np.load(tmp_path / "pos.npy").tolist() == [0, 2, 4]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures(command: Command, tmp_path: Path, suffix: str) -> None:
    y, x = np.mgrid[0:40, 0:60]
    rgb = np.stack([np.where(x > 30, 200, 20), y * 2, x], -1).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / f"in.{suffix}")
    found = command("run", "stdlib:edges", "--image", tmp_path / f"in.{suffix}", "--set", "threshold=40", *CPU, "-o", tmp_path / "out.png")
    assert found.status == 0, found.err
    edge = np.asarray(Image.open(tmp_path / "out.png"))
    assert edge.shape == (40, 60) and set(np.unique(edge)) == {0, 255}
    assert edge[:, 30:32].any(axis=1).mean() > 0.8  # JPEG rounds some of it away
    assert not edge[:, :24].any()


def test_a_picture_is_turned_as_its_exif_data_says(command: Command, tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "in.jpg", exif=exif)
    found = command("run", "stdlib:edges", "--image", tmp_path / "in.jpg", "--set", "threshold=9", *CPU, "--json")
    assert found.data["results"]["edge"]["shape"] == [20, 10]


@pytest.mark.parametrize("operation", ["matmul", "softmax", "quantise", "above", "edges", "attention", "cumsum"])
def test_every_stage_gives_the_right_answer(command: Command, operation: str) -> None:
    arguments = {
        "matmul": ("--shape", "M=13,K=9,N=17"), "softmax": ("--shape", "x=3x21"), "quantise": ("--shape", "x=2x33"),
        "above": ("--shape", "N=70", "--set", "t=0.25"), "edges": ("--shape", "H=9,W=11", "--set", "threshold=80"),
        "attention": ("--shape", "H=2,G=1,S=5,L=7,D=4,E=3", "--set", "scale=0.5,causal=true"), "cumsum": ("--shape", "x=2x19",),
    }[operation]  # fmt: skip
    found = command("run", f"stdlib:{operation}", *arguments, *CPU, "--check-stages", "--json")
    assert found.status == 0, found.out
    rows = found.data["stages"]
    assert rows[0]["stage"] == "check" and rows[1]["stage"] == "loops" and rows[-1]["stage"] == "build, run on cpu"
    assert all(row["right"] for row in rows)
    assert found.data["first_wrong"] is None


def test_the_first_wrong_stage_is_named(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that negates what it stores is found, and everything behind it is wrong too."""

    def broken(kernel: Kernel, build: pipeline.Build) -> Kernel:
        from dataclasses import replace

        from tridsl.ir.expr import Unary

        return rewrite(kernel, {Store: lambda s: replace(s, value=Unary(op="neg", a=s.value, dtype=s.value.dtype))})

    names = [name for name, _ in pipeline.SCHEDULE]
    monkeypatch.setattr(pipeline, "SCHEDULE", ((names[0], pipeline.SCHEDULE[0][1]), (names[1], broken), *pipeline.SCHEDULE[2:]))
    found = command("run", "stdlib:saxpy", "--shape", "N=20", "--set", "a=2", *CPU, "--check-stages", "--json")
    assert found.status == 70
    assert found.data["first_wrong"] == names[1]
    right = [row["right"] for row in found.data["stages"]]
    assert right == sorted(right, reverse=True) and not all(right)


def test_a_wrong_answer_is_told_from_rounding() -> None:
    from tridsl.cli.settings import Settings
    from tridsl.cli.targets import choose, find_target, given, services_for

    target = find_target("stdlib:softmax", services_for(Settings()))
    op = choose(target, given(target, (), ()), {})
    want = np.random.default_rng(0).random((100,))
    assert compare(op, {"y": want.astype(np.float32)}, {"y": want}).right
    for wrong in (want * 1.001, want + 1e-3, np.where(want > 0.5, np.nan, want), want[:-1], np.zeros_like(want)):
        found = compare(op, {"y": wrong.astype(np.float32)}, {"y": want})
        assert not found.right and "`y`" in found.reason


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("stdlib:matmul", "--shape", "M=3"), "E0805"), (("stdlib:above", "--shape", "N=3"), "E0805"), (("stdlib:softmax", "--input", "x=none.npy"), "E0806"),
        (("stdlib:softmax", "--input", "x"), "E0804"), (("stdlib:softmax", "--image", "none.png"), "E0808"), (("stdlib:edges", "--image", "none.png"), "E0807"),
        (("stdlib:softmax", "--shape", "N=3", "-o", "q=y.npy"), "E0804"), (("stdlib:quantise", "--shape", "K=3", "-o", "y.npy"), "E0804"),
        (("stdlib:softmax", "--shape", "N=3", "--device", "moon"), "E0703"), (("stdlib:softmax", "--shape", "N=3", "-o", "/proc/none/y.npy"), "E0815"),
        (("stdlib:softmax", "--shape", "N=30", "-o", "y.png"), "E0807"),
    ],
)  # fmt: skip
def test_wrong_arguments(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = command("run", *arguments)
    assert found.status == 1
    assert f"error[{code}]" in found.err and "help:" in found.err


def test_wrong_array_files(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", x=np.zeros(3))
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "wide.npy", np.zeros(3, np.uint16))
    for name, code in (("objects.npy", "E0806"), ("several.npz", "E0806"), ("text.npy", "E0806"), ("wide.npy", "E0503")):
        found = command("run", "stdlib:softmax", "--input", f"x={tmp_path / name}", *CPU)
        assert found.status == 1 and code in found.err


def test_threads_come_from_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert command("run", "stdlib:saxpy", "--shape", "N=200000", "--set", "a=2", *CPU).status == 0
