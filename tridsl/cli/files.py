"""Files that the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.diagnostics import error


def read_text(file: Path) -> str:
    """A UTF-8 text with its line ends as they are. E0803."""
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as problem:
        raise error("E0803", f"cannot read `{file}`: {problem}", help="give the path of a UTF-8 text file") from None


def read_bytes(file: Path) -> bytes:
    """E0803."""
    try:
        return file.read_bytes()
    except OSError as problem:
        raise error("E0803", f"cannot read `{file}`: {problem.strerror}", help="give the path of a file that can be read") from None


def write_bytes(file: Path, content: bytes) -> None:
    """Makes the folders above. E0815."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as problem:
        raise error("E0815", f"cannot write `{file}`: {problem.strerror}", help="name a place that can be written") from None


def read_array(file: Path) -> NDArray[Any]:
    """A `.npy` file. Pickled objects are refused. E0806."""
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise error("E0806", f"cannot read the array `{file}`: {problem}", help="write it with np.save(file, array)") from None
    if not isinstance(found, np.ndarray):
        raise error("E0806", f"`{file}` holds several arrays", help="write each array to a file of its own with np.save")
    return found


def write_array(file: Path, array: NDArray[Any]) -> None:
    """A `.npy` file. E0815."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array, allow_pickle=False)
    except OSError as problem:
        raise error("E0815", f"cannot write `{file}`: {problem.strerror}", help="name a place that can be written") from None
