"""Opens TIFFs with a bounded number of strips."""

from __future__ import annotations

from PIL.TiffImagePlugin import TiffImageFile

from beam_flowers.errors import ImageError

_OF_STRIPS = (273, 279, 324, 325)
"""StripOffsets, StripByteCounts, TileOffsets, TileByteCounts."""
_OF_SAMPLES = (258, 338, 339)
"""BitsPerSample, ExtraSamples, SampleFormat."""
_BYTES = {3: 2, 4: 4, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a number by its type."""

_MOST_STRIPS = 2**18
"""Strips of one row for four planes of the highest image. Pillow makes an object of some 260 bytes
of each strip before the size of the image can be read."""


class Tiff(TiffImageFile):
    """Opens a TIFF with a bounded number of strips or tiles.

    Raises:
        ImageError: `Undecodable` if it claims more.
    """

    def _setup(self) -> None:
        count = strips(self)
        if count > _MOST_STRIPS or _values(self, _OF_SAMPLES) > _MOST_STRIPS:
            raise ImageError(
                "Undecodable",
                f"TIFF cannot be decoded: it claims {count:,} strips or tiles, more than "
                f"{_MOST_STRIPS:,}: save it anew with larger ones",
            )
        super()._setup()


def strips(im: TiffImageFile) -> int:
    """Returns the number of strips or tiles in the header, without reading their offsets."""
    return _values(im, _OF_STRIPS)


def _values(im: TiffImageFile, tags: tuple[int, ...]) -> int:
    raw, types = im.tag_v2._tagdata, im.tag_v2.tagtype
    return max(len(raw.get(tag, b"")) // _BYTES.get(types.get(tag, 1), 1) for tag in tags)
