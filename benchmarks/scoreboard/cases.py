"""What is run: each case is one command as a user would type it, over one set of images."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from beam_flowers.backbones import hardware
from benchmarks.scoreboard import machine, make_images, networks

HERE = Path(__file__).parent

STEADY = {"inception": (60, 480), "lite0": (500, 2000)}
"""Two sizes a network: what the second adds to the first is the steady rate, start-up left out."""

LARGE = (10, 50)
"""Images of twelve megapixels."""

GROWTH = (1_000, 10_000, 100_000)
"""Small images, for memory and for the cost as work grows."""

STORED = (10_000, 110_000)
"""Rows scored from a store."""

PLANNED = 1_000_000
"""Names, and rows, of a planned run."""

PEERS = {"ray": "ray_data.py", "spark": "spark_udf.py", "daft": "daft_udf.py"}
OURS = {
    "ours, TensorFlow": ("--engine", "tensorflow"),
    "ours, OpenVINO": ("--engine", "openvino"),
}
OPENVINO = "ours, OpenVINO"
INT8 = f"{OPENVINO}, int8"
DAFT = {f"daft, OpenVINO, {name}": name for name in ("f32", "bf16", "int8")}
"""Daft on our engine, by precision."""
BFLOAT16 = {f"{name}, bf16": (*flags, "--precision", "bf16") for name, flags in OURS.items()}


@dataclass(frozen=True)
class Case:
    """One command.

    Attributes:
        group: `steady/inception`, ...: cases whose runs are compared.
        name: who runs.
        count: images or rows.
        command: `{out}` in it is a path of the run's own.
        rows: of the scoreboard that need it.
        prepare: a command that is run before each run, untimed.
        once: its answer is a size or a count, the same in each round.
    """

    group: str
    name: str
    count: int
    command: list[str]
    rows: frozenset[str]
    prepare: list[str] | None = None
    once: bool = False

    @property
    def key(self) -> str:
        return f"{self.group}/{self.name}/{self.count}"


@dataclass
class Lab:
    """Makes what cases need, where it is needed first.

    Attributes:
        work: folder for all of it; kept from run to run.
        wanted: rows to be measured.
        images: labelled photographs, for accuracy and for bytes a row.
    """

    work: Path
    wanted: frozenset[str]
    images: Path

    def cases(self) -> list[Case]:
        """All cases of the wanted rows."""
        every = (self._steady, self._large, self._beam, self._stored, self._growth, self._single)
        return [case for make in every for case in make()]

    def _needed(self, *rows: str) -> frozenset[str]:
        return self.wanted.intersection(rows)

    @cached_property
    def _command(self) -> str:
        return str(Path(sys.executable).with_name("beam-flowers"))

    def _set(self, name: str, count: int, most: int, size: make_images.Size) -> str:
        whole = make_images.make_set(self.work / "images" / name, most, size)
        if count == most:
            return str(whole)
        return str(make_images.first(whole, self.work / "images" / f"{name}-{count}", count))

    def network(self, name: str) -> Path:
        """The folder of a network."""
        return networks.make_network(self.work / "networks" / name, name)

    def _ours(self, network: str, images: str, flags: tuple[str, ...]) -> list[str]:
        own = networks.ours(self.network(network), network)
        return [self._command, "embed", images, "--store", "{out}", *own, *flags]

    def _peer(self, script: str, network: str, images: str, *more: str) -> list[str]:
        peer = next((p for p, s in PEERS.items() if s == script), "own")
        python = machine.environment(self.work, peer)
        size = str(networks.SIZES[network])
        place = str(self.network(network))
        return [python, str(HERE / "peers" / script), images, place, size, "{out}", *more]

    def _steady(self) -> Iterator[Case]:
        for network, counts in STEADY.items():
            for count in counts:
                images = self._set("photos", count, 2000, make_images.PHOTO)
                yield from self._steady_cases(network, count, images)
            if network == "inception" and (needed := self._needed("P8")):
                # At once, as processors change their speed from minute to minute.
                yield Case("peak", "FMA", 1, machine.peak_command(self.work), needed)

    def _steady_cases(self, network: str, count: int, images: str) -> Iterator[Case]:
        group, inception = f"steady/{network}", network == "inception"
        own = ("P1", "P2", "P3", "P8", "P12") if inception else ("P7", "P4", "P5", "P5b")
        rows = self._needed(*own)
        chosen = OURS | (BFLOAT16 if hardware.has_bfloat16() else {})
        for name, flags in chosen.items():
            needed = self._needed("P7b") if name in BFLOAT16 else rows
            if name.startswith(OPENVINO):
                needed |= self._needed("P7c")
            if needed:
                yield Case(group, name, count, self._ours(network, images, flags), needed)
        if self._needed("P7c"):
            yield from self._in_int8(network, count, images)
        if needed := self._needed("P2", "P7b") if inception else self._needed("P7", "P7b"):
            command = self._peer("keras_loop.py", network, images, "32")
            yield Case(group, "predict(32)", count, command, needed)
        if inception and (needed := self._needed("P1")):
            command = self._peer("keras_loop.py", network, images, "1")
            yield Case(group, "predict, one at a time", count, command, needed)
        if inception and (needed := self._needed("P3")):
            command = self._peer("run_inference.py", network, images)
            yield Case(group, "stock RunInference", count, command, needed)
        for peer, row in zip(PEERS, ("P4", "P5", "P5b"), strict=True):
            if not inception and (needed := self._needed(row)):
                command = self._peer(PEERS[peer], network, images)
                yield Case(group, peer, count, command, needed)

    def _in_int8(self, network: str, count: int, images: str) -> Iterator[Case]:
        """Our int8, and Daft on OpenVINO in each precision."""
        group, needed = f"steady/{network}", self._needed("P7c")
        above = networks.quantised(self.work, network, images)
        flags = ("--engine", "openvino", "--precision", "int8")
        own = ["env", f"BEAM_FLOWERS_BACKBONES={above}", *self._ours(network, images, flags)]
        yield Case(group, INT8, count, own, needed)
        python = machine.environment(self.work, "daft-openvino")
        size, place = str(networks.SIZES[network]), str(self.network(network))
        for name, precision in DAFT.items():
            if precision != "bf16" or hardware.has_bfloat16():
                script = str(HERE / "peers" / PEERS["daft"])
                command = [python, script, images, place, size, "{out}", precision]
                yield Case(group, name, count, command, needed)

    def _large(self) -> Iterator[Case]:
        if not (needed := self._needed("P6")):
            return
        for count in LARGE:
            images = self._set("large", count, LARGE[1], make_images.LARGE)
            for name, flags in OURS.items():
                yield Case("large", name, count, self._ours("inception", images, flags), needed)
            command = self._peer("keras_loop.py", "inception", images, "32")
            yield Case("large", "predict(32)", count, command, needed)
            ours = [sys.executable, str(HERE / "tools/decode.py"), images, "-", "299", "-"]
            yield Case("decode", "ours", count, ours, needed)
            opencv = machine.environment(self.work, "opencv")
            loop = [opencv, str(HERE / "peers/decode_loop.py"), images, "-", "299", "-"]
            yield Case("decode", "OpenCV in full", count, loop, needed)

    def _beam(self) -> Iterator[Case]:
        if not (needed := self._needed("P9")):
            return
        images = self._set("photos", 2000, 2000, make_images.PHOTO)
        for network in STEADY:
            flags = OURS["ours, OpenVINO"]
            yield Case(f"beam/{network}", "Beam", 2000, self._ours(network, images, flags), needed)
            own = networks.ours(self.network(network), network)
            plain = [sys.executable, str(HERE / "tools/without_beam.py"), images, "{out}", *own]
            yield Case(f"beam/{network}", "without", 2000, [*plain, *flags], needed)

    def _stored(self) -> Iterator[Case]:
        if not (needed := self._needed("P12")):
            return
        model = self.work / "stores" / "model"
        for count in STORED:
            store = self.work / "stores" / str(count)
            if not (store / "__commits").exists():
                shutil.rmtree(store, ignore_errors=True)
                make = [sys.executable, str(HERE / "tools/stored.py")]
                machine.call([*make, str(count), str(store), str(model)])
            score = [self._command, "score", str(store), "--model", str(model), "--output", "{out}"]
            yield Case("stored", "score", count, score, needed)

    def _growth(self) -> Iterator[Case]:
        if not (needed := self._needed("P14", "P15")):
            return
        for count in GROWTH:
            images = self._set(f"small-{count}", count, count, make_images.SMALL)
            yield Case("growth", "embed", count, self._ours("cheap", images, ()), needed)

    def _single(self) -> Iterator[Case]:
        """Cases that measure themselves and print JSON, or whose time is the answer."""
        if needed := self._needed("P10"):
            head = [sys.executable, str(HERE.parent / "head.py"), "--json"]
            yield Case("head", "both", 1, head, needed)
        if needed := self._needed("P11", "P7b"):
            for name, flags in {"f32": (), "bf16": ("--precision", "bf16")}.items():
                if name == "f32" or ("P7b" in needed and hardware.has_bfloat16()):
                    prepare = self._ours("lite0", str(self.images), flags)
                    size = [sys.executable, str(HERE.parent / "store_size.py"), "{out}", "--json"]
                    yield Case("size", name, 1, size, needed, prepare, once=True)
        if needed := self._needed("P13"):
            images = self._set("photos", 2000, 2000, make_images.PHOTO)
            command = [sys.executable, str(HERE / "tools/increment.py"), images, "{out}"]
            yield Case("increment", "both", 1, command, needed, once=True)
        if needed := self._needed("P15"):
            planning = [sys.executable, str(HERE.parent / "planning.py"), "--json"]
            planning += ["--rows", str(PLANNED)]
            yield Case("planning", "both", PLANNED, planning, needed, once=True)
