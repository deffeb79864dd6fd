"""Damaged tars, zips and TFRecords: whatever the bytes, each costs a reject and no more.

    BEAM_FLOWERS_FUZZ=300 pytest tests/attacks/test_fuzz.py     # 300 seconds a reader

Each input is one of a seed, so that a failure names the one to look at.
"""

import contextlib
import itertools
import os
import random
import resource
import struct
import tarfile
import time
import zipfile

import make_images
import pytest
from shards import add, example, record, write_tar, write_zip

from beam_flowers import files
from beam_flowers.images.find import find_images
from beam_flowers.records import HiddenFile, Image, Reject, RootListed

SECONDS = float(os.environ.get("BEAM_FLOWERS_FUZZ", 0))
SEEDS = 150
A, B = make_images.jpeg(seed=1)[:700], make_images.png(seed=2)[:300]
EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
NAMES = [("rose/1.jpg", A), ("tulip/é.png", B), ("rose/1.txt", b"daisy"), ("x/" * 60 + "3", A)]


def tars(path, draw):
    write_tar(path, NAMES, format=draw.choice([0, 1, 2]))
    if draw.random() < 0.3:
        with tarfile.open(path, "a") as archive:
            add(archive, "rose/4.jpg", type=tarfile.LNKTYPE, linkname="rose/1.jpg")
            add(archive, "rose/5.jpg", type=tarfile.SYMTYPE, linkname="1.jpg")


def zips(path, draw):
    method = draw.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
    write_zip(path, [*NAMES, ("folder/", b""), ("i.zip", b"PK\5\6" + bytes(18))], method)
    with zipfile.ZipFile(path, "a", method) as archive:
        with archive.open("large.jpg", "w", force_zip64=draw.random() < 0.5) as member:
            member.write(A)
        archive.comment = b"." * draw.choice([0, 0, 30])


def records(path, draw):
    examples = [example(image__encoded=A, image__class__text="é".encode(), image__class__label=7)]
    examples += [example(image=B, label=-3), example(label=1), example(image=A, x=b"." * 300)]
    # Else hardly any damage would be seen behind the checksum.
    damaged = [make_images.mutated(e, draw.getrandbits(32)) or b"" for e in examples]
    path.write_bytes(b"".join(map(record, draw.choice([examples, damaged, damaged]))))


def damaged(data, draw):
    """With a number of the format replaced by an extreme one, or with any other damage."""
    for _ in range(draw.choice([0, 1, 1, 2])):
        if len(data) > 8 and draw.random() < 0.5:
            form = draw.choice("BHIQ")
            size = struct.calcsize(f"<{form}")
            # The list of a zip is its end.
            at = draw.choice([draw.randrange(len(data) - 8), len(data) - draw.randint(8, 400)])
            number = draw.choice(EXTREMES) & (1 << 8 * size) - 1
            data = data[: max(0, at)] + struct.pack(f"<{form}", number) + data[max(0, at) + size :]
        else:
            data = make_images.mutated(data or b"x", draw.getrandbits(32))
    return data


def with_tar_checksums(data):
    """Else hardly any damage would be seen behind them."""
    data = bytearray(data)
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = f"{sum(data[at : at + 512]):06o}\0 ".encode()
    return bytes(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.timeout(int(SECONDS) + 120)
@pytest.mark.parametrize("make", [tars, zips, records], ids=["tar", "zip", "tfrecord"])
def test_damage_is_one_reject_each(tmp_path, make):
    kind = {tars: "tar", zips: "zip", records: "tfrecord"}[make]
    end = time.monotonic() + SECONDS
    memory = peak()
    for seed in itertools.count():
        if seed >= SEEDS and time.monotonic() >= end:
            break
        draw = random.Random(seed)
        path = tmp_path / f"{seed}.{kind}"
        make(path, draw)
        data = damaged(path.read_bytes(), draw)
        path.write_bytes(with_tar_checksums(data) if make is tars and seed % 2 else data)
        started = time.process_time()
        check(path, f"seed {seed}")
        assert time.process_time() - started < 2, f"seed {seed} took long"
        path.unlink()
    print(f"{kind}: {seed} inputs, {peak() - memory} MiB more")
    assert peak() - memory < 100


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def check(path, where):
    *found, last = find_images([str(path)])
    assert isinstance(last, RootListed), where
    whole = [f for f in found if isinstance(f, Reject) and f.image.uri == str(path)]
    assert len(whole) <= 1, where
    assert last.complete == (not whole), where
    for one in found:
        assert isinstance(one, Image | Reject | HiddenFile), where
        if isinstance(one, Reject):
            assert len(one.message) < 1000, where
            one.message.encode()
        if isinstance(one, HiddenFile):
            continue
        image = one.image if isinstance(one, Reject) else one
        for text in (image.uri, image.relative_path, image.label or ""):
            text.encode()
        # That of a reject is a claim.
        assert 0 <= (image.bytes or 0) < (2**63 if isinstance(one, Reject) else 2**31), where
        assert 0 <= (image.modified or 0) < 2**63, where
        # A manifest may name also what the listing rejects.
        if image.uri != str(path):
            with contextlib.suppress(OSError if isinstance(one, Reject) else files.MemberError):
                assert len(files.read_bytes(image.uri)) == files.stat(image.uri).bytes, where
                assert image.bytes in (None, files.stat(image.uri).bytes), where
