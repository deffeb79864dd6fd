"""Gives mutated inputs to every reader of untrusted bytes; counts what is read and refused.

    python tests/fuzz.py --inputs 10000              # so many in all, dealt out by `SHARES`
    python tests/fuzz.py --inputs 10000 --checked    # under glibc's checks of the heap
    python tests/fuzz.py --only image-PNG --first 4711 --inputs 1     # one input again

A reader may give what this program could have written, or raise one error for the user. Anything
else is a finding: another exception, the end of the process, a wrong result, a slow input. Each
reader runs in a process of its own; after a finding that ends it, the next one goes on behind the
input. Input n of a reader depends on its name and n only. Prints a line of JSON a reader; the exit
code is 1 after findings. pytest does not collect this file.
"""

# ruff: noqa: E402, PT017

from __future__ import annotations

import argparse
import contextlib
import io
import json
import mmap
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS / "attacks")]

import bmps
import make_images
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import raws
import test_dirty_heap
import test_foreign_model
import test_fuzz
import test_fuzzed_documents as documents
import test_lists
from places import KEY, OLD

from beam_flowers.backbones import efficientnet_lite, hub, keras_check, saved_model_check
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.saved_model_messages import saved_model_class
from beam_flowers.cli.config import parse_config
from beam_flowers.contrib.retrain_files.import_bottlenecks import parse_vector
from beam_flowers.errors import BeamFlowersError, ImageError, InputError
from beam_flowers.head.bundle import read_bundle
from beam_flowers.head.corrections import read_corrections
from beam_flowers.images import parquet_process
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.review.decisions import Decisions
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.store import lease
from beam_flowers.store.commits import decode_manifest, encode_manifest, latest
from beam_flowers.store.lease import lease_uri, read_lease
from beam_flowers.store.names import is_digest, is_part
from beam_flowers.store.outcomes import find_settled
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.plan import stored_rows

Draw = random.Random


class Reader(NamedTuple):
    """Makes inputs of one kind and reads them.

    Attributes:
        make: returns one input by a seeded generator.
        read: returns "read" or how it was refused; all that it raises is a finding.
        seconds: CPU time that one input may take in this process.
    """

    make: Callable[[Draw], bytes]
    read: Callable[[bytes], str]
    seconds: float = 5.0


def refusal(read: Callable[[], object], *errors: type[Exception]) -> str:
    """Calls a reader; `errors` are those that its caller turns into one for the user."""
    try:
        read()
    except (BeamFlowersError, *errors) as error:
        text = str(error)
        assert len(text) < 4000, f"an error of {len(text)} characters"
        text.encode()
        return type(error).__name__
    return "read"


def from_documents(document: object) -> Callable[[Draw], bytes]:
    """JSON with odd values, or damaged bytes."""

    def make(draw: Draw) -> bytes:
        if isinstance(document, bytes):
            return documents.damaged(document, draw)
        if draw.random() < 0.7:
            with contextlib.suppress(RecursionError):
                changed = documents.mutated(document, draw)
                # The indents of a thousand levels would take the most time by far.
                return json.dumps(changed, indent=draw.choice([None] * 9 + [1])).encode()
        return documents.damaged(json.dumps(document).encode(), draw)

    return make


def damaged(sounds: list[bytes]) -> Callable[[Draw], bytes]:
    def make(draw: Draw) -> bytes:
        data = draw.choice(sounds)
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            data = make_images.mutated(data or b"x", draw.getrandbits(32))
        return data

    return make


# --- Images, each decoded as in a run: by decoder processes ---


def sound_images() -> dict[str, list[bytes]]:
    """Small files of each kind, by format."""
    found: dict[str, list[bytes]] = {}
    image = make_images.scene(40, 30)
    every = [*make_images.each_format(40, 30).items()]
    every += [(f"TIFF {n}", test_dirty_heap.fax(*fax)) for n, fax in test_dirty_heap.FAXES.items()]
    every += [(f"BMP {name}", file) for name, (file, *_) in bmps.variants().items()]
    every += [("BMP rle8", bmps.rle8()), ("JPEG-mpo", make_images.mpo(image, image))]
    every += [("TIFF big", make_images.saved(image, "TIFF", big_tiff=True))]
    every += [("TIFF raw", raws.tiff(raws.THUMBNAIL, (raws.SENSOR,)))]
    every += [("TIFF tiles", test_dirty_heap.tiled(make_images.scene(64, 32).convert("1")))]
    for deep in ("1", "L", "LA", "P", "RGBA", "CMYK", "LAB", "I;16", "F"):
        with contextlib.suppress(OSError, ValueError):
            options = {"compression": "tiff_deflate"} if deep != "1" else {}
            every += [(f"TIFF {deep}", make_images.saved(image.convert(deep), "TIFF", **options))]
    for kind, data in every:
        found.setdefault(kind.replace(" ", "-").split("-")[0], []).append(data)
    return found


def with_png_checksums(data: bytes) -> bytes:
    """Else hardly any damage would be seen behind them."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        fixed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")[: len(data) - end]
        at = end + 4
    return bytes(fixed[: len(data)])


SMALL = Limits(max_pixels=1_000_000)
RECIPES = [PixelRecipe(32, 32), PixelRecipe(24, 32, 0.875, "bilinear")]


def images(format_: str) -> Callable[[Path], Reader]:
    def reader(_: Path) -> Reader:
        damage = damaged(sound_images()[format_])

        def make(draw: Draw) -> bytes:
            data = damage(draw)
            is_png = format_ == "PNG" and draw.random() < 0.5
            return with_png_checksums(data) if is_png else data

        def read(data: bytes) -> str:
            draw = Draw(data)
            # One in fifty as large as in a run: its limits are 120 megapixels and 256 MiB.
            limits = Limits() if draw.random() < 0.02 else SMALL
            limits = replace(limits, salvage=draw.choice([0.0, 0.0, 0.5]))
            recipe, whole = draw.choice(RECIPES), draw.random() < 0.1
            try:
                image = decode_apart(data, recipe, limits, whole=whole)
            except ImageError as error:
                assert len(error.message) < 1000
                error.message.encode()
                return str(error.error_class)
            if not whole:
                assert image.pixels.shape == (recipe.height, recipe.width, 3)
            assert image.pixels.dtype == np.uint8
            assert 0 < image.width < 65536
            assert 0 < image.height < 65536
            return "read"

        return Reader(make, read, 300.0)

    return reader


# --- Archives ---


def archives(kind: str) -> Callable[[Path], Reader]:
    def reader(folder: Path) -> Reader:
        write = {"tar": test_fuzz.tars, "zip": test_fuzz.zips, "tfrecord": test_fuzz.records}[kind]
        path = folder / f"x.{kind}"

        def make(draw: Draw) -> bytes:
            path.unlink(missing_ok=True)
            write(path, draw)
            data = test_fuzz.damaged(path.read_bytes(), draw)
            is_tar = kind == "tar" and draw.random() < 0.5
            return test_fuzz.with_tar_checksums(data) if is_tar else data

        def read(data: bytes) -> str:
            path.write_bytes(data)
            test_fuzz.check(path, kind)
            return "read"

        return Reader(make, read)

    return reader


# --- Lists and manifests of images ---


def lists(name: str) -> Callable[[Path], Reader]:
    def reader(folder: Path) -> Reader:
        os.chdir(folder)
        (folder / "a.jpg").write_bytes(b"123")
        sounds = [*test_lists.parquet_seeds()] if name == "m.parquet" else [test_lists.SOUND[name]]

        def read(data: bytes) -> str:
            (folder / name).write_bytes(data)
            return "read" if test_lists.listed(folder / name) else "InputError"

        def make(draw: Draw) -> bytes:
            return test_lists.mutated(draw.choice(sounds), draw.getrandbits(32))

        return Reader(make, read)

    return reader


def parquet_list_in_a_fork(_: Path) -> Reader:
    """A Parquet list by the function that its own process runs; a fork saves that one's start.

    There any error and the end of the process are refusals, so that findings are those that hang.
    """
    sounds = [*test_lists.parquet_seeds()]

    def read(data: bytes) -> str:
        child = os.fork()
        if not child:
            status = 2
            with contextlib.suppress(BaseException):
                parquet_process._limit_memory(1 << 30)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                try:
                    batches = parquet_process._batches(
                        io.BytesIO(data), len(data), ["uri"], ["label"]
                    )
                    for _ in batches:
                        pass
                    status = 0
                except (InputError, MemoryError):
                    status = 1
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status != -24, "it computed for two minutes"
        return {0: "read", 1: "InputError", 2: "Exception"}.get(status, f"signal {-status}")

    def make(draw: Draw) -> bytes:
        return test_lists.mutated(draw.choice(sounds), draw.getrandbits(32))

    return Reader(make, read)


# --- Stores ---


def manifest(document: object) -> Callable[[Path], Reader]:
    def reader(_: Path) -> Reader:
        def read(data: bytes) -> str:
            return refusal(lambda: documents.require_ours("", decode_manifest(data, "1.json")))

        return Reader(from_documents(document), read)

    return reader


NEW = json.loads(encode_manifest(documents.MANIFEST))
OLDER = json.loads((OLD / "store" / "__commits" / "00000002.json").read_bytes())


def leases(folder: Path) -> Reader:
    path = Path(lease_uri(str(folder), documents.RUN))
    path.parent.mkdir(parents=True)
    document = {"state": "committing", "base": 2, "exact": False, "manifest": NEW}

    def read(data: bytes) -> str:
        path.write_bytes(data)

        def run() -> None:
            found = read_lease(str(folder), documents.RUN)
            if isinstance(found, tuple):
                place, intent = found
                sections = {place.section: intent.section}
                documents.require_ours("", replace(documents.MANIFEST, sections=sections))

        return refusal(run)

    return Reader(from_documents(document), read)


def beats(folder: Path) -> Reader:
    place = Place(str(folder), KEY, "ef" * 32, documents.RUN)
    path = Path(place.run_file(lease.BEAT))
    path.parent.mkdir(parents=True)
    work = Path(place.work(documents.PART.name))
    work.parent.mkdir(parents=True, exist_ok=True)
    work.write_bytes(b"")
    document = {"host": os.uname().nodename, "pid": 1, "process": "ab" * 8}

    def read(data: bytes) -> str:
        path.write_bytes(data)
        other = replace(place, run="f" * 16)
        return refusal(lambda: lease._left_over(other, set()))

    return Reader(from_documents(document), read)


def outcomes(folder: Path) -> Reader:
    place = Place(str(folder), KEY, "ef" * 32, documents.RUN)
    path = Path(place.run_file(f"outcomes/{documents.UNIT}"))
    path.parent.mkdir(parents=True)

    def read(data: bytes) -> str:
        path.write_bytes(data)

        def run() -> None:
            settled = find_settled(place, documents.UNIT)
            assert settled
            assert all(is_part(part.name) for part in settled.outcome.parts)
            assert all(pair is None or is_digest(pair[1]) for pair in settled.more or ())

        return refusal(run)

    return Reader(from_documents(documents.OUTCOME), read)


def parts(kind: str) -> Callable[[Path], Reader]:
    def reader(folder: Path) -> Reader:
        store = OLD / "store"
        name = (documents.PART if kind == "part" else documents.REJECTS).name
        source = next((store / ("" if kind == "part" else "__rejects") / KEY).glob("*.parquet"))
        sounds = [b"".join(parquet_of(pq.read_table(source).slice(0, 2), n)) for n in range(4)]
        place = Place(str(folder), KEY, latest(str(store)).sections[KEY].fingerprint)
        path = Path(place.published(name))
        path.parent.mkdir(parents=True)

        def read(data: bytes) -> str:
            path.write_bytes(data)
            refusal(lambda: list(stored_rows(place, name)))
            return refusal(lambda: read_part(place, name))

        return Reader(lambda draw: damaged_parquet(draw.choice(sounds), draw), read)

    return reader


def parquet_of(table: pa.Table, number: int) -> Iterator[bytes]:
    sink = io.BytesIO()
    options = {"compression": ("zstd", "none", "snappy", "zstd")[number]}
    pq.write_table(table, sink, write_page_checksum=number == 0, **options)
    yield sink.getvalue()


def damaged_parquet(data: bytes, draw: Draw) -> bytes:
    """Half of the damage goes to the footer, which holds all that is read first."""
    if draw.random() < 0.5 or len(data) < 12:
        return damaged([data])(draw)
    changed, length = bytearray(data), int.from_bytes(data[-8:-4], "little") + 8
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = len(changed) - draw.randint(9, max(10, min(length, len(changed))))
        changed[max(0, at)] = draw.choice([draw.randrange(256), 0, 0xFF, 0x7F, 0x80])
    return bytes(changed)


# --- Models, networks, caches ---


def model_json(consistent: bool) -> Callable[[Path], Reader]:
    """With the id that fits, behind which hardly any damage would be seen else."""

    def reader(folder: Path) -> Reader:
        shutil.copytree(OLD / "model", folder / "model")
        path = folder / "model" / "model.json"
        document = json.loads(path.read_text())

        def make(draw: Draw) -> bytes:
            data = from_documents(document)(draw)
            if consistent:
                with contextlib.suppress(ValueError, AttributeError, RecursionError):
                    described = {k: v for k, v in json.loads(data).items() if k != "model_id"}
                    text = json.dumps(described, sort_keys=True, ensure_ascii=False)
                    identity = test_foreign_model.sha256(text.encode())
                    data = json.dumps({**described, "model_id": identity}).encode()
            return data

        def read(data: bytes) -> str:
            path.write_bytes(data)
            return refusal(lambda: read_bundle(str(folder / "model")))

        return Reader(make, read)

    return reader


def model_arrays(folder: Path) -> Reader:
    """Arrays of a model whose digests fit."""
    model = folder / "model"
    shutil.copytree(OLD / "model", model)
    sounds = [(model / f"{name}.npy").read_bytes() for name in ("weights", "bias")]
    small = io.BytesIO()
    np.save(small, np.ones((4, 5), np.float32))

    def read(data: bytes) -> str:
        test_foreign_model.replace_array(model, data)
        return refusal(lambda: read_bundle(str(model)))

    def make(draw: Draw) -> bytes:
        sound = draw.choice([small.getvalue(), *(sound[:600] for sound in sounds), sounds[0]])
        return damaged([sound])(draw)

    return Reader(make, read)


def architecture(folder: Path) -> Reader:
    """The JSON beside an EfficientNet-Lite in the cache; with arrays that are not there."""
    path = folder / "architecture.json"
    source = Path(efficientnet_lite.__file__).parents[1] / "data" / "backbones"
    document = json.loads(next(source.glob("*/architecture.json")).read_text())

    def read(data: bytes) -> str:
        path.write_bytes(data)
        weights = str(folder / "weights.npz")
        # Behind the JSON, the arrays are missing.
        return refusal(lambda: efficientnet_lite.read(weights), FileNotFoundError)

    return Reader(from_documents(document), read)


def saved_models(folder: Path) -> Reader:
    """Messages of random graphs, damaged: what is accepted holds only what is allowed."""
    allowed = saved_model_check.COMPUTES | saved_model_check.SAVES | saved_model_check.RESTORES
    some = [*sorted(saved_model_check.COMPUTES)[::20], "WriteFile", "ReadFile", "SaveV2"]
    some += ["RestoreV2", "PartitionedCall", "EagerPyFunc", "NoOp"]
    path = folder / "saved_model.pb"

    def node(one: Any, draw: Draw) -> None:
        one.name.append(draw.choice(["a", "b", "c", "d"]).encode())
        one.op.append(draw.choice(some).encode())
        one.input.extend(draw.choices([b"a", b"^b", b"c:0", b"", b"d:out:0"], k=draw.randrange(3)))
        if draw.random() < 0.3:
            value = one.attr.add().value.add()
            value.func.add().name.append(draw.choice([b"f", b"g", b"h"]))
            value.list.add().func.add().name.append(b"g")

    def make(draw: Draw) -> bytes:
        message = saved_model_class()()
        meta = message.meta_graphs.add()
        graph = meta.graph_def.add()
        for _ in range(draw.randrange(6)):
            node(graph.node.add(), draw)
        library = graph.library.add()
        for name in draw.sample([b"f", b"g", b"h"], draw.randrange(4)):
            function = library.function.add()
            function.signature.add().name.append(name)
            node(function.node_def.add(), draw)
        meta.saver_def.add().restore_op_name.append(draw.choice([b"a", b"b", b"x"]))
        meta.collection_def.add(
            key=[b"saved_model_main_op"]
        ).value.add().node_list.add().value.append(b"c")
        entry = meta.signature_def.add().value.add()
        entry.outputs.add().value.add().name.append(draw.choice([b"a:0", b"d:0", b""]))
        meta.object_graph_def.add().concrete_functions.add().key.append(b"f")
        data = message.SerializeToString()
        return data if draw.random() < 0.3 else damaged([data or b"x"])(draw)

    def read(data: bytes) -> str:
        path.write_bytes(data)
        found = refusal(lambda: saved_model_check.require_computing(str(folder)))
        if found == "read":
            for meta in saved_model_class().FromString(data).meta_graphs:
                nodes = [n for graph in meta.graph_def for n in graph.node]
                libraries = [one for graph in meta.graph_def for one in graph.library]
                nodes += [n for one in libraries for f in one.function for n in f.node_def]
                used = {operation.decode() for n in nodes for operation in n.op}
                functions = {"f", "g", "h"}
                assert used - functions <= set(allowed), used - set(allowed)
        return found

    return Reader(make, read)


def keras_files(folder: Path) -> Reader:
    path = folder / "net.keras"
    layer = {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {
            "units": 3,
            "activation": {
                "module": "builtins",
                "class_name": "function",
                "config": "relu",
                "registered_name": "function",
            },
        },
        "registered_name": None,
    }
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"name": "m", "layers": [layer, {**layer, "class_name": "InputLayer"}]},
        "registered_name": "Functional",
    }
    odd = ["Lambda", "keras.src.ops.numpy", "os", "system", "function", "TFSMLayer", None, 3]

    def make(draw: Draw) -> bytes:
        data = from_documents(config)(draw)
        for word in (b"Dense", b"keras.layers", b"relu"):
            if draw.random() < 0.2:
                data = data.replace(b'"%s"' % word, json.dumps(draw.choice(odd)).encode())
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", draw.choice([0, 8])) as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", data)
            archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n")
        return file.getvalue() if draw.random() < 0.5 else test_fuzz.damaged(file.getvalue(), draw)

    def read(data: bytes) -> str:
        path.write_bytes(data)
        found = refusal(lambda: keras_check.require_no_code(str(path)))
        if found == "read":
            with zipfile.ZipFile(path) as archive:
                text = json.dumps(json.loads(archive.read("config.json")))
            assert '"class_name": "Lambda"' not in text
            assert '"class_name": "system"' not in text
        return found

    return Reader(make, read)


def downloads(folder: Path) -> Reader:
    """Archives of SavedModels: nothing is written outside of their folder."""
    archive, goal = folder / "archive", folder / "inner" / "whole"
    names = ["saved_model.pb", "variables/variables.index", "../outside", "/tmp/x", "a/../../b"]

    def make(draw: Draw) -> bytes:
        file = io.BytesIO()
        mode = draw.choice(["w", "w:gz"])
        with tarfile.open(fileobj=file, mode=mode, format=draw.choice([0, 1, 2])) as tar:
            for name in [names[0], *draw.sample(names[1:], draw.choice([0, 1, 1, 2]))]:
                info = tarfile.TarInfo(name)
                info.type = draw.choice([tarfile.REGTYPE] * 8 + [tarfile.SYMTYPE, tarfile.DIRTYPE])
                info.linkname = "../.." if info.type == tarfile.SYMTYPE else ""
                body = draw.randbytes(300)
                info.size = len(body) if info.type == tarfile.REGTYPE else 0
                tar.addfile(info, io.BytesIO(body))
        data = test_fuzz.damaged(file.getvalue(), draw)
        return test_fuzz.with_tar_checksums(data) if mode == "w" else data

    def read(data: bytes) -> str:
        archive.write_bytes(data)
        shutil.rmtree(folder / "inner", ignore_errors=True)
        hub._digest_within(archive)
        # What `hub.fetch` turns into a `BackboneError`.
        caught = (OSError, tarfile.TarError, EOFError, ValueError)
        found = refusal(lambda: hub._unpack(archive, goal), *caught)
        assert {path.name for path in folder.iterdir()} <= {"archive", "inner"}
        assert {path.name for path in (folder / "inner").iterdir()} == {"whole"}
        return found

    return Reader(make, read)


# --- Tables, corrections, configuration ---


def tables(name: str) -> Callable[[Path], Reader]:
    def reader(folder: Path) -> Reader:
        sound, path = (OLD / name).read_bytes(), folder / name
        # A table of two rows is damaged in other places than one of twenty.
        few = pq.read_table(OLD / "scores.parquet").slice(0, 2)
        sounds = [sound]
        if name.endswith("parquet"):
            sounds = [b"".join(parquet_of(few, n)) for n in range(4)]
        if name.endswith("arrow"):
            sink = io.BytesIO()
            with pa.ipc.new_file(sink, few.schema) as writer:
                writer.write_table(few)
            sounds = [sink.getvalue()]
        if name.endswith(("csv", "jsonl")):
            sounds = [b"".join(sound.splitlines(keepends=True)[:3])]

        def make(draw: Draw) -> bytes:
            if name.endswith("parquet"):
                return damaged_parquet(draw.choice(sounds), draw)
            if name.endswith("arrow"):
                return test_fuzz.damaged(draw.choice(sounds), draw)
            if draw.random() < 0.5:
                return test_lists.mutated(sounds[0], draw.getrandbits(32))
            return documents.damaged(sounds[0], draw)

        def read(data: bytes) -> str:
            path.write_bytes(data)
            return refusal(lambda: read_scores(str(path)))

        return Reader(make, read)

    return reader


def corrections(name: str) -> Callable[[Path], Reader]:
    def reader(folder: Path) -> Reader:
        path = folder / name
        rows = {"sha256": ["ab" * 32, "cd" * 32], "uri": ["a.jpg", "b"], "label": ["rose", ""]}
        if name.endswith("parquet"):
            sounds = [b"".join(parquet_of(pa.table(rows), n)) for n in range(4)]
        elif name.endswith("jsonl"):
            lines = (dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True))
            sounds = ["".join(json.dumps(line) + "\n" for line in lines).encode()]
        else:
            comma = "\t" if name.endswith("tsv") else ","
            lines = [
                comma.join(rows),
                *(comma.join(row) for row in zip(*rows.values(), strict=True)),
            ]
            sounds = ["\n".join(lines).encode()]

        def make(draw: Draw) -> bytes:
            if name.endswith("parquet"):
                return damaged_parquet(draw.choice(sounds), draw)
            return test_lists.mutated(sounds[0], draw.getrandbits(32))

        def read(data: bytes) -> str:
            path.write_bytes(data)
            if name == "review.csv":
                return refusal(lambda: Decisions(str(path)))
            return refusal(lambda: read_corrections(str(path)))

        return Reader(make, read)

    return reader


def configurations(_: Path) -> Reader:
    def read(data: bytes) -> str:
        return refusal(lambda: parse_config(data))

    def make(draw: Draw) -> bytes:
        data = documents.damaged(documents.CONFIG, draw)
        if draw.random() < 0.5:
            at = draw.randrange(len(data) + 1)
            data = data[:at] + draw.choice(YAML) * draw.choice([1, 1, 2, 50]) + data[at:]
        return data

    return Reader(make, read)


YAML = [
    *(b"&a ", b"*a", b"<<: *shared\n", b"- ", b": ", b"? ", b"!!python/object:os.system ", b"!a "),
    *(b"|\n ", b">\n ", b"---\n", b"...\n", b"%YAML 1.1\n", b"{", b"}", b"[", b"]", b"'", b'"'),
    *(b"2026-01-01", b"0o7", b"0x1f", b"1e999", b".nan", b"~", b"\t", b"\0", b"\xff", b"1:2:3"),
]


def retrain_vectors(_: Path) -> Reader:
    def make(draw: Draw) -> bytes:
        data = documents.damaged(b"0.5,1.25,-3e-5,1e38,7", draw)
        word = draw.choice([b"nan", b"inf", b"1e999", b",,", b"\n", b"0x1p3", b"1_000", b"\xff"])
        at = draw.randrange(len(data) + 1)
        return data[:at] + draw.choice([b"", word]) + data[at:]

    def read(data: bytes) -> str:
        try:
            vector = parse_vector(data)
        except ImageError as error:
            assert len(error.message) < 1000
            return str(error.error_class)
        assert np.isfinite(vector).all()
        return "read"

    return Reader(make, read)


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIC", "JPEG2000")
READERS: dict[str, Callable[[Path], Reader]] = {
    **{f"image-{format_}": images(format_) for format_ in FORMATS},
    **{kind: archives(kind) for kind in ("tar", "zip", "tfrecord")},
    **{f"list-{name}": lists(name) for name in (*test_lists.SOUND, "m.parquet")},
    "list-m.parquet-forked": parquet_list_in_a_fork,
    "manifest": manifest(NEW),
    "manifest-of-0.1": manifest(OLDER),
    "lease": leases,
    "beat": beats,
    "outcome": outcomes,
    "part": parts("part"),
    "part-of-rejects": parts("rejects"),
    "model.json": model_json(False),
    "model.json-with-its-id": model_json(True),
    "model-arrays": model_arrays,
    "architecture.json": architecture,
    "saved_model.pb": saved_models,
    "keras-file": keras_files,
    "download": downloads,
    **{f"table-{s}": tables(f"scores.{s}") for s in ("parquet", "csv", "jsonl", "arrow")},
    **{f"corrections-{s}": corrections(f"c.{s}") for s in ("csv", "tsv", "jsonl", "parquet")},
    "corrections-of-review": corrections("review.csv"),
    "configuration": configurations,
    "retrain-vectors": retrain_vectors,
}
SHARES = {
    **{name: 5.0 for name in READERS if name.startswith("image")},
    "image-JPEG": 8.0,
    "list-m.parquet": 0.02,
    "list-m.parquet-forked": 0.2,
    "list-m.txt": 0.5,
    "table-jsonl": 0.2,
}
"""Inputs of a reader for one of any other; a Parquet list takes a process each."""


# --- The run ---


class Told(NamedTuple):
    """What is known of a reader's run, also after its process has ended: numbers in a file."""

    number: int
    began: float

    @staticmethod
    def size() -> int:
        return struct.calcsize("<qd")


def work(name: str, first: int, count: int, told: Path) -> None:
    """Reads the inputs of one reader in this process; prints its line."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    found: Counter[str] = Counter()
    findings: list[str] = []
    slowest, decoders = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made, told.open("r+b") as file:
        shown = mmap.mmap(file.fileno(), Told.size())
        reader = READERS[name](Path(made))
        for number in range(first, first + count):
            shown[:] = struct.pack("<qd", number, time.time())
            data = reader.make(Draw(f"{name} {number}"))
            began = time.process_time()
            try:
                found[reader.read(data)] += 1
            except Exception as error:
                findings.append(f"{number}: {type(error).__name__}: {error}"[:500])
                found["FINDING"] += 1
            seconds = time.process_time() - began
            slowest = max(slowest, seconds)
            if seconds > reader.seconds:
                findings.append(f"{number}: {seconds:.1f} s of CPU time")
            if number == first + min(200, count // 10):
                before = peak()
            if number % 100 == 0:
                decoders = max(decoders, peak_of_children())
        decoders = max(decoders, peak_of_children())
    own = resource.getrusage(resource.RUSAGE_SELF)
    line = {
        "reader": name,
        "inputs": count,
        "found": dict(found.most_common()),
        "slowest": round(slowest, 2),
        "more MiB": peak() - before,
        "MiB": peak(),
        "children MiB": decoders,
        "cpu": round(own.ru_utime + own.ru_stime),
        "findings": findings,
    }
    print(json.dumps(line), flush=True)
    os._exit(0)  # Decoder processes end by themselves.


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def peak_of_children() -> int:
    """The most MiB that any living child has had."""
    most = 0
    for task in Path("/proc/self/task").iterdir():
        children = []
        with contextlib.suppress(OSError):  # A thread may have ended.
            children = (task / "children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{child}/status").read_text()
                most = max(most, int(status.split("VmHWM:")[1].split()[0]) >> 10)
    return most


CHECKED = {
    "LD_PRELOAD": "libc_malloc_debug.so",
    "MALLOC_CHECK_": "3",
    "MALLOC_PERTURB_": "165",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
STUCK = 900.0
"""Seconds of clock time for one input."""


def supervise(name: str, first: int, count: int, checked: bool) -> int:
    """Runs a reader in a process of its own, again behind each input that ends it."""
    environment = os.environ | (CHECKED if checked else {})
    ended, last = 0, first + count
    with tempfile.NamedTemporaryFile(prefix="told-") as told:
        while first < last:
            told.write(struct.pack("<qd", first, time.time()))
            told.flush()
            told.seek(0)
            one = ["--one", told.name, "--only", name, "--first", str(first)]
            command = [sys.executable, __file__, *one, "--inputs", str(last - first)]
            process = subprocess.Popen(command, env=environment)
            while process.poll() is None:
                time.sleep(0.2)
                at, began = struct.unpack("<qd", Path(told.name).read_bytes())
                if time.time() - began > STUCK:
                    process.kill()
            if process.returncode == 0:
                return ended
            ended += 1
            at, _ = struct.unpack("<qd", Path(told.name).read_bytes())
            print(
                json.dumps(
                    {"reader": name, "inputs": at + 1 - first, "ended by": at}
                    | {"status": process.returncode}
                ),
                flush=True,
            )
            first = at + 1
    return ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--rounds", type=int, default=1, help="how often, each with new inputs")
    parser.add_argument("--only", action="append", default=[], help="part of a reader's name")
    parser.add_argument("--checked", action="store_true", help="under glibc's checks of the heap")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        work(options.only[0], options.first, options.inputs, options.one)
    names = [n for n in READERS if not options.only or any(part in n for part in options.only)]
    whole = sum(SHARES.get(name, 1.0) for name in names)
    shares = {n: max(1, round(options.inputs * SHARES.get(n, 1.0) / whole)) for n in names}
    ended = 0
    for number in range(options.rounds):
        for name, count in shares.items():
            first = options.first + number * count
            ended += supervise(name, first, count, options.checked)
    return 1 if ended else 0


if __name__ == "__main__":
    sys.exit(main())
