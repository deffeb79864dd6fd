"""Opens TIFFs that have no more strips than a picture can need."""

from __future__ import annotations

from PIL.TiffImagePlugin import TiffImageFile

from beam_flowers.errors import PictureError

_OF_STRIPS = (273, 279, 324, 325)
"""StripOffsets, StripByteCounts, TileOffsets, TileByteCounts."""
_OF_SAMPLES = (258, 338, 339)
"""BitsPerSample, ExtraSamples, SampleFormat."""
_BYTES = {3: 2, 4: 4, 8: 2, 9: 4, 13: 4, 16: 8, 17: 8, 18: 8}
"""Of a number, by its type."""

_MOST_STRIPS = 2**18
"""Four planes of as many strips of one row as a picture may have rows. Pillow makes an object of
each strip, of some 260 bytes, before anybody can ask for the size of the picture."""


class Tiff(TiffImageFile):
    """A TIFF with a bounded number of strips or tiles.

    Raises:
        PictureError: `Undecodable`, it claims more.
    """

    def _setup(self) -> None:
        count = strips(self)
        if count > _MOST_STRIPS or _values(self, _OF_SAMPLES) > _MOST_STRIPS:
            raise PictureError(
                "Undecodable",
                f"TIFF cannot be decoded: it claims {count:,} strips or tiles, more than "
                f"{_MOST_STRIPS:,}: save it anew with larger ones",
            )
        super()._setup()


def strips(im: TiffImageFile) -> int:
    """Returns how many strips or tiles the header claims, without reading their places."""
    return _values(im, _OF_STRIPS)


def _values(im: TiffImageFile, tags: tuple[int, ...]) -> int:
    raw, types = im.tag_v2._tagdata, im.tag_v2.tagtype
    return max(len(raw.get(tag, b"")) // _BYTES.get(types.get(tag, 1), 1) for tag in tags)
