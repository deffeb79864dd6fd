"""Recognises image formats by the content of files, never by their names.

Camera raw files may have the layout of TIFF; of these Pillow would read only a thumbnail.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIC", "JPEG2000")
"""Formats that are decoded, by Pillow's names; HEIC is our own."""

EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "mpo"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm", "pfm"),
    "AVIF": ("avif", "avifs"),
    "HEIC": ("heic", "heics", "heif", "heifs", "hif"),
    "JPEG2000": ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
}
"""Endings of the names of files, by format."""

NOT_HERE = "is not read here"
"""Words in the message of a reject that another package can read, see `heif.cure`."""

# Two letters are too few: prose may begin with "BM" or "P5". So a BMP must also have one of the
# existing header sizes, and a PPM (PBM, PGM, PFM) a first number or comment.
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
"""Format by the brands of a file of boxes (ISO 14496-12). The first known brand counts."""
_CONTAINERS = (b"mif1", b"mif2", b"msf1", b"miaf")
_CODEC = re.compile(rb"infe(?:\x02.{7}|\x03.{9})(av01|hvc1)", re.DOTALL)
"""Codec of the first image in a container whose brands do not name one."""

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
"""Bytes at the beginning of a file that patterns are matched against. Against all of a false SVG of
100 MB they took minutes, during which no other thread ran."""


def sniff(data: bytes) -> str | None:
    """Returns the format of the content, one of `FORMATS`, or None."""
    format_ = _first(_OURS, data) or _boxed(data)
    return None if format_ == "TIFF" and camera_raw(data) else format_


def sniff_other(data: bytes) -> str | None:
    """Returns the name of the content's image format if that is known and not decoded."""
    if _first(_OURS, data) == "TIFF":
        raw_format = camera_raw(data)
        return f"camera raw ({raw_format})" if raw_format else None
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


_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _BELOW, _DNG = 254, 259, 262, 271, 330, 50706

_SENSOR = (32803, 34892)
"""Values of PhotometricInterpretation: colour filter array, linear raw (TIFF/EP, DNG)."""
_OF_CAMERAS = (32767, 32769, 32770, 34713, 65000, 65535)
"""Values of Compression: Sony, packed raw, Samsung, Nikon, Kodak, Pentax."""

_MAKERS = {
    "NIKON": "NEF",
    "SONY": "ARW",
    "PENTAX": "PEF",
    "RICOH": "PEF",
    "SAMSUNG": "SRW",
    "HASSELBLAD": "3FR",
    "SEIKO EPSON": "ERF",
    "KODAK": "DCR",
    "EASTMAN KODAK": "DCR",
    "MAMIYA": "MEF",
    "LEAF": "MOS",
    "PHASE ONE": "IIQ",
}

_MOST_ENTRIES, _MOST_DIRECTORIES = 1_000, 8
"""Bounds of the search: real files have some hundred entries and three directories."""


class _Form(NamedTuple):
    """Holds the layout of numbers in a TIFF or a BigTIFF.

    Attributes:
        order: byte order, `<` or `>`.
        entries: struct's letter for the number of entries.
        entry: struct's letters for tag, type, number of values and the bytes of a value.
        offset: struct's letter for an offset in the file.
    """

    order: str
    entries: str
    entry: str
    offset: str


def camera_raw(data: bytes) -> str | None:
    """Returns the camera raw format of a TIFF, such as `NEF`, or None for an image.

    A file is camera raw if one of its first directories describes a sensor's data, or if it has
    the tag of DNG and begins with a thumbnail. Programs copy the tags of a DNG into images made
    from it, which do not begin with a thumbnail.

    Args:
        data: the whole file, which begins with the four bytes of a TIFF.
    """
    if data[8:12] in (b"IIII", b"MMMM"):
        return "IIQ"
    directories = list(_directories(data))
    has_sensor = any(
        d.get(_PHOTOMETRIC, b"") in _SENSOR or d.get(_COMPRESSION, b"") in _OF_CAMERAS
        for d in directories
    )
    main = directories[0] if directories else {}
    if _DNG in main and (has_sensor or main.get(_SUBFILE) == 1):
        return "DNG"
    if not has_sensor:
        return None
    maker = str(main.get(_MAKE, ""))
    return next((raw for name, raw in _MAKERS.items() if maker.startswith(name)), "unknown kind")


def _directories(data: bytes) -> Iterator[dict[int, int | str]]:
    """Yields the tags of the first directory, and of those below and after it."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    form = _Form(order, "Q", "HHQ8s", "Q") if is_big else _Form(order, "H", "HHI4s", "I")
    head = data.ljust(16, b"\0")
    waiting = list(struct.unpack_from(order + form.offset, head, 8 if is_big else 4))
    for _ in range(_MOST_DIRECTORIES):
        if not waiting:
            return
        try:
            tags, more = _directory(data, waiting.pop(0), form)
        # It is behind the end of the file, or of any file. Pillow reports that.
        except (struct.error, OverflowError):
            continue
        yield tags
        waiting += more


def _directory(data: bytes, at: int, form: _Form) -> tuple[dict[int, int | str], list[int]]:
    """Returns the tags that identify raw files, and the offsets of further directories."""
    order, entry = form.order, struct.Struct(form.order + form.entry)
    (count,) = struct.unpack_from(order + form.entries, data, at)
    at += struct.calcsize(order + form.entries)
    tags: dict[int, int | str] = {}
    more: list[int] = []
    for n in range(min(count, _MOST_ENTRIES)):
        tag, type_, values, content = entry.unpack_from(data, at + n * entry.size)
        offset = struct.unpack(order + form.offset, content)[0]
        if tag == _MAKE:
            tags[tag] = data[offset : offset + 20].decode("ascii", "replace").upper()
        elif tag == _BELOW:
            letters = f"{order}{min(values, _MOST_DIRECTORIES)}{form.offset}"
            inline = values * struct.calcsize(form.offset) <= len(content)
            more += [offset] if inline else struct.unpack_from(letters, data, offset)
        elif tag in (_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _DNG):
            tags[tag] = struct.unpack_from(order + ("H" if type_ == 3 else "I"), content)[0]
    if count <= _MOST_ENTRIES:
        more += struct.unpack_from(order + form.offset, data, at + count * entry.size)
    return tags, [offset for offset in more if offset]
