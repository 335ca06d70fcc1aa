"""Processes for candidates, forked in milliseconds from one that has imported everything and does nothing else.

A fresh interpreter needs a quarter of a second before it can compile; a copy of a warm one needs a few milliseconds, and may crash,
hang or be killed as well as any other. The zygote has one thread, has opened no device and runs no candidate. When the
tuner goes - ended, killed, crashed - the zygote sees its socket close, kills what it has forked and ends: nothing is left behind.
Should the zygote itself be killed, the kernel kills what it has forked.

It is not `multiprocessing`'s fork server, because that one imports the user's main module again (a script that tunes without
`if __name__ == "__main__"` would tune again in every candidate) and leaves hanging children alone when its user is killed.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tridsl.diagnostics import error

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from tridsl.autotune.zygote import run; run(int(sys.argv[1]))"
_FORK, _WAIT = b"F", b"W"
_NUMBER = struct.Struct("<q")
_REQUEST = struct.Struct("<qd")
"""Of a wait: the process, and for how many seconds."""
_MOST_HANDLES = 8
_RUNNING = 1 << 32
"""The answer to a wait for a process that has not ended: no exit status."""
_LENGTH = struct.Struct("!i")
"""What `Connection.send_bytes` puts before a message."""

LONGEST_ANSWER = 1 << 20
"""Bytes of a candidate's message that are read."""
_GRACE_SECONDS = 5.0
"""For a killed process to end. One that hangs in a driver is left to the zygote."""
_SET_PARENT_DEATH_SIGNAL, _SET_CHILD_SUBREAPER = 1, 36  # of prctl


class ZygoteGone(Exception):
    """The zygote has ended, and its candidates with it: no fault of any of them."""


class Child:
    """A forked process, and our end of the pipe to it. `ended` is its exit status (negative: the signal), None while it runs."""

    def __init__(self, zygote: Zygote, pid: int, pipe: Connection) -> None:
        self.pid, self.pipe = pid, pipe
        self.ended: int | None = None
        self._zygote = zygote
        self._received = bytearray()

    def receive(self, seconds: float) -> bytes:
        """The next message. Raises TimeoutError after `seconds`, even when the process has sent half a message (`Connection.recv`
        would wait for the other half for ever); EOFError or OSError when the pipe is closed; ValueError for what is no message."""
        end = time.monotonic() + seconds
        while (message := self._message()) is None:
            if not self.pipe.poll(max(0.0, end - time.monotonic())):
                raise TimeoutError
            more = os.read(self.pipe.fileno(), 1 << 16)
            if not more:
                raise EOFError
            self._received += more
        return message

    def _message(self) -> bytes | None:
        """One answer is due at a time, so whatever lies behind one is garbage."""
        if len(self._received) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._received)
        if not 0 <= size <= LONGEST_ANSWER or len(self._received) > _LENGTH.size + size:
            raise ValueError("no message")
        if len(self._received) < _LENGTH.size + size:
            return None
        message = bytes(self._received[_LENGTH.size :])
        self._received.clear()
        return message

    def wait(self, seconds: float) -> int | None:
        """Its exit status; None when it has none after `seconds`: a process that has closed its pipe need not have ended. Raises
        ZygoteGone."""
        if self.ended is None:
            self.ended = self._zygote.wait(self.pid, seconds)
        return self.ended

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self.pipe.close()
        if self.ended is None and self._zygote.alive:  # without the zygote it is dead, and the number may be another's
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # nobody has waited for it, so the number is still its own
            with suppress(ZygoteGone):
                self.wait(_GRACE_SECONDS)


class Zygote:
    """The parent's side. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the process that writes it)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(sys.path)], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,  # Ctrl-C is the tuner's
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # NumPy's threads would not survive the fork
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        return os.getpid() == self._owner and self._process.poll() is None

    def fork(self, handles: Sequence[int]) -> Child:
        """A new process with copies of these file handles, which runs `worker.serve` on the other end of its pipe. E0957."""
        ours, theirs = socket.socketpair()
        with theirs:
            reply = self._ask(_FORK, [theirs.fileno(), *handles])
        if reply is None or reply < 0:
            ours.close()
            why = self._last_words() if reply is None else os.strerror(-reply)
            raise error("E0957", f"no process can be started for candidates: {why}", help="look at the memory and process limits of this user (ulimit -a)")
        return Child(self, reply, Connection(ours.detach()))

    def wait(self, pid: int, seconds: float) -> int | None:
        """Of a forked process: its exit status, negative for a signal; None when it has none after `seconds`. Raises ZygoteGone."""
        reply = self._ask(_WAIT + _REQUEST.pack(pid, seconds))
        if reply is None:
            raise ZygoteGone
        return None if reply == _RUNNING else reply

    def end(self) -> None:
        """Ends what it has forked, too."""
        if os.getpid() != self._owner:
            return
        self._socket.close()
        self._process.wait()
        self._log.close()

    def _ask(self, message: bytes, handles: Sequence[int] = ()) -> int | None:
        with self._lock:
            try:
                socket.send_fds(self._socket, [message], list(handles))
                answer = self._socket.recv(_NUMBER.size)
            except OSError:
                return None
        return _NUMBER.unpack(answer)[0] if len(answer) == _NUMBER.size else None

    def _last_words(self) -> str:
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else "it ended without a word"


_LOCK = threading.Lock()
_CURRENT: list[Zygote] = []


def zygote() -> Zygote:
    """The one of this process, started on first use and again should it have died."""
    with _LOCK:
        if not _CURRENT or not _CURRENT[0].alive:
            if not _CURRENT:
                atexit.register(_end)
            _CURRENT[:] = [Zygote()]
        return _CURRENT[0]


def _end() -> None:
    if _CURRENT:
        _CURRENT[0].end()


# The zygote's own side.


def run(handle: int) -> None:
    """Its whole life: get warm, then fork and wait on request until the tuner is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(_SET_CHILD_SUBREAPER, 1)  # what a candidate forks becomes ours when the candidate ends, and is ended
    requests = socket.socket(fileno=handle)
    _warm()
    children: set[int] = set()
    while True:
        try:
            message, handles, _, _ = socket.recv_fds(requests, 64, _MOST_HANDLES)
        except OSError:
            message, handles = b"", []
        if not message:
            _sweep(set())
            os._exit(0)
        if message[:1] == _FORK:
            reply = _forked(requests, handles)
            if reply > 0:
                children.add(reply)
        else:
            pid, seconds = _REQUEST.unpack(message[1:])
            reply = _status(pid, seconds, requests)
            if reply != _RUNNING:
                children.discard(pid)
                _sweep(children)
        with suppress(OSError):  # the tuner went meanwhile: the next message is its end
            requests.send(_NUMBER.pack(reply))


def _forked(requests: socket.socket, handles: list[int]) -> int:
    """The new process, or the error's number, negative, when none can be had."""
    try:
        pid = os.fork()
    except OSError as problem:
        pid = -(problem.errno or errno.EAGAIN)
    if pid == 0:
        requests.close()
        _child(handles)
    for one in handles:
        os.close(one)
    return pid


def _status(pid: int, seconds: float, requests: socket.socket) -> int:
    """Waits for the child so long; should the tuner die meanwhile, for the child's death at our hands."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return _RUNNING
        gone, _, _ = select.select([requests], [], [], 0.002)
        if gone:  # nothing is asked while an answer is due: the socket was closed
            os.kill(pid, signal.SIGKILL)


def _sweep(known: set[int]) -> None:
    """Kill all children but the known: what candidates have left behind, with what that has forked in turn."""
    end = time.monotonic() + _GRACE_SECONDS
    while (strays := _own() - known) and time.monotonic() < end:
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # once it is gone, its own children are ours
        time.sleep(0.0005)


def _own() -> set[int]:
    """Children of this process, which has one thread."""
    try:
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    except OSError:  # a kernel that does not list them: parents are asked for one by one
        return {pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == os.getpid()}


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _prctl(what: int, value: int) -> None:
    ctypes.CDLL(None).prctl(what, value, 0, 0, 0)


def _child(handles: list[int]) -> None:
    """In the forked process, which has a session of its own: a signal to its group reaches nobody else."""
    from tridsl.autotune import worker

    status = 1
    try:
        os.setsid()
        _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        pipe, said, *memory = handles
        for stream in (1, 2):
            os.dup2(said, stream)
        worker.main(Connection(pipe), memory)
        status = 0
    finally:
        os._exit(status)


def _warm() -> None:
    """Everything that a compilation imports and makes once, by compiling something for the processor."""
    from tridsl.autotune import worker  # noqa: F401  # what the children run
    from tridsl.backend import load_backend
    from tridsl.backends.cpu import clock
    from tridsl.dtypes import F32
    from tridsl.ir.expr import Load, Var, binary, index
    from tridsl.ir.op import Axis, Map, Op, Tensor
    from tridsl.pipeline import Build, build

    element = Load(tensor="x", index=(Var(name="i"),), dtype=F32)
    twice = Map(name="y", dtype=F32, axes=(Axis(name="i", lo=index(0), hi=Var(name="N")),), value=binary("add", element, element))
    x, y = Tensor(name="x", dtype=F32, shape=(Var(name="N"),)), Tensor(name="y", dtype=F32, shape=(Var(name="N"),), role="output")
    backend = load_backend("cpu")
    device = backend.driver().devices()[0]
    backend.driver().load(build(Op(name="warm", types=(), params=(x, y), sizes=("N",), stages=(twice,)), Build(spec=device.spec, backend=backend)), device)
    clock.repeat()
