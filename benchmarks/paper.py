"""The method's own report, redone: `python benchmarks/paper.py FLOWERS`.

Embeds FLOWERS, a tree of labelled folders, with the default backbone, trains the head as the paper
did (4000 steps of 10 images), and writes PAPER.md and paper-curve.png beside this file. Needs
the extra [plots].
"""

import argparse
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from matplotlib.figure import Figure

from beam_flowers import embed_images, resolve
from beam_flowers.head.examples import Examples
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.softmax import TrainingStep
from beam_flowers.head.split import SPLITS
from beam_flowers.head.store_examples import read_examples
from beam_flowers.head.training import TrainResult, train
from beam_flowers.workflows.train import versions

HERE = Path(__file__).parent
PAPER = RetrainOptions(how_many_training_steps=4000, train_batch_size=10, validation_batch_size=-1)
TABLE_1 = {"roses": 99.72, "dandelion": 99.96, "sunflowers": 95.55, "daisy": 99.84, "tulips": 95.20}
SEEDS = range(5)
SETTINGS = {
    "none": {},
    "L1 0.001": {"l1": 1e-3},
    "L2 0.01": {"l2": 1e-2},
    "L2 0.1": {"l2": 1e-1},
    "L1 0.001 + L2 0.01": {"l1": 1e-3, "l2": 1e-2},
    "dropout 0.2": {"dropout": 0.2},
    "dropout 0.5": {"dropout": 0.5},
}
SMOOTHED = 20  # Reports, 10 steps apart, over which curves of a batch of 10 are averaged.

TEXT = """\
# The paper's tables with beam-flowers

`python benchmarks/paper.py FLOWERS` wrote this file and the image in it.

{processor}; Python {python}, {packages}. {count} images of five flowers; backbone \
efficientnet-lite0; recipe `retrain`, 4000 steps of 10 images, learning rate 0.01, seed 0; \
{sides}. The paper had Inception v3.

## One photograph of each flower (the paper's Table 1)

Score of the right label. Our photograph is the first by file name of the testing side, taken as \
it comes. Scores are the plain softmax's, as in the paper, without the fitted temperature that \
`train` adds.

| flower | paper | ours | our photograph | label given | ours, mean of all test photographs |
|---|---|---|---|---|---|
{table}

## All test images

What one photograph a class does not say: accuracy **{accuracy:.1%}** on {tested} images (95 % \
interval {low:.1%} to {high:.1%}); mean top score {top:.2%} ({right:.2%} where the label is \
right, {wrong:.2%} where it is wrong).

## The training, step by step

![train accuracy, validation accuracy and cross entropy over the steps](paper-curve.png)

Train accuracy and cross entropy are those of the 10 images just trained on, here the mean of \
the last {smoothed} reports (a report each 10 steps); validation accuracy is that of all \
{validation} validation images. The three, in this order, at steps {milestones}.

## Regularisation

Accuracy on the testing side, over the seeds {seeds} (each its own split and training); ± is the \
standard deviation over the seeds, the difference that within the same seeds.

| setting | test accuracy | difference to none, points |
|---|---|---|
{penalties}
"""


def tested(examples: Examples, result: TrainResult) -> tuple[list[int], np.ndarray]:
    """Rows of the testing side, by file name, and their scores [n, C] without temperature."""
    rows = np.flatnonzero(result.codes == SPLITS.index("testing")).tolist()
    rows.sort(key=lambda row: examples.uris[row].rpartition("/")[2])
    return rows, replace(result.head, temperature=1.0).scores(examples.vectors[rows])


def table(examples: Examples, result: TrainResult) -> Iterator[str]:
    """The lines of Table 1, in the paper's order."""
    rows, scores = tested(examples, result)
    for flower, paper in TABLE_1.items():
        places = [i for i, row in enumerate(rows) if examples.labels[row] == flower]
        own = scores[places, result.labels.index(flower)]
        photo = examples.uris[rows[places[0]]].rpartition("/")[2]
        given = result.labels[scores[places[0]].argmax()]
        yield f"| {flower} | {paper:.2f} % | {own[0]:.2%} | {photo} | {given} | {own.mean():.2%} |"


def summary(examples: Examples, result: TrainResult) -> dict[str, float]:
    """What the scores of all test images say."""
    rows, scores = tested(examples, result)
    best, metrics = scores.max(axis=1), result.metrics["testing"]
    given = np.array(result.labels)[scores.argmax(axis=1)]
    right = given == np.array([examples.labels[row] for row in rows])
    found = {"accuracy": metrics.accuracy, "low": metrics.accuracy_low, "tested": metrics.count}
    means = {"top": best.mean(), "right": best[right].mean(), "wrong": best[~right].mean()}
    return {**found, **means, "high": metrics.accuracy_high}


def smoothed(values: list[float]) -> list[float]:
    """Mean of each value and the ones before it."""
    return [mean(values[max(0, i + 1 - SMOOTHED) : i + 1]) for i in range(len(values))]


def milestones(steps: list[TrainingStep]) -> str:
    """The curve in a sentence."""
    accuracy = smoothed([step.train_accuracy for step in steps])
    loss = smoothed([step.cross_entropy for step in steps])
    held_back = [step.validation_accuracy for step in steps]
    shown = ((steps[i].step, accuracy[i], loss[i], held_back[i]) for i in (10, 50, 100, -1))
    return "; ".join("{}: {:.1%}, {:.3f}, {:.1%}".format(*values) for values in shown)


def draw(steps: list[TrainingStep], path: Path) -> None:
    """The curve as PNG."""
    figure = Figure(figsize=(8, 6), dpi=100, layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    x = [step.step for step in steps]
    for axes, name in ((above, "train_accuracy"), (below, "cross_entropy")):
        values = [getattr(step, name) for step in steps]
        axes.plot(x, values, color="tab:blue", alpha=0.2, linewidth=0.7)
        axes.plot(x, smoothed(values), color="tab:blue", label="train (batch of 10, smoothed)")
        axes.grid(alpha=0.3)
    above.plot(x, [s.validation_accuracy for s in steps], color="tab:orange", label="validation")
    losses = [s.validation_cross_entropy for s in steps]
    below.plot(x, losses, color="tab:orange", label="validation")
    above.set(ylabel="accuracy", ylim=(0, 1.02), title="Softmax head, 4000 steps of 10 images")
    below.set(xlabel="step", ylabel="cross entropy (nats)", ylim=(0, None))
    below.legend(loc="upper right")
    figure.savefig(path, metadata={"Software": None})


def penalty_lines(examples: Examples) -> Iterator[str]:
    """Test accuracy with each setting, over the seeds."""
    plain: list[float] = []
    for name, changes in SETTINGS.items():
        runs = [train(examples, replace(PAPER, **changes), seed=seed) for seed in SEEDS]
        found = [run.metrics["testing"].accuracy for run in runs]
        plain = plain or found
        gains = [100 * (a - b) for a, b in zip(found, plain, strict=True)]
        test, gain = (mean(found), stdev(found)), (mean(gains), stdev(gains))
        yield "| {} | {:.2%} ± {:.2%} | {:+.2f} ± {:.2f} |".format(name, *test, *gain)


def processor() -> str:
    """Name of the CPU."""
    cpus = Path("/proc/cpuinfo")
    found = re.search("model name\\s*: (.*)", cpus.read_text()) if cpus.exists() else None
    return found[1] if found else platform.processor()


def main() -> None:
    """Writes PAPER.md and the curve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("flowers", help="folder with a folder of images a flower")
    with tempfile.TemporaryDirectory() as store:
        embed_images([parser.parse_args().flowers], store, resolve("efficientnet-lite0"))
        examples = read_examples(store).examples
    steps: list[TrainingStep] = []
    result = train(examples, PAPER, report=steps.append)
    draw(steps, HERE / "paper-curve.png")
    text = TEXT.format(
        processor=f"{processor()} ({os.cpu_count()} cores)",
        python=platform.python_version(),
        packages=", ".join(f"{name} {number}" for name, number in versions().items()),
        count=len(examples.uris),
        sides=", ".join(f"{metrics.count} {name}" for name, metrics in result.metrics.items()),
        table="\n".join(table(examples, result)),
        **summary(examples, result),
        smoothed=SMOOTHED,
        validation=result.metrics["validation"].count,
        milestones=milestones(steps),
        seeds=f"{SEEDS[0]} to {SEEDS[-1]}",
        penalties="\n".join(penalty_lines(examples)),
    )
    (HERE / "PAPER.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
