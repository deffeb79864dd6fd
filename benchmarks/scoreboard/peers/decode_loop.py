"""Decoding alone, as img2dataset does it: OpenCV in full, INTER_AREA, a thread a core.
IMAGES NETWORK SIZE OUTPUT; no network is run, no table written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from common import arguments


def decode(name: str, size: int) -> int:
    """The bytes of an image's pixels."""
    content = np.frombuffer(Path(name).read_bytes(), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).nbytes


if __name__ == "__main__":
    names, _, size, _ = arguments()
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        print(sum(pool.map(lambda name: decode(name, size), names)), "bytes")
