"""The rows of the scoreboard: each a ratio of runs that stood side by side in the same rounds.

Where a call was broken off in the middle of a round, what the others did not reach is left out
of what stands beside a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.scoreboard.cases import (
    DAFT,
    GROWTH,
    INT8,
    LARGE,
    OPENVINO,
    OURS,
    PLANNED,
    STEADY,
    STORED,
)
from benchmarks.scoreboard.processes import Run

CORE_HOUR = 0.04
"""Dollars for an hour of a core as clouds rent them; divide by it and multiply by your own."""


@dataclass(frozen=True)
class Measured:
    """One number.

    Attributes:
        value: by the medians of what was measured. A steady rate is a difference of two times,
            and that of two medians is far steadier than the median of differences.
        rounds: the number by each round alone.
    """

    value: float
    rounds: list[float]

    @classmethod
    def of(cls, rounds: list[float]) -> Measured:
        """What was measured itself."""
        return cls(median(rounds), rounds)

    def over(self, other: Measured) -> Measured:
        """This as a multiple of another."""
        pairs = zip(self.rounds, other.rounds, strict=False)
        return Measured(self.value / other.value, [a / b for a, b in pairs])

    def times(self, factor: float) -> Measured:
        return Measured(self.value * factor, [factor * a for a in self.rounds])


class Runs:
    """All runs by the key of their case, in the order of the rounds."""

    def __init__(self, runs: dict[str, list[Run]]) -> None:
        self._runs = runs

    def of(self, group: str, name: str, count: int = 1) -> list[Run]:
        """The rounds of one case.

        Raises:
            KeyError: it was not run.
        """
        return self._runs[f"{group}/{name}/{count}"]

    def names(self, group: str) -> list[str]:
        """Who ran in a group."""
        found = (key.removeprefix(group + "/") for key in self._runs if key.startswith(group + "/"))
        return list(dict.fromkeys(name.rpartition("/")[0] for name in found))

    def rate(self, group: str, name: str, counts: tuple[int, ...]) -> Measured:
        """Images a second from the smaller count to the larger."""
        few, many = (self.wall(group, name, count) for count in counts)
        more = counts[1] - counts[0]
        pairs = zip(few.rounds, many.rounds, strict=False)
        return Measured(more / (many.value - few.value), [more / (b - a) for a, b in pairs])

    def wall(self, group: str, name: str, count: int = 1) -> Measured:
        return Measured.of([run.wall for run in self.of(group, name, count)])

    def memory(self, group: str, name: str, count: int) -> Measured:
        return Measured.of([run.memory for run in self.of(group, name, count)])

    def said(self, group: str, name: str, count: int = 1) -> list[Any]:
        """What self-measuring cases printed last, as JSON."""
        return [json.loads(run.said.splitlines()[-1]) for run in self.of(group, name, count)]


@dataclass(frozen=True)
class Line:
    """One line of a row.

    Attributes:
        text: what is compared.
        measured: the value.
        must: what the value must reach; the least, or the most where `falling`.
        aim: what it should.
        unit: behind the number.
        falling: small values are good.
        note: what stands beside it.
    """

    text: str
    measured: Measured
    must: float | None = None
    aim: float | None = None
    unit: str = "×"
    falling: bool = False
    note: str = ""

    @property
    def value(self) -> float:
        return self.measured.value

    @property
    def verdict(self) -> str:
        """`reached`, `short`, or nothing where nothing was asked for."""
        if self.must is None:
            return ""
        short = self.value > self.must if self.falling else self.value < self.must
        return "**short**" if short else "reached"


def _against(
    runs: Runs, network: str, baseline: str, must: float, aim: float, names: tuple[str, ...]
) -> Iterator[Line]:
    group, counts = f"steady/{network}", STEADY[network]
    theirs = runs.rate(group, baseline, counts)
    for name in names:
        own = runs.rate(group, name, counts)
        note = f"{own.value:.1f} against {theirs.value:.1f} images/s"
        yield Line(
            f"{network}: {name}, steady, vs {baseline}", own.over(theirs), must, aim, note=note
        )


def p1(runs: Runs) -> Iterator[Line]:
    yield from _against(runs, "inception", "predict, one at a time", 2.3, 3, tuple(OURS))


def p2(runs: Runs) -> Iterator[Line]:
    yield from _against(runs, "inception", "predict(32)", 1.3, 1.45, tuple(OURS))


def p3(runs: Runs) -> Iterator[Line]:
    baseline = "stock RunInference"
    yield from _against(runs, "inception", baseline, 2.2, 2.6, tuple(OURS))
    most = STEADY["inception"][1]
    theirs = runs.memory("steady/inception", baseline, most)
    for name in OURS:
        own = runs.memory("steady/inception", name, most)
        note = f"{own.value:,.0f} against {theirs.value:,.0f} MB at {most} images"
        yield Line(f"{name}, peak memory", own.over(theirs), 1 / 4, 1 / 8, "", True, note)


def _wall(peer: str, must: float, aim: float) -> Callable[[Runs], Iterator[Line]]:
    def row(runs: Runs) -> Iterator[Line]:
        for count in STEADY["lite0"]:
            theirs = runs.wall("steady/lite0", peer, count)
            for name in OURS:
                own = runs.wall("steady/lite0", name, count)
                note = f"{own.value:.1f} against {theirs.value:.1f} s"
                text = f"lite0, {count:,} images: {name} vs {peer}, wall"
                yield Line(text, theirs.over(own), must, aim, note=note)
        theirs = runs.rate("steady/lite0", peer, STEADY["lite0"])
        for name in OURS:
            own = runs.rate("steady/lite0", name, STEADY["lite0"])
            note = f"{own.value:.1f} against {theirs.value:.1f} images/s"
            yield Line(f"lite0: {name}, steady, vs {peer}", own.over(theirs), note=note)

    return row


def p6(runs: Runs) -> Iterator[Line]:
    theirs = runs.rate("large", "predict(32)", LARGE)
    for name in OURS:
        own = runs.rate("large", name, LARGE)
        note = f"{own.value:.2f} against {theirs.value:.2f} images/s"
        yield Line(f"12 megapixels: {name} vs predict(32)", own.over(theirs), 3.2, 3.6, note=note)
    own, theirs = (runs.rate("decode", name, LARGE) for name in ("ours", "OpenCV in full"))
    note = f"{own.value:.1f} against {theirs.value:.1f} images/s"
    yield Line("decoding alone vs an img2dataset-like loop", own.over(theirs), note=note)


def p7(runs: Runs) -> Iterator[Line]:
    for name, must, aim in zip(OURS, (1.6, 2.2), (3, 5), strict=True):
        yield from _against(runs, "lite0", "predict(32)", must, aim, (name,))


def p7b(runs: Runs) -> Iterator[Line]:
    for network, must, aim in (("inception", 4, 8), ("lite0", 3, 5)):
        own = (n for n in runs.names(f"steady/{network}") if n.startswith("ours"))
        names = tuple(name for name in own if name.endswith("bf16"))
        yield from _against(runs, network, "predict(32)", must, aim, names)
    accuracies = [
        [found["forms"]["float32, split"][2] for found in runs.said("size", name)]
        for name in ("f32", "bf16")
    ]
    lost = Measured.of([100 * (a - b) for a, b in zip(*accuracies, strict=False)])
    note = "{:.2%} in float32, {:.2%} in bf16, 5 folds".format(*map(median, accuracies))
    yield Line("lite0: held-out accuracy lost", lost, 0.3, 0, " points", True, note)


def p7c(runs: Runs) -> Iterator[Line]:
    """Our int8 against our other precisions, and each precision against Daft's on OpenVINO."""
    for network, must in (("lite0", 1.4), ("inception", 2.5)):
        yield from _against(runs, network, OPENVINO, must, must, (INT8,))
        half = f"{OPENVINO}, bf16"
        there = runs.names(f"steady/{network}")
        if half in there:
            # Asked for with Lite0, where the network is a part of the time only.
            asked = 1.05 if network == "lite0" else 1.0
            yield from _against(runs, network, half, asked, asked, (INT8,))
        for theirs, precision in DAFT.items():
            own = OPENVINO if precision == "f32" else f"{OPENVINO}, {precision}"
            if theirs in there and own in there:
                yield from _against(runs, network, theirs, 1.05, 1.05, (own,))


def p8(runs: Runs, gflop: float) -> Iterator[Line]:
    peak = Measured.of([float(run.said.split()[1]) for run in runs.of("peak", "FMA")])
    counts = STEADY["inception"]
    for name in OURS:
        own = runs.rate("steady/inception", name, counts)
        share = own.over(peak).times(100 * gflop)
        most = f"{peak.value / gflop:.1f} images/s, {peak.value:.0f} GFLOP/s"
        note = f"{own.value:.1f} of {most}"
        yield Line(f"{name}: share of the FMA peak", share, 75, 80, " %", note=note)


def p9(runs: Runs) -> Iterator[Line]:
    for network in STEADY:
        pipeline, plain = (runs.wall(f"beam/{network}", n, 2000) for n in ("Beam", "without"))
        kept = plain.over(pipeline)
        share = Measured(100 * (1 - kept.value), [100 * (1 - part) for part in kept.rounds])
        note = f"{pipeline.value:.1f} against {plain.value:.1f} s, start-up on both sides"
        yield Line(
            f"{network}, 2,000 images: Beam's share of the time", share, 6, 4, " %", True, note
        )


def p10(runs: Runs) -> Iterator[Line]:
    found = runs.said("head", "both")
    (_, ours, loss), (_, theirs, their_loss) = found[-1]
    note = (
        f"{ours:.1f} against {theirs:.0f} CPU s; held-out loss {loss:.4f} against {their_loss:.4f}"
    )
    ratio = Measured.of([b[1] / a[1] for a, b in found])
    yield Line("CPU seconds vs retrain.py's recipe", ratio, 100, note=note)


def p11(runs: Runs) -> Iterator[Line]:
    found = runs.said("size", "f32")
    for numbers, must in (("float32", 1 / 3), ("float16", 1 / 6)):
        for place, cut in enumerate((f"{found[0]['parts']} parts", "one part")):
            size = [f["forms"][f"{numbers}, split"][place] for f in found]
            share = Measured.of([s / f["text"] for s, f in zip(size, found, strict=True)])
            accuracy = found[-1]["forms"][f"{numbers}, split"][2]
            note = f"{size[-1]:,.0f} of {found[-1]['text']:,.0f} bytes, accuracy {accuracy:.2%}"
            text = f"bytes a row, {numbers}, {found[0]['rows']} rows in {cut}, of the text's"
            yield Line(text, share, must, None, "", True, note)


def p12(runs: Runs) -> Iterator[Line]:
    rows = runs.rate("stored", "score", STORED)
    for name in OURS:
        pixels = runs.rate("steady/inception", name, STEADY["inception"])
        note = f"{1e6 / rows.value:.0f} µs a row against {1e3 / pixels.value:.1f} ms an image"
        yield Line(
            f"a row from the store vs from pixels by {name}", rows.over(pixels), 2000, note=note
        )


def p13(runs: Runs) -> Iterator[Line]:
    found = runs.said("increment", "both")
    share = Measured.of([100 * f["calls"] / f["before"] for f in found])
    same = all(f["same"] for f in found)
    note = f"{found[-1]['added']} more; the store is {'' if same else 'NOT '}that of a full run"
    yield Line("backbone calls for 1 % more images", share, 1.5, None, " %", True, note)


def p14(runs: Runs) -> Iterator[Line]:
    less, more = (runs.memory("growth", "embed", count) for count in GROWTH[1:])
    note = f"{more.value:,.0f} MB at {GROWTH[2]:,} against {less.value:,.0f} at {GROWTH[1]:,}"
    yield Line(
        "peak memory of the process tree", more.over(less), 1.1, 1.05, falling=True, note=note
    )


def p15(runs: Runs) -> Iterator[Line]:
    early, late = (runs.rate("growth", "embed", GROWTH[i : i + 2]) for i in (0, 1))
    note = f"{early.value:,.0f} images/s from 1k to 10k, {late.value:,.0f} from 10k to 100k"
    yield Line("rate from 10k to 100k vs from 1k to 10k", late.over(early), 0.9, note=note)
    found = runs.said("planning", "both", PLANNED)
    steps = [{k: v for k, v in f.items() if not k.startswith("(")} for f in found]
    seconds = Measured.of([sum(wall for wall, _, _ in own.values()) for own in steps])
    memory = median(max(peak for _, _, peak in own.values()) for own in steps)
    note = f"{memory:,.0f} MB at most"
    text = f"planning {PLANNED:,} names against {PLANNED:,} rows, and the commit"
    yield Line(text, seconds, unit=" s", falling=True, note=note)


def prices(runs: Runs, cores: int) -> Iterator[tuple[str, str, float, float]]:
    """(network, side, images a second, dollars for a million images) of steady rates."""
    for network, counts in STEADY.items():
        for name in runs.names(f"steady/{network}"):
            try:
                rate = runs.rate(f"steady/{network}", name, counts).value
            except KeyError:
                continue
            yield network, name, rate, 1e6 / rate / 3600 * cores * CORE_HOUR


ROWS: dict[str, tuple[str, Callable[..., Iterator[Line]]]] = {
    "P1": ("Inception v3 against one image at a time", p1),
    "P2": ("Inception v3 against Keras' predict(32)", p2),
    "P3": ("Inception v3 against stock RunInference", p3),
    "P4": ("against Ray Data", _wall("ray", 1.2, 1.5)),
    "P5": ("against Spark's predict_batch_udf", _wall("spark", 1.2, 2)),
    "P5b": ("against Daft", _wall("daft", 1.0, 1.3)),
    "P6": ("large images", p6),
    "P7": ("EfficientNet-Lite0 against Keras' predict(32)", p7),
    "P7b": ("bfloat16 against Keras' predict(32) in float32", p7b),
    "P7c": ("int8, and Daft on the same engine and precision", p7c),
    "P8": ("Inception v3, share of what the processor can do", p8),
    "P9": ("what Beam costs", p9),
    "P10": ("the head", p10),
    "P11": ("the store's size", p11),
    "P12": ("a new head over known images", p12),
    "P13": ("a few images more", p13),
    "P14": ("memory as work grows", p14),
    "P15": ("cost as work grows", p15),
}
