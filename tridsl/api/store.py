"""The disk cache as the call layer sees it: records and binaries by the hash of what they were made from."""

from __future__ import annotations

import binascii
import hashlib
import os
from functools import cache

from tridsl.backend import Binary
from tridsl.runtime.artifacts import Artifacts


class DiskStore:
    """`program.realise.Store` on `runtime.artifacts`."""

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts = artifacts

    def key(self, *parts: object) -> str:
        return f"{code_version()}\0{parts!r}"

    def get(self, key: str) -> bytes | None:
        note = self.artifacts.read_note(key.encode())
        return binascii.a2b_base64(note) if isinstance(note, str) else None

    def put(self, key: str, record: bytes) -> None:
        self.artifacts.write_note(key.encode(), binascii.b2a_base64(record, newline=False).decode())

    def get_binary(self, key: str) -> Binary | None:
        return self.artifacts.read(key.encode())

    def put_binary(self, key: str, binary: Binary) -> None:
        self.artifacts.write(key.encode(), binary)


@cache
def code_version() -> str:
    """Changes whenever any file of tridsl does (name, size, time of change): records never outlive the code that made them.

    About 1 ms; an installed package and a checkout are treated alike.
    """
    facts: list[str] = []
    folders = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith((".py", ".toml")):  # code, and facts and answers for chips
                    stat = entry.stat()
                    facts.append(f"{folder}/{entry.name} {stat.st_size} {stat.st_mtime_ns}")
                elif "." not in entry.name and entry.name != "__pycache__" and entry.is_dir():  # also through links
                    folders.append(entry.path)
    return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:32]
