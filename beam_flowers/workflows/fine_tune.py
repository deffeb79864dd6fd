"""Trains the backbone itself on a store's images and labels."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.errors import BackboneError, InputError, TrainingError
from beam_flowers.finetune.labelled_images import (
    Item,
    Reader,
    labelled_images,
    uris_by_content,
)
from beam_flowers.finetune.training import Classes, Descent, Floats, Pixels, Tuner
from beam_flowers.head.bundle import Bundle, check_model_folder, write_bundle
from beam_flowers.head.corrections import correct_labels, read_corrections
from beam_flowers.head.held_out import measure_held_out
from beam_flowers.head.metrics import Metrics, evaluate, wilson_interval
from beam_flowers.head.settings import check_settings
from beam_flowers.head.softmax import Head, Sample
from beam_flowers.head.split import SPLITS, SplitOptions
from beam_flowers.head.store_examples import read_examples
from beam_flowers.head.temperature import Calibration, fit_temperature
from beam_flowers.head.training import train
from beam_flowers.images.outputs import Writing, check_target, placing
from beam_flowers.records import Say
from beam_flowers.store.features import section_name
from beam_flowers.workflows.progress import Progress
from beam_flowers.workflows.train import versions


@dataclass(frozen=True)
class FineTuneOptions:
    """Settings of a fine-tuning by AdamW, whose rate rises for a tenth of the steps and then falls.

    The rate falls to 0 along half a cosine. `benchmarks/learning.py fine-tune` measures the
    defaults; make_image_classifier's gradient descent, rate of 0.005 and images as they are gained
    nothing on flowers.

    Attributes:
        train_epochs: passes over the training images.
        batch_size: images a step; they are in memory together with all their activations.
        learning_rate: the highest of all steps.
        momentum: 0..1, share that the mean of the gradients keeps in a step.
        weight_decay: share of the kernels that a step of the learning rate 1 takes away.
        dropout: share of a vector's numbers set to 0 in training.
        label_smoothing: share of the target that is spread over all labels, 0..1.
        flip: True to mirror every other image; False where left and right matter, as in text.
        crop: most of an image's area that a random crop leaves out, 0..1.
        brightness: images are multiplied by 1 - brightness to 1 + brightness; below 1.
    """

    train_epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 0.01
    dropout: float = 0.2
    label_smoothing: float = 0.1
    flip: bool = True
    crop: float = 0.4
    brightness: float = 0.2

    def __post_init__(self) -> None:
        check_settings(self)

    def pace(self, step: int, steps: int) -> float:
        """Returns the factor of the learning rate, 0..1, of a step of 0 to `steps` - 1."""
        rise = max(1, steps // 10)
        if step < rise:
            return (step + 1) / rise
        return (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2

    def descent(self) -> Descent:
        """Returns the options of a single step."""
        values = asdict(self)
        return Descent(**{name: values[name] for name in Descent.__dataclass_fields__})


class Accuracy(NamedTuple):
    """Counts images and those that were labelled right."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """0..1; 1 of no images."""
        return self.right / self.total if self.total else 1.0

    def __str__(self) -> str:
        if not self.total:
            return "unknown (no images)"
        low, high = wilson_interval(self.right, self.total)
        return f"{self.share:.1%} (95 % interval {low:.1%} to {high:.1%}, {self.total} images)"


_UNKNOWN = Accuracy(0, 0)


class FineTuned(NamedTuple):
    """Holds a finished fine-tuning.

    Attributes:
        backbone: the new one.
        before: accuracy by `validation` and `testing` of a head on the stored vectors.
        after: the same of the tuned network with the layer that was trained on it, on the
            images of these that could be read.
        model_id: of the model with that layer for a head; None if none was asked for.
    """

    backbone: ResolvedBackbone
    before: Mapping[str, Accuracy]
    after: Mapping[str, Accuracy]
    model_id: str | None = None


def fine_tune(
    store: str,
    backbone: ResolvedBackbone,
    images: Sequence[str],
    output: str,
    options: FineTuneOptions | None = None,
    split: SplitOptions | None = None,
    *,
    seed: int = 0,
    labels: str | None = None,
    model: str | None = None,
    say: Say = print,
    warn: Say = print,
    progress: Progress | None = None,
    writing: Writing | None = None,
) -> FineTuned:
    """Trains a backbone on the images that a store has vectors of, and writes a new one.

    The start is the backbone with a head trained by L-BFGS on the stored vectors. Images are
    found in `images` by content. Those of the training side train, those of the validation side
    are measured after each epoch, of which the one with the lowest cross entropy on them is kept.
    Those of the testing side are measured once, at the end.

    Args:
        store: folder of the store, which is only read.
        backbone: to begin from.
        images: folders, globs, list files, manifests or images; see `find_images`.
        output: local folder to write, a SavedModel.
        options: settings of the training.
        split: how the rows are divided: the same as when heads are trained.
        seed: of split, order of the images, distortions and dropout.
        labels: manifest of corrections: see `read_corrections`.
        model: folder to write a model of the tuned network and the layer trained on it to; it
            labels images by the new backbone.
        say, warn: take lines for the user.
        progress: gets the number of images done, of all epochs.
        writing: the terms; by default `output` must not be there, and `model` hold nothing else.

    Raises:
        OutputError: something is there that must stay.
        InputError: no training image is in `images`.
        StoreError: the store has no vectors of that backbone.
        BackboneError: the backbone cannot be trained.
        TrainingError: no head can be trained on the store, or the training diverged.
    """
    options, split = options or FineTuneOptions(), split or SplitOptions()
    if backbone.kind == "onnx":
        raise BackboneError(
            f"{backbone.row.name!r} is an ONNX network, whose weights are constants: it is not "
            "fine-tuned here. Train a head on its vectors, or fine-tune a backbone of the "
            "catalogue, a .keras file or a SavedModel"
        )
    writing = (writing or Writing()).reading(store, labels, backbone.path).listing(images)
    if model:
        check_model_folder(files.absolute(model), writing)
    target = check_target(output, "a backbone", writing)
    name = section_name(backbone.row.name, backbone.fingerprint).partition("=")[2]
    stored = read_examples(files.absolute(store), name)
    if labels:
        stored = correct_labels(stored, read_corrections(labels))
    # Not cross-fitted: the validation images choose the epoch and must be new to the head, too.
    start = train(stored.examples, split=split, seed=seed, folds=0)
    sides = labelled_images(stored.examples, start, uris_by_content(images, warn), warn)
    before = _accuracies(start.metrics)
    _tell(say, "before, head on the stored vectors", before)
    tuner = Tuner(backbone, start.head.weights, start.head.bias, options.descent(), seed)
    reader = Reader(tuner.recipe)
    _run(tuner, reader, sides, options, seed, say, progress or Progress())
    held_back = {
        name: _sample(tuner, reader, sides[name], options.batch_size) for name in SPLITS[1:]
    }
    head, calibration = _calibrated(tuner, held_back["validation"])
    metrics = _measure(head, held_back)
    after = dict.fromkeys(before, _UNKNOWN) | _accuracies(metrics)
    _tell(say, "after, tuned network", after)
    _warn(before, after, reader, warn)
    with placing(target) as made:
        tuner.save(made)
    # It holds what the network held from which it was made.
    tuned = resolve(target, trust=backbone.trusted)
    if not model:
        return FineTuned(tuned, before, after)
    bundle = Bundle(
        head,
        start.labels,
        tuned.row.name,
        tuned.fingerprint,
        tuned.about()["pixels"],
        {"name": "fine-tune", **asdict(options)},
        split.as_dict(),
        seed,
        stored.dataset_hash,
        {name: asdict(found) for name, found in metrics.items()},
        versions(),
        asdict(calibration) if calibration else None,
        held_out=measure_held_out(head, held_back["validation"], held_back["testing"]),
    )
    return FineTuned(tuned, before, after, write_bundle(files.absolute(model), bundle, writing))


def _calibrated(tuner: Tuner, validation: Sample) -> tuple[Head, Calibration | None]:
    """Returns the layer as a head with its temperature."""
    head = Head(*tuner.layer)
    calibration = fit_temperature(head, validation)
    if calibration:
        head = replace(head, temperature=calibration.temperature)
    return head, calibration


def _measure(head: Head, samples: Mapping[str, Sample]) -> dict[str, Metrics]:
    return {name: evaluate(head, sample) for name, sample in samples.items() if len(sample)}


def _accuracies(metrics: Mapping[str, Metrics]) -> dict[str, Accuracy]:
    return {
        name: Accuracy(round(found.accuracy * found.count), found.count)
        for name, found in metrics.items()
        if name != "training"
    }


def _tell(say: Say, what: str, accuracies: Mapping[str, Accuracy]) -> None:
    for name, accuracy in accuracies.items():
        say(f"{what}: {name} accuracy {accuracy}")


def _warn(
    before: Mapping[str, Accuracy], after: Mapping[str, Accuracy], reader: Reader, warn: Say
) -> None:
    for reason, count in Counter(reader.skipped.values()).most_common():
        warn(f"{count} images were skipped: {reason}")
    if "validation" in before and after["validation"].share < before["validation"].share:
        warn(
            "on the validation images the tuned network is worse than what it began with: try a"
            " lower --learning-rate or other --train-epochs"
        )


def _sample(tuner: Tuner, reader: Reader, items: Sequence[Item], size: int) -> Sample:
    """Returns the tuned backbone's embeddings of the readable images."""
    found = [(tuner.embed(pixels), classes) for pixels, classes in reader.batches(items, size)]
    if not found:
        return Sample(np.empty((0, len(tuner.layer[0])), np.float32), np.empty(0, np.intp))
    vectors, classes = zip(*found, strict=True)
    return Sample(np.concatenate(vectors), np.concatenate(classes))


def _run(
    tuner: Tuner,
    reader: Reader,
    sides: Mapping[str, list[Item]],
    options: FineTuneOptions,
    seed: int,
    say: Say,
    progress: Progress,
) -> None:
    training, epochs = sides["training"], options.train_epochs
    total = epochs * len(training)
    say(
        f"fine-tuning all layers on {len(training)} images x {epochs} epochs = {total}, each"
        " forward and backward through the whole network: a multiple of the cost of embedding them"
    )
    progress.begin("fine-tuning", total)
    random, best = np.random.default_rng(seed), _Best()
    batches = -(-len(training) // options.batch_size)
    for epoch in range(1, epochs + 1):
        began = time.monotonic()
        order = [training[place] for place in random.permutation(len(training))]
        paces = (
            options.pace((epoch - 1) * batches + step, epochs * batches) for step in range(batches)
        )
        images = reader.batches(order, options.batch_size)
        loss, accuracy = _epoch(tuner, images, paces, progress)
        progress.reach(epoch * len(training))
        line = f"epoch {epoch}: loss {loss:.4f}, train accuracy {accuracy}"
        held_back = _sample(tuner, reader, sides["validation"], options.batch_size)
        if len(held_back):
            found = evaluate(_calibrated(tuner, held_back)[0], held_back)
            line += f", validation accuracy {_accuracies({'validation': found})['validation']}"
            if found.cross_entropy < best.cross_entropy:
                best = _Best(epoch, found.cross_entropy, tuner.state())
        say(f"{line}, {time.monotonic() - began:.0f} s")
    if best.epoch not in (0, epochs):
        tuner.restore(best.state)
        say(f"kept: epoch {best.epoch}, of the lowest validation cross entropy")


class _Best(NamedTuple):
    """Holds the epoch of the lowest validation cross entropy and the weights after it."""

    epoch: int = 0
    cross_entropy: float = math.inf
    state: Sequence[Floats] = ()


def _epoch(
    tuner: Tuner,
    batches: Iterator[tuple[Pixels, Classes]],
    paces: Iterator[float],
    progress: Progress,
) -> tuple[float, Accuracy]:
    """Returns mean loss and accuracy over an epoch, each batch measured before its step."""
    loss, right, count = 0.0, 0, 0
    before = progress.state().done
    # Batches that cannot be read are missing: the paces may be more.
    for (pixels, classes), pace in zip(batches, paces, strict=False):
        batch_loss, hits = tuner.step(pixels, classes, pace)
        if not math.isfinite(batch_loss):
            raise TrainingError(
                f"the fine-tuning diverged: the loss is {batch_loss}; use a lower --learning-rate;"
                " nothing was written"
            )
        loss += batch_loss * len(classes)
        right, count = right + hits, count + len(classes)
        progress.reach(before + count)
    if not count:
        raise InputError("none of the training images can be read; nothing was written")
    return loss / count, Accuracy(right, count)
