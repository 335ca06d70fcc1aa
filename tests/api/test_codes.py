"""Every error that the call layer raises has its text for `tridsl explain`."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import tridsl

PARTS = ("api", "program", "buffer.py", "runtime/memory.py", "runtime/execute.py")


def test_codes_have_texts() -> None:
    root = Path(tridsl.__file__).parent
    files = [file for part in PARTS for file in ([root / part] if part.endswith(".py") else (root / part).glob("*.py"))]
    raised = {code for file in files for code in re.findall(r'error\(\s*"(E\d{4})"', file.read_text())}
    folder = resources.files("tridsl.grammar") / "errors"
    texts = {
        code: entry
        for file in folder.iterdir()
        if file.name.endswith(".toml")
        for code, entry in tomllib.loads(file.read_text()).items()
    }
    own = tomllib.loads((folder / "call.toml").read_text())
    assert raised - {"E0803"} <= set(texts), sorted(raised - set(texts))  # E0803 is the command line's
    assert set(own) <= raised | {"E0526", "E0541"}, sorted(set(own) - raised)
    for code, entry in own.items():
        assert entry["title"] and entry["text"].strip(), code
