"""Help, exit statuses, errors, the environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import Command, program
from tridsl.cli import output
from tridsl.cli.output import Report, present, rendered
from tridsl.cli.settings import Settings, from_environment
from tridsl.diagnostics import TriError, error

COMMANDS = ("devices", "doctor", "check", "fmt", "lower", "run", "explain", "bench", "tune", "why", "demo", "cache", "personality")
LATER = ("report",)


def test_help_names_every_command_and_no_other(command: Command) -> None:
    shown = command("--help")
    assert shown.status == 0
    listed = shown.out.split("Commands:")[1]
    assert [line.split()[0] for line in listed.strip().splitlines()] == list(COMMANDS)
    assert not any(f"  {name} " in listed for name in LATER)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json(command: Command, name: str) -> None:
    arguments = (name, "show") if name in ("cache", "personality") else (name,)
    shown = command(*arguments, "--help")
    assert shown.status == 0
    assert "--json" in shown.out


@pytest.mark.parametrize("arguments", [("nonsense",), ("lower",), ("lower", "stdlib:matmul", "--nonsense"), ("bench", "--samples", "3"), ("run", "a:b", "--threads", "0")])
def test_wrong_usage_is_status_2(command: Command, arguments: tuple[str, ...]) -> None:
    assert command(*arguments).status == 2


def test_the_package_is_a_program() -> None:
    shown = program("--help")
    assert shown.status == 0
    assert "Usage: tridsl" in shown.out


def test_help_loads_neither_llvm_nor_the_parser() -> None:
    code = "import sys; from tridsl.cli import main; main(['--help']); print(sorted({'llvmlite', 'lark', 'rich', 'vulkan'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def raising(problem: BaseException) -> object:
    def command(settings: Settings) -> Report:
        raise problem

    return command


@pytest.mark.parametrize(
    ("problem", "status"),
    [(error("E0803", "no such file"), output.USER), (KeyboardInterrupt(), 130), (RuntimeError("oops"), 70), (ZeroDivisionError(), 70)],
)
def test_status_of_what_a_command_raises(capsys: pytest.CaptureFixture[str], problem: BaseException, status: int) -> None:
    assert present(raising(problem), Settings, as_json=False) == status  # type: ignore[arg-type]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("bug of tridsl" in printed.err) == (status == 70)
    assert ("Traceback" in printed.err) == (status == 70)


def test_errors_as_json(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "wrong.tri"
    file.write_text("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = z[i]\n}\n")
    found = command("lower", f"{file}:f", "--json")
    assert found.status == 1
    (mistake,) = found.data["errors"]
    assert mistake["file"] == str(file)
    assert (mistake["line"], mistake["column"]) == (2, 10)
    assert mistake["code"].startswith("E02")


def test_a_wrong_environment_is_the_users_mistake(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    found = command("cache", "show")
    assert found.status == 1
    assert "OMP_NUM_THREADS=many" in found.err


def test_settings_are_the_environment() -> None:
    settings = from_environment({"TRIDSL_CACHE": "/somewhere", "OMP_NUM_THREADS": "4,2", "COLUMNS": "120"})
    assert settings == Settings(cache=Path("/somewhere"), threads=4, colour=False, width=120)
    assert from_environment({}) == Settings()
    for value in ("0", "-1", "x"):
        with pytest.raises(TriError, match="E0804"):
            from_environment({"OMP_NUM_THREADS": value})


def test_colours_only_change_colours() -> None:
    with pytest.raises(TriError) as caught:
        from_environment({"COLUMNS": "no"})
    plain, coloured = rendered(caught.value, colour=False), rendered(caught.value, colour=True)
    assert "\x1b[" in coloured and "\x1b[" not in plain
    for code in ("\x1b[1;31m", "\x1b[0;1m", "\x1b[0m", "\x1b[31m", "\x1b[36m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


def test_a_closed_pipe_is_no_bug() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run([sys.executable, "-m", "tridsl", "explain"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 141
    assert done.stderr == ""


def test_interrupt_ends_quietly(tmp_path: Path) -> None:
    file = tmp_path / "slow.tri"
    file.write_text("op slow(x: f32[N]) -> y: f32 {\n  y = sum[i](x[i])\n}\n")
    running = subprocess.Popen(
        [sys.executable, "-m", "tridsl", "run", f"{file}:slow", "--shape", "N=100000000", "--check-stages"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(6)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in err


def test_every_code_of_this_area_is_explained() -> None:
    from tridsl.grammar import explanations

    raised = set()
    for file in Path(output.__file__).parent.rglob("*.py"):
        raised |= {piece[:5] for piece in file.read_text().split('"') if len(piece) == 5 and piece.startswith("E08") and piece[1:].isdigit()}
    assert raised and raised <= set(explanations())


def test_json_is_one_document(command: Command) -> None:
    for arguments in (("devices",), ("doctor",), ("explain",), ("cache", "show"), ("bench", "--suite", "list")):
        found = command(*arguments, "--json")
        assert found.status == 0
        json.loads(found.out)
