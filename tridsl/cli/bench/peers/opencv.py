"""OpenCV's filters for the edges of a picture, into images that are there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tridsl.cli.bench.peers.contract import Arguments, Table


def _opencv(a: Arguments, out: Sequence[Any], sobel: bool) -> Callable[[], Any]:
    cv2: Any = importlib.import_module("cv2")
    rgba, edge = a["rgba"], out[0]
    shape = rgba.shape[:2]
    gray, first, second = np.empty(shape, np.uint8), np.empty(shape, np.int16), np.empty(shape, np.int16)
    low, high = np.empty(shape, np.uint8), np.empty(shape, np.uint8)

    def laplacian() -> Any:
        cv2.cvtColor(rgba, cv2.COLOR_RGBA2GRAY, dst=gray)
        cv2.Laplacian(gray, cv2.CV_16S, dst=first, ksize=1, borderType=cv2.BORDER_REPLICATE)
        cv2.convertScaleAbs(first, dst=low)
        cv2.threshold(low, a["threshold"], 255, cv2.THRESH_BINARY, dst=edge)
        return edge

    def gradient() -> Any:
        cv2.cvtColor(rgba, cv2.COLOR_RGBA2GRAY, dst=gray)
        cv2.Sobel(gray, cv2.CV_16S, 1, 0, dst=first, borderType=cv2.BORDER_REPLICATE)
        cv2.Sobel(gray, cv2.CV_16S, 0, 1, dst=second, borderType=cv2.BORDER_REPLICATE)
        cv2.convertScaleAbs(first, dst=low)
        cv2.convertScaleAbs(second, dst=high)
        cv2.add(low, high, dst=low)
        cv2.threshold(low, a["threshold"], 255, cv2.THRESH_BINARY, dst=edge)
        return edge

    return gradient if sobel else laplacian


OPENCV: Table = {"edges": lambda a, out: _opencv(a, out, False), "sobel_edges": lambda a, out: _opencv(a, out, True)}
