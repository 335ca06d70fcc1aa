"""The grammar of `.tri`, its syntax errors by example, and the explanation of every error code: data, read once."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files


@cache
def text() -> str:
    """The Lark grammar."""
    return files(__name__).joinpath("tri.lark").read_text(encoding="utf-8")


@cache
def version() -> str:
    """Hash of the grammar: part of every cache key that depends on how text is read."""
    return hashlib.sha256(text().encode()).hexdigest()[:16]
