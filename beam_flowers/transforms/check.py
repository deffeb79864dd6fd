"""A small job that finds out what each worker has and can: what `beam-flowers check` runs."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file
from importlib.resources import files as resources
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers import files
from beam_flowers.backbones.compute import compute_bottlenecks, pool, read_content
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.hardware import cores
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BeamFlowersError
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Bottleneck, Image, Reject
from beam_flowers.store.parts import Place
from beam_flowers.transforms.dofns import PROBLEMS
from beam_flowers.transforms.plan import SpreadUnits
from beam_flowers.transforms.preflight import (
    Setup,
    expected_setup,
    sees_store,
    versions,
)

FINDINGS = "findings.json"
"""The `run_file` with what all workers found."""


@dataclass(frozen=True)
class Finding:
    """What one worker process found while it had one picture in hand.

    Attributes:
        host: its name.
        pid: process id.
        versions: see `transforms.preflight.versions`.
        cores: that the process may keep busy.
        threads: that read, decode and compute in it.
        engine: what runs the network, and its precision.
        loading: seconds until the network was there; 0 where it was already.
        seconds: from the picture's address to its vector.
        megabytes: most memory that the process had so far (resident set).
        vector: digest of the vector of a photograph that ships with the package.
        problem: what is wrong; empty if nothing is.
    """

    host: str
    pid: int
    versions: dict[str, str]
    cores: int
    threads: int
    engine: str
    loading: float = 0.0
    seconds: float = 0.0
    megabytes: int = 0
    vector: str = ""
    problem: str = ""


@dataclass
class CheckWorkers(beam.PTransform):
    """Pictures → a `Finding` each, by whatever workers they get to; all as JSON in `FINDINGS`.

    Attributes:
        place: where to write.
        backbone: to compute with.
        pictures: one for each probe; None stands for a photograph of the package.
    """

    place: Place
    backbone: ResolvedBackbone
    pictures: Sequence[Image | None]

    def expand(self, pbegin: PBegin) -> PCollection[Any]:
        beams = pbegin.pipeline.options.get_all_options()
        setup = expected_setup(self.place, beams, [self.backbone])
        return (
            pbegin
            | "SpreadPictures" >> SpreadUnits(self.pictures)
            | "Probe" >> beam.ParDo(_Probe(setup))
            | "Gather" >> beam.GroupByKey()
            | "Report" >> beam.ParDo(_Report(setup))
        )


class _Probe(beam.DoFn):
    def __init__(self, setup: Setup) -> None:
        self._expected = setup

    def process(self, picture: Image | None) -> Iterator[tuple[int, dict[str, Any]]]:
        yield 0, asdict(probe(self._expected, picture))


class _Report(beam.DoFn):
    def __init__(self, setup: Setup) -> None:
        self._expected = setup

    def process(self, keyed: tuple[int, Iterable[dict[str, Any]]]) -> None:
        findings = list(keyed[1])
        for problem in {f["problem"] for f in findings} | {self._expected.problem()}:
            if problem:
                Metrics.counter(PROBLEMS, problem).inc()
        # A worker that does not see the store leaves nothing in what it takes for it.
        if sees_store(self._expected):
            uri = self._expected.place.run_file(FINDINGS)
            files.write_atomic(uri, json.dumps(findings).encode())


def probe(setup: Setup, picture: Image | None) -> Finding:
    """What this process is, and whether it can compute the vector of `picture`."""
    backbone = setup.backbones[0]
    loading = seconds = 0.0
    vector, problem = "", setup.problem()
    if not problem:
        try:
            begun = time.monotonic()
            load(backbone)
            loading = time.monotonic() - begun
            vector = _vector_of_the_packages(backbone)
            begun = time.monotonic()
            problem = _compute(backbone, picture)
            seconds = time.monotonic() - begun
        except (BeamFlowersError, OSError) as error:
            problem = str(error)
        problem = problem and f"{socket.gethostname()}: {problem}"
    return Finding(
        socket.gethostname(),
        os.getpid(),
        dict(versions()),
        cores(),
        pool()._max_workers,
        f"{backbone.engine} in {backbone.precision}",
        loading,
        seconds,
        _megabytes(),
        vector,
        problem,
    )


def _compute(backbone: ResolvedBackbone, picture: Image | None) -> str:
    """Computes one picture; returns why it could not be read. A bad picture is no problem."""
    if picture is None:
        return ""
    content = read_content(picture, Limits())
    if isinstance(content, Reject):
        return f"cannot read {picture.uri}: {content.message}"
    compute_bottlenecks([picture], load(backbone))
    return ""


def _vector_of_the_packages(backbone: ResolvedBackbone) -> str:
    """Hex digest of a vector that every worker can compute: equal ones mean equal arithmetic."""
    flowers = resources("beam_flowers") / "data" / "flowers" / "unseen"
    with as_file(flowers) as folder:
        path = min(str(p) for p in folder.rglob("*.jpg"))
        (result,) = compute_bottlenecks([Image(path, str(folder), path)], load(backbone))
    assert isinstance(result, Bottleneck), result
    return hashlib.sha256(result.vector.tobytes()).hexdigest()


def _megabytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 2**20 if sys.platform == "darwin" else most // 2**10
