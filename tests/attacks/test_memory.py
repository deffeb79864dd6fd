"""Images that take far more memory than their files have bytes.

An attacker would gain the end of a worker, and with it of all that it had in hand: SIGKILL comes
for the process, not for the image.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import make_images
import pytest
from PIL import Image

from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.memory_gate import Gate
from beam_flowers.images.recipe import Limits, PixelRecipe

RECIPE = PixelRecipe(24, 32)
MIB = 2**20


def blank(format_: str, side: int = 600, **options: object) -> bytes:
    return make_images.saved(Image.new("RGB", (side, side)), format_, **options)


BLANK = {
    "WEBP": blank("WEBP", lossless=True),
    "PNG": blank("PNG"),
    "PNG with a transparent colour": blank("PNG", transparency=(0, 0, 0)),
    "PNG animated": make_images.animated(
        [Image.new("RGB", (600, 600), c) for c in ("red", "blue")], "PNG"
    ),
    "GIF": blank("GIF"),
    "TIFF in one strip": blank("TIFF", compression="tiff_lzw", strip_size=2**31),
    "JPEG progressive": blank("JPEG", progressive=True, subsampling=0),
    "BMP": blank("BMP"),
    "PPM": blank("PPM"),
    "AVIF": blank("AVIF", speed=10),
    "HEIC": make_images.heic(Image.new("RGB", (600, 600))),
    "JPEG2000": blank("JPEG2000"),
}


@pytest.fixture
def limited(monkeypatch):
    """Sets the process' limit."""

    def limit(size: int) -> Gate:
        gate = Gate(size)
        monkeypatch.setattr("beam_flowers.images.decode.gate", lambda: gate)
        return gate

    return limit


@pytest.mark.parametrize("name", BLANK)
def test_a_image_above_half_of_the_limit_is_refused(name: str, limited) -> None:
    limited(1 * MIB)
    with pytest.raises(ImageError) as raised:
        decode(BLANK[name], RECIPE)
    assert raised.value.error_class == "TooMuchMemory"
    format_ = name.partition(" ")[0]
    assert raised.value.message.startswith(f"{format_} of 600 x 600 pixels takes about ")
    assert "limit of 1 MiB: scale it down, or give" in raised.value.message


@pytest.mark.parametrize("name", BLANK)
def test_many_at_a_time_stay_within_the_budget(name: str, limited) -> None:
    gate = limited(64 * MIB)
    most = []
    hold = gate.hold

    def noting(needed, what):
        most.append(needed)
        return hold(needed, what)

    gate.hold = noting
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda _: decode(BLANK[name], RECIPE).width, range(16)))
    assert decoded == [600] * 16
    assert 1 * MIB < max(most) < 16 * MIB
    assert gate._used == 0


PEAK = """if True:
    import sys
    sys.path[:0] = sys.argv[2:]
    import make_images
    from PIL import Image
    from beam_flowers.images import decode as module
    from beam_flowers.images.memory_gate import Gate
    from beam_flowers.images.recipe import PixelRecipe
    def peak():
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    needed = []
    class Noting(Gate):
        def hold(self, size, what):
            needed.append(size)
            return super().hold(size, what)
    gate = Noting(2**40)
    module.gate = lambda: gate
    module.decode(make_images.png(), PixelRecipe(224, 224))
    data = open(sys.argv[1], "rb").read()
    before = peak()
    module.decode(data, PixelRecipe(224, 224))
    print(peak() - before, needed[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak of a process")
@pytest.mark.parametrize(
    ("format_", "side", "options", "least"),
    [
        ("WEBP", 2600, {"lossless": True, "method": 0}, 14),
        ("PNG", 2600, {"transparency": (9, 9, 9)}, 10),
        ("JPEG", 2600, {"progressive": True, "subsampling": 0}, 5),
        ("JPEG2000", 1300, {}, 15),
        ("AVIF", 2000, {"speed": 10, "subsampling": "4:4:4"}, 8),
    ],
)
def test_the_estimate_is_above_what_is_taken_but_not_far(
    tmp_path, format_, side, options, least
) -> None:
    """`benchmarks/decode_memory.py` has all kinds."""
    (tmp_path / "image").write_bytes(blank(format_, side, **options))
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "image", *sys.path],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    taken, needed = (int(number) / side**2 for number in ran.stdout.split())
    assert least < taken <= needed < 1.5 * taken


@pytest.mark.slow  # A second to make the file.
@pytest.mark.skipif(sys.platform != "linux", reason="Linux limits a process' memory")
def test_a_header_inside_of_the_first_takes_no_more_memory_than_that_one_says() -> None:
    """libavif makes the 81 megapixels that AV1 names as small as the AVIF around it says."""
    data = blank("AVIF", 9000, speed=10)
    at = data.index(b"ispe") + 8
    lying = data[:at] + struct.pack(">II", 64, 64) + data[at + 8 :]
    with pytest.raises(ImageError, match=r"Undecodable|TooMuchMemory"):
        decode_apart(lying, RECIPE)
    assert decode_apart(data, RECIPE).width == 9000


BOUNDED = """if True:
    from beam_flowers.errors import ImageError
    from beam_flowers.images.memory_gate import AskingGate
    gate = AskingGate(2**40, 2**40, print)
    with gate.bounded(2**28, "AVIF"):
        bytearray(2**28)
    try:
        with gate.bounded(2**28, "AVIF of 8 x 8 pixels"):
            bytearray(2**29)
    except ImageError as error:
        print(error)
    bytearray(2**29)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux limits a process' memory")
def test_what_takes_far_more_than_was_estimated_is_refused_its_memory() -> None:
    ran = subprocess.run([sys.executable, "-c", BOUNDED], capture_output=True, text=True)
    assert ran.stdout.startswith("TooMuchMemory: AVIF of 8 x 8 pixels takes more memory to decode")
    assert ran.stderr == ""


def striped_tiff(tag: int, count: int) -> bytes:
    """A TIFF of 64 x 64 grey pixels in rows, of which one tag has that many numbers."""
    rows, at = 64 * bytes(64), 8 + 64 * 64
    numbers = {273: [8 + 64 * n for n in range(64)], 279: [64] * 64}
    numbers[tag] = [*numbers.get(tag, []), *[8] * count][: max(64, count)]
    place, lists = at, b""
    entries = {256: (4, 1, 64), 257: (4, 1, 64), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1)}
    entries |= {277: (3, 1, 1), 278: (4, 1, 1)}
    for name, values in numbers.items():
        entries[name] = (4, len(values), place + len(lists))
        lists += struct.pack(f"<{len(values)}I", *values)
    directory = b"".join(struct.pack("<HHII", t, *entries[t]) for t in sorted(entries))
    header = struct.pack("<2sHI", b"II", 42, place + len(lists))
    return header + rows + lists + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("tag", [273, 279, 258])
def test_a_tiff_of_millions_of_strips_is_refused_before_they_are_read(tag: int) -> None:
    assert decode(striped_tiff(273, 64), RECIPE).width == 64
    bomb = striped_tiff(tag, 1_000_000)
    tracemalloc.start()
    with pytest.raises(ImageError, match="Undecodable: TIFF cannot be decoded: it claims "):
        decode(bomb, RECIPE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(bomb)


@pytest.mark.parametrize("options", [{"tile_size": (4, 4)}, {"codeblock_size": (4, 4)}])
def test_what_jpeg_2000_holds_beside_pixels_is_counted(limited, options) -> None:
    """Tiles of a few pixels take kilobytes each, code blocks hundreds of bytes."""
    image = Image.new("L", (400, 400))
    sound, split = (make_images.saved(image, "JPEG2000", **more) for more in ({}, options))
    limited(10 * MIB)
    assert decode(sound, RECIPE).width == 400
    with pytest.raises(ImageError, match="TooMuchMemory: JPEG2000 of 400 x 400"):
        decode(split, RECIPE)


def test_a_plain_jpeg_of_200_megapixels_is_decoded_small() -> None:
    """Phones write such files; the limit of 120 megapixels counts what is decoded."""
    data = make_images.flat_jpeg(16_320, 12_288)
    started = time.thread_time()
    picture = decode(data, PixelRecipe(224, 224, 0.875))
    assert time.thread_time() - started < 5
    assert (picture.width, picture.height) == (16_320, 12_288)
    assert (picture.pixels == 128).all()


def test_a_jpeg_that_is_decoded_whole_counts_whole() -> None:
    data = make_images.flat_jpeg(16_320, 12_288)
    frame = data.index(b"\xff\xc0")
    with pytest.raises(ImageError, match="TooManyPixels: 16320 x 12288"):
        decode(data[:frame] + b"\xff\xc2" + data[frame + 2 :], RECIPE)
    with pytest.raises(ImageError, match="TooManyPixels: 16320 x 12288"):
        decode(data, PixelRecipe(8000, 8000))


def test_the_limit_counts_what_is_decoded() -> None:
    data = make_images.jpeg(480, 320)
    assert decode(data, RECIPE, Limits(max_pixels=120 * 80)).width == 480
    with pytest.raises(ImageError, match="TooManyPixels: 120 x 80 "):
        decode(data, RECIPE, Limits(max_pixels=120 * 80 - 1))


@pytest.mark.parametrize(
    "data",
    [
        b"P5 65536 1 255\n" + bytes(65536),
        b"P5 1 65536 255\n" + bytes(65536),
        make_images.bomb_png(65_536, 1),
    ],
)
def test_no_side_is_longer_than_65535(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"TooManyPixels: .* a side of more than 65,535 pixels"):
        decode(data, RECIPE)
    assert decode(b"P5 65535 1 255\n" + bytes(65535), RECIPE).width == 65535


def test_a_second_header_does_not_change_the_size(limited) -> None:
    """Pillow takes the last one, and fills the canvas of an animation while it opens the file."""
    limited(64 * MIB)
    bomb = make_images.bomb_png(60_000, 60_000, animated=True)
    small = make_images.bomb_png(8, 8)
    header = small[8 : small.index(b"IDAT") - 4]
    for data in (
        bomb[:8] + header + bomb[8:],
        bomb[:8] + make_images.png_chunk(b"a_1b", struct.pack(">II", 8, 8)) + bomb[8:],
    ):
        with pytest.raises(ImageError, match=r"header is not the first|TooManyPixels"):
            decode(data, RECIPE)
