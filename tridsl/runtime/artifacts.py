"""The disk cache of machine code: one file per artifact, named by the hash of what it was made from.

Plain files, not `diskcache`: the key already is a content hash, so no index is needed, and a file written aside and
renamed is atomic among any number of processes and threads without a lock. Opening an SQLite index would cost more
than reading the artifact. Last use is the file's modification time, which is what eviction goes by.

    <folder>/binaries/ab/ab12…   MAGIC, SHA-256 of the rest, length of the head, head (JSON), object code
    <folder>/notes/cd/cd34…      the same with a JSON document in the place of the object code
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tridsl.backend import Binary, Signature
from tridsl.diagnostics import Diagnostic
from tridsl.environment import cache_folder
from tridsl.ir.expr import Node
from tridsl.ir.op import Param, Scalar, Tensor
from tridsl.ir.serial import from_json, to_json
from tridsl.whole_files import UNFINISHED, write_whole

MAGIC = b"tridsl\x00\x01"
"""Six letters, a zero, and the version of the format."""

DEFAULT_LIMIT_BYTES = 4 << 30
_USED_AGAIN_SECONDS = 3600  # a younger modification time is not renewed: reading then writes nothing
_STALE_SECONDS = 3600  # an unfinished file this old belongs to a process that died
_HEAD = struct.Struct("<8s32sQ")


class _BinaryHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    backend: str
    entry: str
    facts: tuple[tuple[str, int | str], ...]
    params: tuple[msgspec.Raw, ...]
    sizes: tuple[str, ...]
    messages: tuple[str, ...]


_NOTE_HEAD = b'"note"'
_DECODE_HEAD = msgspec.json.Decoder(_BinaryHead)


class CacheContents(msgspec.Struct, frozen=True, kw_only=True):
    """What `tridsl cache show` prints; sizes in bytes."""

    folder: Path
    binaries: int
    notes: int
    size: int
    limit: int


class _Damaged(Exception):
    """A file is not what was written; the text says in which way."""


def warn_of_damage(diagnostic: Diagnostic) -> None:
    """The default report: a RuntimeWarning."""
    warnings.warn(diagnostic.render(), RuntimeWarning, stacklevel=4)


class Artifacts:
    """The cache in `folder` (made, mode 0700, by the first write).

    A key is whatever bytes the caller made the artifact from: the kernel's text, the device's facts, versions. A file
    that cannot be read, or that does not verify, is a miss; a damaged one is deleted and told to `report` once a folder.
    A cache that cannot be written to loses nothing but time. Safe with many processes and threads.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        report: Callable[[Diagnostic], None] = warn_of_damage,
    ) -> None:
        self.folder = folder or cache_folder()
        self.limit_bytes = limit_bytes
        self._report = report
        self._reported = False
        self._lock = threading.Lock()
        self._unaccounted: int | None = None  # bytes written since the last look at the whole folder

    def read(self, key: bytes) -> Binary | None:
        """The binary made from `key`, or None."""
        path = self._path("binaries", key)
        parts = self._load(path)
        if parts is None:
            return None
        try:
            head = _DECODE_HEAD.decode(parts[0])
            params = tuple(_param(raw) for raw in head.params)
        except ValueError as problem:  # msgspec's errors are ValueErrors too
            self._discard(path, f"its head is malformed: {problem}")
            return None
        signature = Signature(params=params, sizes=head.sizes, messages=head.messages)
        return Binary(backend=head.backend, entry=head.entry, blob=parts[1], signature=signature, facts=head.facts)

    def write(self, key: bytes, binary: Binary) -> None:
        """Keep `binary` for `key`; replaces what is there."""
        signature = binary.signature
        head = _BinaryHead(
            backend=binary.backend,
            entry=binary.entry,
            facts=binary.facts,
            params=tuple(msgspec.Raw(to_json(param)) for param in signature.params),
            sizes=signature.sizes,
            messages=signature.messages,
        )
        self._store(self._path("binaries", key), msgspec.json.encode(head), binary.blob)

    def read_note(self, key: bytes) -> Any:
        """The JSON document kept for `key` (dicts, lists, numbers, text), or None."""
        path = self._path("notes", key)
        parts = self._load(path)
        if parts is None:
            return None
        try:
            return msgspec.json.decode(parts[1])
        except (ValueError, RecursionError) as problem:
            self._discard(path, f"it is no JSON document: {problem}")
            return None

    def write_note(self, key: bytes, document: Any) -> None:
        """Keep a small JSON document for `key`. None cannot be told from a miss."""
        self._store(self._path("notes", key), _NOTE_HEAD, msgspec.json.encode(document))

    def show(self) -> CacheContents:
        """Count the files. Those of a format before this one are counted too."""
        sizes = {kind: [size for _, size, _ in self._files(kind)] for kind in ("binaries", "notes")}
        return CacheContents(
            folder=self.folder,
            binaries=len(sizes["binaries"]),
            notes=len(sizes["notes"]),
            size=sum(map(sum, sizes.values())),
            limit=self.limit_bytes,
        )

    def clear(self) -> int:
        """Delete every artifact; how many there were. Processes that run them are not disturbed."""
        import shutil  # 2 ms of start-up time, and few programs clear

        count = sum(len(self._files(kind)) for kind in ("binaries", "notes"))
        for kind in ("binaries", "notes"):
            shutil.rmtree(self.folder / kind, ignore_errors=True)
        return count

    def _path(self, kind: str, key: bytes) -> Path:
        name = hashlib.sha256(MAGIC + key).hexdigest()  # versions of the format never meet
        return self.folder / kind / name[:2] / name

    def _load(self, path: Path) -> tuple[bytes, bytes] | None:
        """Head and body of a file that verifies."""
        try:
            with open(path, "rb") as stream:
                content = stream.read()
                self._touch(stream.fileno())
        except OSError:
            return None
        try:
            return _verified(content)
        except _Damaged as problem:
            self._discard(path, str(problem))
            return None

    @staticmethod
    def _touch(file: int) -> None:
        """Last use, to the hour."""
        try:
            if time.time() - os.fstat(file).st_mtime > _USED_AGAIN_SECONDS:
                os.utime(file)
        except OSError:
            return  # a read-only cache

    def _discard(self, path: Path, why: str) -> None:
        with contextlib.suppress(OSError):  # a read-only cache keeps it; it is never used
            path.unlink()
        with self._lock:
            first, self._reported = not self._reported, True
        if first:
            self._report(
                Diagnostic(
                    code="E0831",
                    message=f"a file of the artifact cache is damaged: {why}",
                    notes=(f"{path} was deleted and is made anew",),
                    help="if this comes again, look at the disk; `tridsl cache clear` empties the cache",
                )
            )

    def _store(self, path: Path, head: bytes, body: bytes) -> None:
        rest = len(head).to_bytes(8, "little") + head + body
        content = MAGIC + hashlib.sha256(rest).digest() + rest
        try:
            for folder in (self.folder, path.parent.parent, path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError:
            return  # full or read-only: the artifact serves this process only
        self._account(len(content))

    def _account(self, written: int) -> None:
        """Look at the folder's size at the first write and then each time a sixteenth of the limit was written."""
        with self._lock:
            total = written if self._unaccounted is None else self._unaccounted + written
            look = self._unaccounted is None or total > self.limit_bytes // 16
            self._unaccounted = 0 if look else total
        if look:
            self._evict()

    def _evict(self) -> None:
        """Delete what was used longest ago until three quarters of the limit are left, when the limit is passed."""
        files = sorted(entry for kind in ("binaries", "notes") for entry in self._files(kind))
        size = sum(entry[1] for entry in files)
        if size <= self.limit_bytes:
            return
        for _, bytes_, path in files:
            if size <= self.limit_bytes * 3 // 4:
                return
            try:
                os.unlink(path)
            except OSError:
                continue
            size -= bytes_

    def _files(self, kind: str) -> list[tuple[float, int, str]]:
        """(last use, bytes, path) of every artifact; removes what dead writers left behind."""
        found = []
        for folder in (self.folder / kind).glob("??"):
            try:
                entries = list(os.scandir(folder))
            except OSError:
                continue
            for entry in entries:
                try:
                    facts = entry.stat(follow_symlinks=False)
                    if entry.name.startswith(UNFINISHED):
                        if time.time() - facts.st_mtime > _STALE_SECONDS:
                            os.unlink(entry.path)
                        continue
                except OSError:
                    continue  # another process deleted it
                found.append((facts.st_mtime, facts.st_size, entry.path))
        return found


def _param(raw: msgspec.Raw) -> Param:
    param = from_json(bytes(raw), Node)
    if not isinstance(param, (Tensor, Scalar)):
        raise ValueError(f"a {type(param).__name__} is no param")  # noqa: TRY004 (the file is wrong)
    return param


def _verified(content: bytes) -> tuple[bytes, bytes]:
    if len(content) < _HEAD.size:
        raise _Damaged(f"it has only {len(content)} bytes")
    magic, digest, length = _HEAD.unpack_from(content)
    if magic != MAGIC:
        raise _Damaged("it does not begin like an artifact of this version")
    if hashlib.sha256(memoryview(content)[40:]).digest() != digest:
        raise _Damaged("its contents do not match their checksum")
    if length > len(content) - _HEAD.size:
        raise _Damaged("its head is longer than the file")
    return content[_HEAD.size : _HEAD.size + length], content[_HEAD.size + length :]
