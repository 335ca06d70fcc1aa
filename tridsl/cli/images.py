"""Pictures in and out of arrays, through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.diagnostics import error
from tridsl.dtypes import U8
from tridsl.ir.expr import Const
from tridsl.ir.op import Op, Tensor

MODES: dict[tuple[int, ...], str] = {(): "L", (3,): "RGB", (4,): "RGBA"}
"""Pillow's mode for the constant axes behind height and width."""


def image_parameter(op: Op) -> tuple[Tensor, str]:
    """The parameter that takes a picture, u8[H, W], u8[H, W, 3] or u8[H, W, 4], and Pillow's mode for it.

    E0808 when the op has no such parameter, or other tensors beside it.
    """
    tensors = [t for t in op.tensors if t.role != "output"]
    if len(tensors) == 1 and tensors[0].dtype == U8 and len(tensors[0].shape) >= 2:
        channels = tuple(int(d.value) if isinstance(d, Const) else 0 for d in tensors[0].shape[2:])
        mode = MODES.get(channels)
        if mode is not None:
            return tensors[0], mode
    raise error(
        "E0808", f"`{op.name}` does not take a picture",
        help="an image op has one tensor parameter: u8[H, W] (grey), u8[H, W, 3] (RGB) or u8[H, W, 4] (RGBA)",
    )  # fmt: skip


def read_image(file: Path, mode: str) -> NDArray[np.uint8]:
    """The picture as (H, W) or (H, W, channels), turned as its EXIF data says. E0807."""
    image, operations = _pillow()
    try:
        with image.open(file) as picture:
            return np.asarray(operations.exif_transpose(picture).convert(mode))
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as problem:
        raise error("E0807", f"cannot read the picture `{file}`: {problem}", help="give a PNG or JPEG file") from None


def write_image(file: Path, array: NDArray[Any]) -> None:
    """(H, W), (H, W, 3) or (H, W, 4) bytes in the format of the file's suffix. E0807, E0815."""
    image, _ = _pillow()
    mode = MODES.get(array.shape[2:]) if array.ndim >= 2 else None
    if array.dtype != np.uint8 or mode is None:
        raise error(
            "E0807", f"an array {array.dtype}{list(array.shape)} is no picture, so `{file}` cannot be written",
            help="pictures are u8 of shape (H, W), (H, W, 3) or (H, W, 4); write other results to a .npy file",
        )  # fmt: skip
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.ascontiguousarray(array)).save(file)
    except ValueError as problem:
        raise error("E0807", f"cannot write `{file}`: {problem}", help="end the name in .png or .jpg") from None
    except OSError as problem:
        raise error("E0815", f"cannot write `{file}`: {problem}", help="name a place that can be written") from None


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps  # the extra `image`
    except ImportError:
        raise error("E0807", "pictures need Pillow, which is not installed", help="pip install 'tridsl[image]'") from None
    return Image, ImageOps
