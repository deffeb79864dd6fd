"""The README's figures: `python benchmarks/flowers.py IMAGES` (a tree of labelled folders).

Times whole processes, start-up included, and measures 5-fold accuracy from the stored vectors.
Run it on a quiet machine.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.metrics import evaluate
from beam_flowers.head.recipes import train_head
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.softmax import Sample
from beam_flowers.store.features import Features, read_features

FOLDS = 5
RECIPES = {
    "lbfgs": LbfgsOptions(),
    "retrain, 4000 x 10": RetrainOptions(train_batch_size=10),
    "retrain, 4000 x 100": RetrainOptions(),
}


def timed(*command: str) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(["beam-flowers", *command], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def folds(features: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelled rows, their class ids and a fold each; equal contents share a fold."""
    rows = np.array([i for i, label in enumerate(features.labels) if label is not None])
    names = sorted({features.labels[i] for i in rows})
    class_ids = np.array([names.index(features.labels[i]) for i in rows])
    fold = np.array([int(features.sha256[i][:12], 16) % FOLDS for i in rows])
    return rows, class_ids, fold


def accuracy(features: Features, recipe: LbfgsOptions | RetrainOptions) -> tuple[float, float]:
    """Mean and standard deviation of the accuracy over the folds."""
    rows, class_ids, fold = folds(features)
    found = []
    for held_out in range(FOLDS):
        train, test = fold != held_out, fold == held_out
        training = Sample(features.vectors, class_ids[train], rows[train])
        head = train_head(training, class_ids.max() + 1, recipe)
        found.append(evaluate(head, Sample(features.vectors, class_ids[test], rows[test])).accuracy)
    return float(np.mean(found)), float(np.std(found))


def processor() -> str:
    """Name of the CPU and the flags that matter."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((li.partition(": ")[2] for li in text.splitlines() if "model name" in li), "")
    flags = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {f} " in text]
    return f"{name or platform.processor()} ({os.cpu_count()} cores, {' '.join(flags)})"


def main() -> int:
    """Prints the figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images")
    images = parser.parse_args().images
    print(f"{processor()}\n\n| what | wall s | CPU s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        store, model = f"{folder}/store", f"{folder}/model"
        runs = {
            "`embed`, first": ("embed", images, "--store", store),
            "`embed`, nothing new": ("embed", images, "--store", store),
            "`train`": ("train", store, "--model", model),
            "`score` from the store": ("score", store, "--model", model, "--output", f"{folder}/t"),
            "`score` from pixels": ("score", images, "--model", model, "--output", f"{folder}/u"),
            "`--help`": ("--help",),
        }
        for name, command in runs.items():
            print("| {} | {:.1f} | {:.1f} |".format(name, *timed(*command)), flush=True)
        _, features = read_features(store)
        print(f"\n{len(features.uris)} images; {FOLDS}-fold accuracy:")
        for name, recipe in RECIPES.items():
            print("- {}: {:.1%} ± {:.1%} over the folds".format(name, *accuracy(features, recipe)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
