"""Emitted shaders as tests read them."""

from __future__ import annotations

import re

from tridsl.backends.vulkan.build import PHASE_MARK
from tridsl.backends.vulkan.template import split_template


def with_sizes(text: str) -> str:
    """An emitted text with the values of its specialisation constants in their places."""
    return PHASE_MARK.join(_with_sizes(shader) for shader in text.split(PHASE_MARK))


def _with_sizes(shader: str) -> str:
    for size in split_template(shader)[1]:
        shader = re.sub(rf"\b{size.name}\b(?! =)", str(size.value), shader)
    return shader
