"""Tells from the content which picture format a file is in; names are never asked."""

from __future__ import annotations

import re

from beam_flowers.images.raw import camera_raw

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIC", "JPEG2000")
"""The only formats that are decoded (names as Pillow's, but for HEIC)."""

NOT_HERE = "is not read here"
"""In the message of a reject that is a picture once more is installed, see `heif.cure`."""

# Two letters alone are no proof: prose may start with "BM" or "P5", so a BMP must also have
# one of the header sizes that exist and a PPM (PBM, PGM, PFM) a first number or comment.
_OURS = (
    ("JPEG", rb"\xff\xd8\xff"),
    ("PNG", rb"\x89PNG\r\n\x1a\n"),
    ("WEBP", rb"RIFF.{4}WEBP"),
    ("GIF", rb"GIF8[79]a"),
    ("BMP", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    ("TIFF", rb"II[*+]\0(?!.{4}CR)|MM\0[*+]"),
    ("PPM", rb"P[1-6f]\s+[-\d#]"),
    ("JPEG2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
)

_BRANDS = dict.fromkeys((b"avif", b"avis"), "AVIF") | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"
)
"""What a file of boxes (ISO 14496-12) says of itself. The first that it names counts."""
_CONTAINERS = (b"mif1", b"mif2", b"msf1", b"miaf")
_CODEC = re.compile(rb"infe(?:\x02.{7}|\x03.{9})(av01|hvc1)", re.DOTALL)
"""Of the first picture in a container whose brands leave the codec open."""

# Signatures from each format's own specification.
_OTHERS = (
    (
        "HEIF of another codec",
        rb".{4}ftyp(mi[afx123]|ms[fx]1|vvi[cs]|avc[is]|j2[ki]|jpe?gs?|evb[is])",
    ),
    ("JPEG XL", rb"\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a"),
    ("JPEG XR", rb"II\xbc\x01"),
    ("camera raw (CR2)", rb"II\*\0.{4}CR"),
    ("camera raw (CR3)", rb".{4}ftypcrx"),
    ("camera raw (RAF)", rb"FUJIFILMCCD-RAW"),
    ("camera raw (ORF)", rb"IIR[OS]|MMOR"),
    ("camera raw (RW2)", rb"IIU\0"),
    ("camera raw (MRW)", rb"\0MRM"),
    ("camera raw (X3F)", rb"FOVb"),
    ("PSD", rb"8BPS"),
    ("XCF", rb"gimp xcf"),
    ("EPS", rb"%!PS-Adobe-\d\.\d EPSF|\xc5\xd0\xd3\xc6"),
    ("SVG", rb"(\xef\xbb\xbf)?\s*(<\?xml.{0,512}?)?(<!--.{0,512}?-->\s*)?(<!DOCTYPE svg|<svg)"),
    ("ICO", rb"\0\0[\x01\x02]\0[\x01-\xff]\0"),
    ("ICNS", rb"icns"),
    ("OpenEXR", rb"\x76\x2f\x31\x01"),
    ("Radiance HDR", rb"#\?RADIANCE"),
    ("DDS", rb"DDS "),
    ("FITS", rb"SIMPLE  ="),
    ("DjVu", rb"AT&TFORM"),
    ("QOI", rb"qoif"),
    ("PAM", rb"P7\s"),
)


_HEAD_BYTES = 4 * 1024
"""Of a file the part that patterns are matched against. Against all of a file that pretends to be
an SVG of 100 MB they took minutes, in which no other thread ran."""


def sniff(data: bytes) -> str | None:
    """Returns which of `FORMATS` the content is in, or None."""
    format_ = _first(_OURS, data) or _boxed(data)
    return None if format_ == "TIFF" and camera_raw(data) else format_


def sniff_other(data: bytes) -> str | None:
    """Returns the name of a picture format that the content is in and that is not decoded."""
    if _first(_OURS, data) == "TIFF":
        kind = camera_raw(data)
        return f"camera raw ({kind})" if kind else None
    return None if _boxed(data) else _first(_OTHERS, data)


def _boxed(data: bytes) -> str | None:
    head = data[:_HEAD_BYTES]
    if head[4:8] != b"ftyp":
        return None
    end = min(len(head), int.from_bytes(head[:4], "big"))
    brands = [head[at : at + 4] for at in (8, *range(16, end - 3, 4))]
    for brand in brands:
        if format_ := _BRANDS.get(brand):
            return format_
    if brands[0] in _CONTAINERS and (codec := _CODEC.search(head)):
        return "AVIF" if codec[1] == b"av01" else "HEIC"
    return None


def _first(signatures: tuple[tuple[str, bytes], ...], data: bytes) -> str | None:
    head = data[:_HEAD_BYTES]
    for name, pattern in signatures:
        if re.match(pattern, head, re.DOTALL):
            return name
    return None
