"""Processes for candidates, forked in milliseconds from one that has imported everything and does nothing else.

A fresh interpreter needs a quarter of a second before it can compile; a copy of a warm one needs a few milliseconds, and may crash,
hang or be killed as well as any other. The zygote has one thread, has opened no device and runs no candidate. When the
tuner goes - ended, killed, crashed - the zygote sees its socket close, kills what it has forked and ends: nothing is left behind.

It is not `multiprocessing`'s fork server, because that one imports the user's main module again (a script that tunes without
`if __name__ == "__main__"` would tune again in every candidate) and leaves hanging children alone when its user is killed.
"""

from __future__ import annotations

import atexit
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
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from tridsl.diagnostics import error

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[2]); from tridsl.autotune.zygote import run; run(int(sys.argv[1]))"
_FORK, _WAIT = b"F", b"W"
_NUMBER = struct.Struct("<q")
_MOST_HANDLES = 8


class Child:
    """A forked process, and our end of the pipe to it. `ended` is its exit status (negative: the signal), None while it runs."""

    def __init__(self, zygote: Zygote, pid: int, pipe: Connection) -> None:
        self.pid, self.pipe = pid, pipe
        self.ended: int | None = None
        self._zygote = zygote

    def wait(self) -> int:
        """Its exit status; waits until it has one."""
        if self.ended is None:
            self.ended = self._zygote.wait(self.pid)
        return self.ended

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self.pipe.close()
        if self.ended is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # nobody has waited for it, so the number is still its own
            self.wait()


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
        if reply is None:
            ours.close()
            raise error("E0957", f"no process can be started for candidates: {self._last_words()}", help="look at the memory and process limits of this user (ulimit -a)")
        return Child(self, reply, Connection(ours.detach()))

    def wait(self, pid: int) -> int:
        """Of a forked process: its exit status, negative for a signal."""
        reply = self._ask(_WAIT + _NUMBER.pack(pid))
        return -signal.SIGKILL if reply is None else reply

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
    requests = socket.socket(fileno=handle)
    _warm()
    children: dict[int, int | None] = {}
    while True:
        try:
            message, handles, _, _ = socket.recv_fds(requests, 64, _MOST_HANDLES)
        except OSError:
            message, handles = b"", []
        if not message:
            for pid, status in children.items():
                if status is None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            os._exit(0)
        if message[:1] == _FORK:
            pid = os.fork()
            if pid == 0:
                requests.close()
                _child(handles)
            children[pid] = None
            for one in handles:
                os.close(one)
            requests.send(_NUMBER.pack(pid))
        else:
            (pid,) = _NUMBER.unpack(message[1:])
            requests.send(_NUMBER.pack(_status(pid, requests)))
            children.pop(pid, None)


def _status(pid: int, requests: socket.socket) -> int:
    """Waits for the child; should the tuner die meanwhile, for the child's death at our hands."""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        gone, _, _ = select.select([requests], [], [], 0.002)
        if gone:  # nothing is asked while an answer is due: the socket was closed
            os.kill(pid, signal.SIGKILL)


def _child(handles: list[int]) -> None:
    """In the forked process."""
    from tridsl.autotune import worker

    status = 1
    try:
        pipe, *memory = handles
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
