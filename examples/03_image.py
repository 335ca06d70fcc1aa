"""Edges of a picture: `python examples/03_image.py [PICTURE] [RESULT.png]`. Integers only, so every device gives the same bits.

From the shell: `tridsl run stdlib:edges --image PICTURE --set threshold=40 -o edges.png`.
"""

import sys
from pathlib import Path

import numpy as np

import tridsl
from tridsl import stdlib

try:
    from PIL import Image
except ImportError:
    sys.exit("this example needs Pillow: pip install 'tridsl[image]'")

result = Path(sys.argv[2] if len(sys.argv) > 2 else "out/03_image.png")
if len(sys.argv) > 1:
    rgba = np.asarray(Image.open(sys.argv[1]).convert("RGBA"))
else:  # a disc on a slope, when no picture is given
    y, x = np.mgrid[0:240, 0:320]
    disc = (x - 160) ** 2 + (y - 120) ** 2 < 80**2
    rgba = np.stack([np.where(disc, 220, x // 2), np.where(disc, 40, y // 2), np.full_like(x, 90), np.full_like(x, 255)], -1).astype(np.uint8)

edge = stdlib.edges(rgba, 40)
result.parent.mkdir(parents=True, exist_ok=True)
Image.fromarray(edge).save(result)
print(f"{result}: {edge.shape[1]}x{edge.shape[0]}, {np.count_nonzero(edge)} edge pixels")

for device in tridsl.devices():
    assert np.array_equal(edge, stdlib.edges(rgba, 40, device=str(device)))
    print(f"{device}: the same bits")
