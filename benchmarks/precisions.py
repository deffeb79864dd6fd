"""Held-out accuracy at each precision: `python benchmarks/precisions.py IMAGES [IMAGES ...]`.

Each IMAGES is a tree of labelled folders. Vectors are computed in float32, bfloat16 where the
processor has it, and int8. Heads of each precision are trained and measured on the same five
folds, dealt by five seeds. Prints the accuracies, the mean loss against float32 with its 95 %
interval over the images, and the share of held-out labels that change. It measures no speed:
`beam-flowers backbones --measure` does.
"""

import argparse
import sys
from typing import get_args

import numpy as np

from beam_flowers.backbones.compute import compute_embeddings
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.hardware import Precision
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.errors import BackboneError
from beam_flowers.evaluation.precisions import compare_heads, cosines
from beam_flowers.head.examples import Examples
from beam_flowers.images.find import find_images
from beam_flowers.records import Embedding, Image
from benchmarks.flowers import processor

SEEDS = range(5)


def embedded(backbone: ResolvedBackbone, images: list[Image]) -> Examples:
    """The labelled images that can be read, with their vectors."""
    rows = [r for r in compute_embeddings(images, load(backbone)) if isinstance(r, Embedding)]
    return Examples(
        [row.image.uri for row in rows],
        [row.sha256 for row in rows],
        [row.image.label for row in rows],
        [None] * len(rows),
        np.stack([row.vector for row in rows]),
    )


def main() -> int:
    """Prints a Markdown table for each collection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    given = parser.parse_args()
    print(processor())
    backbone = resolve(given.backbone, engine="openvino")
    for folder in given.images:
        found = [one for one in find_images([folder]) if isinstance(one, Image) and one.label]
        full = embedded(backbone, found)
        print(f"\n{folder}: {len(full.uris):,} images, {len(set(full.labels))} labels\n")
        print("| precision | accuracy | lost against float32 | labels that change | cosine, 1 % |")
        print("|---|---|---|---|---|")
        for precision in get_args(Precision):
            try:
                vectors = np.asarray(embedded(backbone.in_precision(precision), found).vectors)
            except BackboneError as error:
                print(f"| {precision} | {error} | | | |")
                continue
            result = compare_heads(full, vectors, SEEDS)
            lost, margin = result.lost
            mean, low = cosines(np.asarray(full.vectors), vectors)
            accuracy, changed = np.mean([b for _, b in result.right]), np.mean(result.changed)
            print(
                f"| {precision} | {accuracy:.2%} | {100 * lost:+.2f} ± {100 * margin:.2f} points |"
                f" {changed:.1%} | {mean:.4f}, {low:.3f} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
