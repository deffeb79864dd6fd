"""Camera raw files laid out as TIFF, and images that resemble them."""

from __future__ import annotations

from typing import Any

import make_images
import pytest
from raws import IMAGE, RAWS, THUMBNAIL, tiff

from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.recipe import PixelRecipe


@pytest.mark.parametrize("name", RAWS)
def test_camera_raw_is_refused_by_name(name: str) -> None:
    with pytest.raises(ImageError) as raised:
        decode(RAWS[name], PixelRecipe(8, 8))
    assert raised.value.error_class == "UnsupportedFormat"
    kind = name.partition(" ")[0]
    assert raised.value.message.startswith(f"camera raw ({kind}")
    assert "is not read: convert it" in raised.value.message


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("tags", "below"),
    [
        (IMAGE, ()),
        (THUMBNAIL, ()),
        ({**IMAGE, 271: b"NIKON CORPORATION\0"}, ()),
        ({**IMAGE, 271: b"NIKON CORPORATION\0"}, (THUMBNAIL,)),
        ({**IMAGE, 50706: b"\1\4\0\0"}, ()),
    ],
    ids=["image", "thumbnail", "of a camera", "pyramid", "with the tags of a DNG"],
)
def test_a_image_is_none(
    tags: dict[int, Any], below: tuple[dict[int, Any], ...], order: str
) -> None:
    picture = decode(tiff(tags, below, order=order), PixelRecipe(8, 8))
    assert picture.pixels[..., 0].tobytes() == bytes(range(64))


def test_a_big_tiff_is_no_raw_file() -> None:
    image = make_images.scene()
    data = make_images.saved(image, "TIFF", big_tiff=True)
    assert decode(data, PixelRecipe(48, 64)).pixels.tobytes() == image.tobytes()
