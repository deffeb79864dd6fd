"""Runs a small job that tells the hardware, versions and arithmetic of each worker."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers import files
from beam_flowers.backbones.compute import compute_embeddings, pool, read_content
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.hardware import cores
from beam_flowers.backbones.reference import reference_digest
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BeamFlowersError
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Image, Reject
from beam_flowers.store.parts import Place
from beam_flowers.transforms.dofns import PROBLEMS
from beam_flowers.transforms.plan import SpreadUnits
from beam_flowers.transforms.preflight import Setup, expected_setup, sees_store, versions

FINDINGS = "findings.json"
"""The `run_file` with what all workers found."""


@dataclass(frozen=True)
class Finding:
    """Holds the findings of one worker process, made with one image.

    Attributes:
        host: name of the machine.
        pid: process id.
        versions: see `transforms.preflight.versions`.
        cores: that the process may keep busy.
        threads: number of them that read, decode and compute in it.
        engine: the library that runs the backbone, and its precision.
        loading: seconds until the backbone was loaded; 0 if it was loaded before.
        seconds: from the image's uri to its embedding.
        megabytes: peak memory of the process so far (resident set).
        vector: digest of the embedding of an image that ships with the package.
        problem: fault of the process, or an empty text.
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
    """Makes a `Finding` of each image on the worker that it gets to; writes all to `FINDINGS`.

    Attributes:
        place: folder for the JSON file `FINDINGS`.
        backbone: the pre-trained network.
        images: one for each probe; None stands for an image of the package.
    """

    place: Place
    backbone: ResolvedBackbone
    images: Sequence[Image | None]

    def expand(self, pbegin: PBegin) -> PCollection[Any]:
        beams = pbegin.pipeline.options.get_all_options()
        setup = expected_setup(self.place, beams, [self.backbone])
        return (
            pbegin
            | "SpreadImages" >> SpreadUnits(self.images)
            | "Probe" >> beam.ParDo(_Probe(setup))
            # One file with all findings: not every runner gives a collection back to its driver.
            | "Gather" >> beam.GroupByKey()
            | "Report" >> beam.ParDo(_Report(setup))
        )


class _Probe(beam.DoFn):
    def __init__(self, setup: Setup) -> None:
        self._expected = setup

    def process(self, image: Image | None) -> Iterator[tuple[int, dict[str, Any]]]:
        yield 0, asdict(probe(self._expected, image))


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


def probe(setup: Setup, image: Image | None) -> Finding:
    """Describes this process, and tries to compute the embedding of `image`."""
    backbone = setup.backbones[0]
    loading = seconds = 0.0
    vector, problem = "", setup.problem()
    if not problem:
        try:
            # Apart from the image, as only the first one of a process waits for it.
            begun = time.monotonic()
            load(backbone)
            loading = time.monotonic() - begun
            vector = reference_digest(backbone)
            begun = time.monotonic()
            problem = _compute(backbone, image)
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


def _compute(backbone: ResolvedBackbone, image: Image | None) -> str:
    """Computes one image; returns why it could not be read. A bad image is no problem."""
    if image is None:
        return ""
    content = read_content(image, Limits())
    if isinstance(content, Reject):
        return f"cannot read {image.uri}: {content.message}"
    compute_embeddings([image], load(backbone))
    return ""


def _megabytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 2**20 if sys.platform == "darwin" else most // 2**10
