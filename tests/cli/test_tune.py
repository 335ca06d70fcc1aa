"""`tridsl tune`: real searches of a second or two, and everything that can go wrong around them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import Command
from tridsl.personality.store import Store

FILE = """op twice(x: f32[N]) -> y: f32[N] {
  y[i] = 2 * x[i]
}
bench twice { N = 4096 }

op product(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] {
  C[i, j] = sum[k](A[i, k] * B[k, j])
}
bench product { M = 32, N = 32, K = 32 }

op unmeasured(x: f32[N]) -> y: f32[N] {
  y[i] = x[i]
}

op outside(x: f32[N], at: i32[M]) -> y: f32[M] {
  y[i] = x[at[i]]
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kernels.tri"
    path.write_text(FILE)
    return path


@pytest.fixture(autouse=True)
def personality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIDSL_PERSONALITY", str(tmp_path / "personality"))
    return tmp_path / "personality"


def test_every_op_with_a_bench_block_is_tuned_and_a_second_run_goes_on(command: Command, file: Path, personality: Path) -> None:
    first = command("tune", file, "--budget", "4s", "--device", "cpu", "--json")
    assert first.status == 0, first.err
    results = first.data["results"]
    assert [r["operation"] for r in results] == [f"{file}:twice", f"{file}:product"]
    for result in results:
        assert result["state"] in ("tuned", "kept") and result["label"] == "measured" and result["trials"] > 0
        assert result["winner"]["seconds"] > 0 and result["noise_floor"] > 0 and result["roofline"]["label"] == "predicted"
    assert first.data["store"] == str(personality) and len(Store(personality).subjects()) == 2
    assert "searching" in first.err and "best so far" in first.err and "(measured)" in first.err
    again = command("tune", f"{file}:product", "--budget", "1s", "--device", "cpu")
    assert again.status == 0 and " known" in again.out and "product K=32 M=32 N=32 (f32) on cpu" in again.out


def test_sizes_on_the_command_line(command: Command, file: Path, personality: Path) -> None:
    done = command("tune", f"{file}:unmeasured", "--shape", "x=4x100", "--budget", "1", "--device", "cpu", "--threads", 1)
    assert done.status == 0 and "unmeasured B0=4 N=100 (f32) on cpu" in done.out and "the noise floor is" in done.out
    (subject,) = Store(personality).subjects()
    assert subject.bucket == "B0=4 N=100"


def test_packed_matrices(command: Command, personality: Path) -> None:
    asked = ("tune", "stdlib:tgemm", "--shape", "M=32,K=64,N=2", "--device", "cpu", "--budget", "3s", "--threads", 1)
    done = command(*asked, "--layout", "W=t16", "--json")
    (result,) = done.data["results"]
    assert done.status == 0 and not result["failures"] and result["state"] in ("tuned", "kept")
    (subject,) = Store(personality).subjects()
    assert dict(subject.layouts) == {"W": "t16"}
    wrong = command(*asked, "--layout", "W=t17")
    assert wrong.status == 1 and "E0540" in wrong.err and "t96" in wrong.err


def test_nothing_measured_is_status_3(command: Command, file: Path) -> None:
    """Random positions lie outside of an array of one element: the op's check fails in every candidate."""
    done = command("tune", f"{file}:outside", "--shape", "N=1,M=64", "--budget", "2s", "--device", "cpu")
    assert done.status == 3 and "nothing measured" in done.out and "check failed" in done.out


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (("kernels.tri:twice", "--budget", "soon"), "E0804", "60s"),
    (("kernels.tri:twice", "--budget", "0s"), "E0804", "60s"),
    (("kernels.tri:unmeasured",), "E0814", "bench"),
    (("kernels.tri:nobody",), "E0534", "twice"),
    (("kernels.tri:twice", "--shape", "M=3"), "E0805", "N"),
    (("kernels.tri:twice", "--device", "tpu"), "E0703", "cpu"),
    (("kernels.tri:twice", "--strategy", "luck"), "E0955", "ranked"),
    (("missing.tri",), "E0803", "missing.tri"),
    (("empty.tri:f",), "E0433", "require"),
    (("unknown.tri:f",), "E0431", "rwos"),
])  # fmt: skip
def test_mistakes(arguments: tuple[str, ...], code: str, words: str, command: Command, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    scheduled = "op f(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\nbench f { N = 64 }\nschedule f for cpu {\n  param rows in {2, 4}\n  require REQUIRE\n  y.split(i, rows)\n}\n"
    Path("empty.tri").write_text(scheduled.replace("REQUIRE", "rows > 8"))
    Path("unknown.tri").write_text(scheduled.replace("REQUIRE", "rwos > 8"))
    done = command("tune", *arguments, *(() if "--device" in arguments else ("--device", "cpu")))
    assert done.status == 1 and code in done.err and words in done.err, done
    as_json = command("tune", *arguments, *(() if "--device" in arguments else ("--device", "cpu")), "--json")
    assert as_json.data["errors"][0]["code"] == code


def test_a_store_that_cannot_be_written_is_said_and_tuning_goes_on(command: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRIDSL_PERSONALITY", str(tmp_path / "file" / "personality"))
    done = command("tune", f"{file}:twice", "--budget", "1s", "--device", "cpu", "--json")
    assert done.status == 0 and done.data["in_memory"] > 0 and done.data["results"][0]["winner"]
    assert done.data["notes"][0]["code"] == "E0902"


def test_ctrl_c_keeps_what_was_measured(file: Path, personality: Path) -> None:
    run = [sys.executable, "-m", "tridsl", "tune", str(file), "--budget", "5m", "--device", "cpu", "--json"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}) as session:
        end = time.monotonic() + 60
        while time.monotonic() < end and not any(len(Store(personality).trials(k)) > 3 for k in Store(personality).subjects()):
            time.sleep(0.1)
        session.send_signal(signal.SIGINT)
        out, err = session.communicate(timeout=30)
    assert session.returncode == 130, err
    data = json.loads(out)
    assert data["interrupted"] and data["results"][0]["winner"]
    assert data["not_begun"] or data["results"][-1]["state"] == "interrupted"
    assert sum(len(Store(personality).trials(k)) for k in Store(personality).subjects()) > 3
