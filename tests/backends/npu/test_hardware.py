"""The ways to hardware, as far as they go without it: which commands would run, what the driver does with a runtime that is played."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.npu.small import small
from tridsl.backend import BackendUnavailable
from tridsl.backends.npu.build_peano import build_package, commands, find_toolchain
from tridsl.backends.npu.container import pack, unpack
from tridsl.backends.npu.emit import DESIGN, KERNELS
from tridsl.backends.npu.xrt import CONTEXTS, Contexts
from tridsl.diagnostics import TriError


def program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Tools that write what is asked of them, and down what they were asked."""
    program(tmp_path / "peano" / "bin" / "clang++", 'echo "$@" >> ../said; echo object > kernels.o')
    program(tmp_path / "bin" / "aiecc", 'case "$1" in --help) echo "--get-xclbin";; *) cat kernels.o > design.xclbin; echo insts > insts.bin;; esac')
    return tmp_path


def test_absent_tools_are_named(tools: Path) -> None:
    with pytest.raises(BackendUnavailable, match="Peano"):
        find_toolchain(tools / "nowhere", str(tools / "bin"))
    with pytest.raises(BackendUnavailable, match="aiecc"):
        find_toolchain(tools / "peano", str(tools))


def test_the_commands_of_both_ages(tools: Path) -> None:
    found = find_toolchain(tools / "peano", str(tools / "bin"))
    assert found.renamed
    compile_kernels, package = commands(found, "aie2-none-unknown-elf")
    assert "--target=aie2-none-unknown-elf" in compile_kernels and compile_kernels[-4:] == ("-c", KERNELS, "-o", "kernels.o")
    assert package[-1] == DESIGN and "--get-xclbin" in package
    program(tools / "bin" / "aiecc", "echo older")
    assert "--aie-generate-xclbin" in commands(find_toolchain(tools / "peano", str(tools / "bin")), "aie2-none-unknown-elf")[1]


def test_a_package_is_what_the_tools_made(tools: Path) -> None:
    found = build_package({KERNELS: "", DESIGN: ""}, "aie2-none-unknown-elf", find_toolchain(tools / "peano", str(tools / "bin")), small())
    assert found == {"xclbin": b"object\n", "insts": b"insts\n"}


def test_a_tool_that_fails_is_quoted(tools: Path) -> None:
    program(tools / "peano" / "bin" / "clang++", "echo no such instruction >&2; exit 1")
    with pytest.raises(BackendUnavailable, match="no such instruction"):
        build_package({KERNELS: "", DESIGN: ""}, "aie2-none-unknown-elf", find_toolchain(tools / "peano", str(tools / "bin")), small())


def test_binaries_are_taken_apart_or_refused() -> None:
    parts = {"design": b"{}", "library": b"\x7fELF"}
    assert unpack(pack(parts)) == parts
    for broken in (b"", b"TRVK" + bytes(8), pack(parts)[:-1], pack(parts)[:20], b"TRNP" + (9).to_bytes(4, "little") + bytes(4)):
        with pytest.raises(ValueError, match="NPU binary|cut short"):
            unpack(broken)


# A runtime that is played.


@dataclass
class Played:
    """What of `pyxrt` is used: it adds one to the first buffer and puts the result into the second."""

    state: str = "COMPLETED"
    tensors: int = 5
    made: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        played = self

        class Buffer:
            host_only, cacheable = "host_only", "cacheable"

            def __init__(self, device: Any, size: int, flags: str, group: int) -> None:
                assert type(size) is int
                self.data, self.group = bytearray(size), group
                played.made.append(f"bo {flags} {group}")

            def write(self, data: bytes, offset: int) -> None:
                self.data[offset : offset + len(data)] = data

            def sync(self, direction: str) -> None:
                played.made.append(f"sync {direction}")

            def map(self) -> Any:
                return memoryview(self.data)

        class Kernel:
            def __init__(self, context: Any, name: str) -> None:
                pass

            def group_id(self, argument: int) -> int:
                return 100 + argument

            def __call__(self, *arguments: Any) -> Any:
                played.arguments = list(arguments)
                source, target = arguments[3:5]
                target.data[:] = (np.frombuffer(source.data, np.int32) + 1).tobytes()
                return self

            def wait(self, timeout: int) -> str:
                assert timeout > 0
                return played.state

            def get_name(self) -> str:
                return "MLIR_AIE"

            def get_num_args(self) -> int:
                return 3 + played.tensors

        class Container:
            def __init__(self, path: str) -> None:
                assert Path(path).exists()

            def get_uuid(self) -> str:
                return "uuid"

            def get_kernels(self) -> list[Kernel]:
                return [Kernel(None, "")]

        class Context:
            def __init__(self, device: Any, uuid: str) -> None:
                played.made.append("context")

        self.bo, self.kernel, self.xclbin, self.hw_context = Buffer, Kernel, Container, Context

    class xclBOSyncDirection:  # XRT's name
        XCL_BO_SYNC_BO_TO_DEVICE, XCL_BO_SYNC_BO_FROM_DEVICE = "to", "from"

    class ert_cmd_state:
        ERT_CMD_STATE_COMPLETED = "COMPLETED"

    def register_xclbin(self, container: Any) -> None:
        pass


def contexts(played: Played, generation: str = "aie2p") -> Contexts:
    return Contexts(xrt=played, device=played, generation=generation)


def dispatch(device: Contexts, name: bytes = b"one") -> np.ndarray[Any, Any]:
    x, y = np.arange(8, dtype=np.int32), np.zeros(8, np.int32)
    device.run(name, b"\1\0\0\0" * 5, [x], [y], [0, 1])
    return y


def test_a_dispatch_sets_plain_numbers_and_the_buffers_of_their_groups() -> None:
    played = Played()
    np.testing.assert_array_equal(dispatch(contexts(played)), np.arange(8) + 1)
    assert played.arguments[0] == 3 and type(played.arguments[2]) is int and played.arguments[2] == 5
    assert [made for made in played.made if made.startswith("bo")] == ["bo cacheable 101", "bo host_only 103", "bo host_only 104"]


def test_contexts_and_buffers_are_kept() -> None:
    played = Played()
    device = contexts(played)
    dispatch(device)
    before = len([made for made in played.made if made != "sync to" and made != "sync from"])
    dispatch(device)
    assert len([made for made in played.made if made != "sync to" and made != "sync from"]) == before


@pytest.mark.parametrize("generation", CONTEXTS)
def test_a_device_has_no_more_contexts_than_it_can(generation: str) -> None:
    played = Played()
    device = contexts(played, generation)
    for n in range(CONTEXTS[generation] + 1):
        dispatch(device, b"%d" % n)
    assert played.made.count("context") == CONTEXTS[generation] + 1
    assert len(device._live) == (1 if generation == "aie2" else CONTEXTS[generation])
    dispatch(device, b"%d" % CONTEXTS[generation])
    assert played.made.count("context") == CONTEXTS[generation] + 1


def test_other_instructions_are_written_into_the_same_context() -> None:
    """A scalar's value is a word of them."""
    played = Played()
    device = contexts(played)
    x, y = np.arange(8, dtype=np.int32), np.zeros(8, np.int32)
    for value in (1, 2):
        device.run(b"one", value.to_bytes(4, "little") * 5, [x], [y], [0, 1])
        assert bytes(played.arguments[1].data) == value.to_bytes(4, "little") * 5
    assert played.made.count("context") == 1


def test_a_run_that_does_not_complete_is_an_error_and_the_context_is_made_anew() -> None:
    played = Played(state="ABORT")
    device = contexts(played)
    with pytest.raises(TriError, match="ended as ABORT"):
        dispatch(device)
    played.state = "COMPLETED"
    np.testing.assert_array_equal(dispatch(device), np.arange(8) + 1)
    assert played.made.count("context") == 2


def test_more_tensors_than_the_container_takes_are_refused() -> None:
    with pytest.raises(TriError, match="takes 1 tensors, and the call has 2"):
        dispatch(contexts(Played(tensors=1)))
