"""Collects the free photographs that EfficientNet-Lite0's int8 network is calibrated on.

    pip install scikit-image==0.26.0 scikit-learn==1.9.1 matplotlib
    apt-get install mate-backgrounds lomiri-wallpapers-16.04 lomiri-wallpapers-20.04
    python deploy/calibration_images.py FLOWER_PHOTOS OUT
    beam-flowers backbones --quantize efficientnet-lite0 --images OUT --output INT8

copies them to OUT and prints their number by source. FLOWER_PHOTOS are TensorFlow's. Only ranges of
activations come from the images; no pixel of them is in the network. Drawn and abstract wallpapers
are left out: they widen the ranges, and photographs lose by it (the mean cosine to float32 vectors
of flowers was 0.974 with 50 of them, 0.983 without).
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCES = {
    "scikit-image": ("public domain and CC0, its data/README.txt", "skimage", "data"),
    "scikit-learn": ("CC BY 2.0, its datasets/images/README.txt", "sklearn", "datasets/images"),
    "matplotlib": ("public domain", "matplotlib", "mpl-data/sample_data"),
}
WALLPAPERS = {
    "mate-backgrounds": ("CC BY-SA 4.0 and GPL 2+", "/usr/share/backgrounds/mate/nature"),
    "lomiri-wallpapers": ("CC BY 4.0, CC BY-SA 3.0 and 4.0, CC0", "/usr/share/backgrounds"),
}
_NO_PHOTOGRAPHS = (
    *("chessboard", "color", "logo", "phantom", "multipage", "text", "Minduka"),
    *("Painting", "2004default", "firstgeneration", "rhythm", "string", "analogpattern"),
    *("Picture_", "the-mouse"),
)
FLOWERS = 100


def found(flowers: Path) -> Iterator[tuple[str, str, list[Path]]]:
    """Yields (source, licence, files) of each source."""
    for name, (licence, package, below) in SOURCES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            sys.exit(f"{name} is not installed: see the head of this file")
        folder = Path(spec.origin).parent / below
        yield name, licence, [*folder.glob("*.jpg"), *folder.glob("*.png")]
    for name, (licence, place) in WALLPAPERS.items():
        yield name, licence, [*Path(place).glob("*.jpg")]
    photos = sorted(flowers.glob("*/*.jpg"), key=lambda p: hashlib.sha256(p.name.encode()).digest())
    yield "flower_photos", "CC BY 2.0, its LICENSE.txt", photos[:FLOWERS]


def main() -> None:
    """Copies the images and prints a table of their sources."""
    flowers, out = map(Path, sys.argv[1:])
    for name, licence, paths in found(flowers):
        folder = out / name
        folder.mkdir(parents=True)
        for path in paths:
            if not path.name.startswith(_NO_PHOTOGRAPHS):
                shutil.copy(path, folder)
        print(f"| {name} | {len(list(folder.iterdir()))} | {licence} |")


if __name__ == "__main__":
    main()
