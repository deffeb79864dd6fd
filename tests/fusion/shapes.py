"""Every shape of graph that the package makes, each as a function that adds it to a pipeline."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import vectors
from apache_beam.transforms.window import FixedWindows
from fuser import new_pipeline
from places import EXAMPLES

from beam_flowers import transforms
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.contrib.augment.distort import DEFAULT
from beam_flowers.contrib.augment.table import AugmentedRows
from beam_flowers.contrib.augment.transforms import AugmentPlan
from beam_flowers.head.bundle import Bundle, write_bundle
from beam_flowers.head.softmax import Head
from beam_flowers.records import Image
from beam_flowers.scoring.table import ScoreLayout, ScoreRows
from beam_flowers.store.commits import Section
from beam_flowers.store.parts import Place
from beam_flowers.store.plan import Plan
from beam_flowers.store.schema import StoreRows
from beam_flowers.store.work_units import Unit
from beam_flowers.transforms import beam_yaml, streaming
from beam_flowers.transforms.check import CheckWorkers
from beam_flowers.transforms.plan import RunPlan, ScorePlan

Shape = Callable[[beam.Pipeline], Any]
NAME = "efficientnet-lite0"
OPTIONAL = [field.name for field in fields(Plan) if field.type == "tuple[Unit, ...]"]
"""The units that a plan may have. A new kind of them is in the combinations by itself."""


class Material(NamedTuple):
    """What the shapes are made of.

    Attributes:
        network: the one that ships with the package.
        model: a model of no worth, which fits the network.
        models: folder that holds the folder `first` of that model.
        images: an empty folder.
        store: a store of three vectors.
        new: where a store may be written.
    """

    network: ResolvedBackbone
    model: Bundle
    models: str
    images: str
    store: str
    new: str


def material(folder: Path) -> Material:
    """Makes what the shapes are made of, in a folder."""
    network = resolve(NAME)
    head = Head(np.zeros((1280, 2), np.float32), np.zeros(2, np.float32))
    keys = ("pixels", "recipe", "split", "metrics", "versions")
    described: dict[str, Any] = {key: {} for key in keys}
    labels, digest = ("a", "b"), network.fingerprint
    model = Bundle(head, labels, NAME, digest, seed=0, dataset_hash="d", **described)
    names = ("models", "images", "store", "new")
    made = Material(network, model, *(str(folder / name) for name in names))
    write_bundle(f"{made.models}/first", model)
    Path(made.images).mkdir()
    vectors.add(folder / "store", NAME, vectors.embeddings(range(3), 1280))
    return made


def pipelines(made: Material) -> dict[str, beam.Pipeline]:
    """Makes a pipeline of every shape, by the shape's name."""
    batches = {name: (build, ()) for name, build in (*plans(made), *wired(made))}
    shapes = batches | {name: (build, ("--streaming",)) for name, build in endless(made)}
    found = {}
    for name, (build, flags) in shapes.items():
        found[name] = new_pipeline(*flags)
        build(found[name])
    return found


def plans(made: Material) -> Iterator[tuple[str, Shape]]:
    """Gives each transform that carries out a plan, for every combination of units."""
    place = Place(made.new, "backbone=x", "f" * 64, "0")
    store = StoreRows(made.network.fingerprint, NAME)
    copies = AugmentedRows(made.network.fingerprint, NAME)
    scores = ScoreRows.of(made.model)
    by_label = ScoreRows.of(made.model, layout=ScoreLayout(partition_by_label=True))
    units = (Unit("units.parquet", 0, "part", 1),)
    for some in (c for n in range(len(OPTIONAL) + 1) for c in combinations(OPTIONAL, n)):
        given: dict[str, Any] = dict.fromkeys(some, units)
        plan = Plan(place, 0, Section("f" * 64, {}), **given)
        of = " and ".join(some) or "nothing"
        for name, kind in (("a store", store), ("scores", scores), ("scores by label", by_label)):
            yield f"RunPlan to {name}, {of}", _step(RunPlan(plan, kind, [made.network]))
        for name, kind in (("scores", scores), ("scores by label", by_label)):
            yield f"ScorePlan to {name}, {of}", _step(ScorePlan(plan, [place], kind))
        yield f"AugmentPlan, {of}", _step(AugmentPlan(plan, copies, made.network, DEFAULT))
    yield "CheckWorkers", _step(CheckWorkers(place, made.network, [None, None]))


def _step(step: beam.PTransform) -> Shape:
    return lambda pipeline: pipeline | "Run" >> step


def wired(made: Material) -> Iterator[tuple[str, Shape]]:
    """Gives the public transforms as users wire them, in batches."""

    def embed(pipeline: beam.Pipeline) -> None:
        found = pipeline | transforms.FindImages([made.images])
        computed = found.images | transforms.ComputeEmbeddings(made.network)
        rows = (computed.embeddings, computed.rejects, found.rejects)
        rows | transforms.WriteStore(made.new, made.network)

    def label(pipeline: beam.Pipeline) -> None:
        found = pipeline | transforms.FindImages([made.images])
        scored = found.images | transforms.ScoreImages(made.model, made.network)
        stored = pipeline | transforms.ReadStore(made.store)
        scores = stored | transforms.ScoreEmbeddings(made.model)
        (scored.scores, scores) | "Scores" >> beam.Flatten() | beam.Map(print)

    def add_to_a_store(pipeline: beam.Pipeline) -> None:
        found = pipeline | transforms.FindImages([made.images])
        computed = found.images | transforms.ComputeEmbeddings(made.network)
        stored = pipeline | transforms.ReadStore(made.store)
        both = (stored, computed.embeddings) | "Both" >> beam.Flatten()
        both | transforms.WriteStore(made.new, made.network)

    def label_into_a_table(pipeline: beam.Pipeline) -> None:
        patterns = pipeline | beam.Create([made.images])
        found = patterns | transforms.FindImages()
        scored = found.images | transforms.ScoreImages(made.model, made.network)
        rows = (scored.scores, scored.rejects, found.rejects)
        rows | transforms.WriteScores(made.new, made.model)

    def label_by_two_models(pipeline: beam.Pipeline) -> None:
        both = [made.model, replace(made.model, seed=2)]
        stored = pipeline | transforms.ReadStore(made.store)
        stored | transforms.ScoreEmbeddings(both) | transforms.WriteScores(made.new, both)

    def read(pipeline: beam.Pipeline) -> None:
        found = pipeline | transforms.FindImages([made.images])
        read = found.images | transforms.ReadImages()
        (found.rejects, read.rejects) | "Rejects" >> beam.Flatten() | beam.Map(print)

    def in_windows(pipeline: beam.Pipeline) -> None:
        images = pipeline | beam.Create([Image("/r/a.jpg", "/r", "a.jpg")])
        windows = images | beam.WindowInto(FixedWindows(60))
        computed = windows | transforms.ComputeEmbeddings(made.network)
        computed.embeddings | transforms.WriteStore(made.new, made.network)

    def in_yaml(pipeline: beam.Pipeline) -> None:
        rejects = {"output": "rejects"}
        found = pipeline | beam_yaml.FindImages([made.images], rejects)
        computed = found["good"] | beam_yaml.ComputeEmbeddings(NAME, rejects)
        computed["good"] | beam_yaml.WriteStore(made.new)
        scored = found["good"] | beam_yaml.ScoreImages(f"{made.models}/first")
        stored = pipeline | beam_yaml.ReadStore(made.store)
        scores = stored | beam_yaml.ScoreEmbeddings(f"{made.models}/first")
        (scored, scores) | "Scores" >> beam.Flatten() | beam.Map(print)

    builds = (embed, label, add_to_a_store, label_into_a_table, label_by_two_models)
    for build in (*builds, read, in_windows, in_yaml):
        yield build.__name__, build


def endless(made: Material) -> Iterator[tuple[str, Shape]]:
    """Gives pipelines without an end, the examples' own among them."""

    def embed(pipeline: beam.Pipeline) -> None:
        images = pipeline | streaming.WatchImages(made.images)
        windows = images | beam.WindowInto(FixedWindows(60))
        computed = windows | transforms.ComputeEmbeddings(made.network)
        computed.embeddings | transforms.WriteStore(made.new, made.network)

    def in_yaml(pipeline: beam.Pipeline) -> None:
        images = pipeline | beam_yaml.WatchImages(made.images)
        images | beam_yaml.ScoreImages(f"{made.models}/first")

    def example(name: str, **model: str) -> Shape:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        settings = {"incoming": made.images, "output": made.new, "seconds": 5}
        return partial(module.build, **settings, **model)

    yield "endless embed", embed
    yield "endless in YAML", in_yaml
    yield "label_arrivals", example("label_arrivals", model=f"{made.models}/first")
    yield "refresh_model", example("refresh_model", models=made.models)
