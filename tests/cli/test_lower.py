"""lower: every stage of the library's matmul and softmax as goldens, and every option.

`pytest tests/cli --update-golden` rewrites tests/golden/lower; read the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.command import Command

GOLDEN = Path(__file__).parents[1] / "golden" / "lower"
ZEN4 = ("--device", "cpu", "--chip", "zen4")
STAGES = ("parse", "check", "loops", "specialise", "boundaries", "schedule", "register_tiles", "strip_vectors", "finish")


def golden(name: str, text: str, update: bool) -> None:
    place = GOLDEN / name
    if update:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    assert text == place.read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("op", "shape"), [("matmul", "M=100,K=64,N=90"), ("softmax", "x=6x1000")])
def test_stages(command: Command, update_golden: bool, op: str, shape: str, stage: str) -> None:
    found = command("lower", f"stdlib:{op}", *ZEN4, "--shape", shape, "--until", stage)
    assert found.status == 0, found.err
    golden(f"{op}.{stage}", found.out, update_golden)


def test_emitted_text(command: Command, update_golden: bool) -> None:
    found = command("lower", "stdlib:saxpy", *ZEN4, "--shape", "N=64", "--until", "emit")
    assert found.status == 0, found.err
    golden("saxpy.emit", found.out, update_golden)


@pytest.mark.parametrize("operation", ["stdlib:matmul", "stdlib:softmax", "stdlib:attention", "stdlib:edges", "stdlib:above", "stdlib:tgemm"])
def test_every_stage_prints_without_shapes(command: Command, operation: str, tmp_path: Path) -> None:
    names = command("lower", operation, "--until", "list", *ZEN4).out.split()
    assert names[:3] == ["parse", "check", "loops"] and names[-2:] == ["emit", "build"]
    dumped = command("lower", operation, "--until", "build", *ZEN4, "--dump", tmp_path, "--timings")
    assert dumped.status == 0, dumped.err
    files = sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".json")
    assert [name.rsplit(".", 1)[1] for name in files] == names
    assert all((tmp_path / name).stat().st_size for name in files)
    assert all(name in dumped.out for name in names[2:]) and "measured" in dumped.out


def test_lower_for_another_chip(command: Command) -> None:
    chips = command("lower", "stdlib:matmul", "--chip", "list").out.split()
    assert {"zen4", "cortex_a76"} <= set(chips)
    text = {chip: command("lower", "stdlib:softmax", "--chip", chip).out for chip in ("zen4", "cortex_a76")}
    assert "<16 x float>" in text["zen4"] and "<16 x float>" not in text["cortex_a76"]
    assert "aarch64" in text["cortex_a76"]
    assert "E0813" in command("lower", "stdlib:softmax", "--chip", "nothing").err
    assert "E0813" in command("lower", "stdlib:softmax", "--chip", "zen4", "--device", "gpu").err


def test_types_and_constants_are_chosen(command: Command) -> None:
    assert "A: bf16[M, K]" in command("lower", "stdlib:matmul", "--set", "T=bf16", "--until", "check").out
    assert "C: f32[M, N]" in command("lower", "stdlib:matmul", "--set", "T=bf16,U=f32", "--until", "check").out
    assert "C: i32[M, N]" in command("lower", "stdlib:matmul", "--set", "T=i8", "--until", "check").out
    causal, full = (command("lower", "stdlib:attention", "--set", f"causal={value}", "--until", "loops").out for value in ("true", "false"))
    assert causal != full and "causal" not in full


def test_json(command: Command) -> None:
    found = command("lower", "stdlib:softmax", "--until", "check", "--json").data
    assert found["stage"] == "check" and found["text"].startswith("op softmax")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("stdlib:matmul", "--until", "nonsense"), "E0802"), (("none.tri:f",), "E0803"), (("stdlib:nothing",), "E0534"),
        (("stdlib:matmul", "--shape", "M"), "E0804"), (("stdlib:matmul", "--shape", "M=-3"), "E0804"), (("stdlib:matmul", "--shape", "M=1,M=2"), "E0804"),
        (("stdlib:matmul", "--shape", "Q=3"), "E0805"), (("stdlib:matmul", "--set", "T=f99"), "E0805"), (("stdlib:matmul", "--set", "q=3"), "E0805"),
        (("stdlib:matmul", "--set", "T=trit"), "E0503"), (("stdlib:layernorm", "--set", "eps=x"), "E0804"), (("stdlib:layernorm", "--shape", "eps=3"), "E0805"),
        (("stdlib:saxpy", "--override", "nonsense=x.ll"), "E0802"), (("stdlib:saxpy", "--override", "emit=/none.ll"), "E0803"),
    ],
)  # fmt: skip
def test_wrong_arguments(command: Command, arguments: tuple[str, ...], code: str) -> None:
    found = command("lower", *arguments, *ZEN4)
    assert found.status == 1
    assert f"error[{code}]" in found.err
    assert "help:" in found.err or code == "E0503"


def test_a_file_with_several_ops_needs_a_name(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "two.tri"
    file.write_text("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\nop g(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\n")
    assert "E0801" in command("lower", file).err
    assert command("lower", f"{file}:g", "--until", "check").out.startswith("op g")
    file.write_text("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\n")
    assert command("lower", file, "--until", "check").out.startswith("op f")


def test_parse_prints_what_does_not_check(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "wrong.tri"
    file.write_text("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = z[i]\n}\n")
    assert command("lower", f"{file}:f", "--until", "parse").status == 0
    assert command("lower", f"{file}:f", "--until", "check").status == 1


def test_override_of_text_and_of_a_kernel(command: Command, tmp_path: Path) -> None:
    assert command("lower", "stdlib:saxpy", *ZEN4, "--until", "emit", "--dump", tmp_path).status == 0
    (emitted,) = tmp_path.glob("*.emit")
    edited = tmp_path / "edited.ll"
    edited.write_text("; edited by hand\n" + emitted.read_text())
    found = command("lower", "stdlib:saxpy", *ZEN4, "--override", f"emit={edited}")
    assert found.out.startswith("; edited by hand")
    assert command("lower", "stdlib:saxpy", *ZEN4, "--override", f"emit={edited}", "--until", "build").status == 0
    (kernel,) = tmp_path.glob("*.loops.json")
    same = command("lower", "stdlib:saxpy", *ZEN4, "--override", f"loops={kernel}", "--until", "emit")
    assert same.out == emitted.read_text()
    wrong = command("lower", "stdlib:saxpy", *ZEN4, "--override", f"loops={edited}")
    assert wrong.status == 1 and "E0809" in wrong.err


def test_a_design_is_drawn(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "out.svg"
    found = command("lower", "stdlib:matmul", "--device", "npu:sim", "--until", "array", "--set", "T=i8", "--shape", "M=64,N=64,K=64", "--svg", file)
    assert found.status == 0 and ElementTree.fromstring(file.read_text()).tag.endswith("svg")
    refused = command("lower", "stdlib:matmul", "--until", "check", "--svg", file)
    assert "E0821" in refused.err
