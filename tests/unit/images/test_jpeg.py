"""JPEGs that end early."""

from __future__ import annotations

import io
from typing import Any

import make_images
import numpy as np
import pytest
from PIL import Image

from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.jpeg import missing_share
from beam_flowers.images.recipe import Limits, PixelRecipe

RECIPE = PixelRecipe(48, 64)
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "restarts of rows": {"restart_marker_rows": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_rows": 1},
    "444": {"subsampling": 0, "quality": 95},
    "grey": {"mode": "L"},
    "grey progressive": {"mode": "L", "progressive": True},
    "inks": {"mode": "CMYK"},
}


def made(kind: str, width: int = 203, height: int = 150) -> bytes:
    options = dict(KINDS[kind])
    image = make_images.scene(width, height).convert(options.pop("mode", "RGB"))
    return make_images.saved(image, "JPEG", **options)


def cut_rows(data: bytes, share: float) -> bytes:
    """The file without the last part of the data of its last scan."""
    start = data.rindex(b"\xff\xda")
    return data[: start + 14 + int((len(data) - start - 14) * (1 - share))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lacking", [1, 2])
@pytest.mark.parametrize("size", [(203, 150), (1, 1), (1600, 40)])
def test_a_file_that_lacks_only_its_end_has_all_its_pixels(
    kind: str, lacking: int, size: tuple[int, int]
) -> None:
    data = made(kind, *size)
    assert data.endswith(b"\xff\xd9")
    cut, whole = decode(data[:-lacking], RECIPE), decode(data, RECIPE)
    np.testing.assert_array_equal(cut.pixels, whole.pixels)
    assert cut[1:] == whole[1:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lacking", [4, 5, 9, 40])
def test_a_file_that_lacks_pixels_is_refused(kind: str, lacking: int) -> None:
    with pytest.raises(ImageError, match="Truncated: JPEG ends before its image does"):
        decode(made(kind)[:-lacking], RECIPE)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "progressive" in kind])
def test_a_progressive_file_that_ends_with_a_scan_but_the_last_is_refused(kind: str) -> None:
    data = made(kind)
    scans = [n for n in range(len(data)) if data.startswith(b"\xff\xda", n)]
    assert len(scans) > 3
    for start in scans[1:]:
        header = max(data.rfind(b"\xff\xc4", 0, start), data.rfind(b"\xff\xdd", 0, start))
        end = header if scans[scans.index(start) - 1] < header else start
        assert missing_share(data[:end], Limits()) == 1
        with pytest.raises(ImageError, match="Truncated"):
            decode(data[:end], RECIPE)


@pytest.mark.parametrize(
    "kind", ["baseline", "restarts", "restarts of rows", "444", "grey", "inks"]
)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_missing_rows_are_those_that_differ_from_the_whole_image(kind: str, share: float) -> None:
    data = cut_rows(made(kind), share)
    with (
        Image.open(io.BytesIO(made(kind))) as whole,
        Image.open(io.BytesIO(data + b"\xff\xd9")) as cut,
    ):
        different = (np.asarray(whole) != np.asarray(cut)).reshape(150, -1).any(axis=1)
    expected = 1 - int(different.argmax()) / 150
    assert missing_share(data, Limits()) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("kept", [3, 20, 200, 600])
def test_of_a_file_that_ends_in_its_header_all_is_missing(kept: int) -> None:
    assert missing_share(made("baseline")[:kept], Limits()) == 1
    with pytest.raises(ImageError, match="Truncated"):
        decode(made("baseline")[:kept], RECIPE)
