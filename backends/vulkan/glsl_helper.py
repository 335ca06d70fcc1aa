"""A GLSL function that shaders may need."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Helper:
    """GLSL `text` that needs the helpers `uses` before it."""

    text: str
    uses: tuple[str, ...] = ()
