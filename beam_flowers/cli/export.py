"""Writes a model or a store in other formats."""

from __future__ import annotations

import argparse

from beam_flowers.cli.beam_flags import require_no_pipeline
from beam_flowers.cli.contrib import contrib
from beam_flowers.cli.progress import add_progress, shown
from beam_flowers.cli.shared_flags import add_overwrite, add_weights, backbone_of, warn, writing
from beam_flowers.errors import InputError

_STORE_FORMATS = ("projector", "fiftyone")
_FORMATS = ("savedmodel", "tflite", "tflite-int8", "keras", "onnx", "labels", "card")

EXAMPLE = "beam-flowers export model --to tflite --output model.tflite"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers export`."""
    parser.epilog = (
        "Reads MODEL and some 100 images, writes OUTPUT, over nothing unless with --overwrite.\n"
        "Formats:\n"
        "savedmodel   folder; `serving_default` takes a batch of JPEG or PNG files as bytes and "
        "gives label,\n             score, labels, scores; decodes, turns by EXIF, crops and "
        "resizes within\ntflite       .tflite, float; takes pixels; labels in .labels.txt beside "
        "it\ntflite-int8  the same in 8-bit integers, calibrated on images of --store\n"
        "keras        .keras, of plain layers; not for backbones that are SavedModels\n"
        "onnx         .onnx; needs pip install 'beam-flowers[onnx]'; all that a backbone in "
        "ONNX's\n             form is exported to\n"
        "labels       one label a line, in class order\n"
        "card         .md, what the model is, was trained and measured on, and its limits\n"
        "Of a store in the place of MODEL:\n"
        "projector    folder for `tensorboard --logdir`: vectors, labels and small images; "
        "100,000\n             of a larger store, by chance: TensorBoard shows no more\n"
        "fiftyone     folder: a FiftyOneImageClassificationDataset that names the images where "
        "they lie,\n             predictions.json (a second labels_path) with --scores, and "
        "vectors.npy\n\n"
        "Each export of a model is loaded in a fresh process and compared with the model on up to "
        "100\nimages; what does not agree is not kept, and the exit code is 1. That measures "
        "agreement, not\naccuracy: `train` measures that."
    )
    parser.add_argument("model", metavar="MODEL", help="folder of the model, or of the store")
    parser.add_argument(
        "--to", required=True, choices=_FORMATS + _STORE_FORMATS, help="format: see below"
    )
    parser.add_argument("--output", required=True, help="what to write")
    add_overwrite(parser)
    parser.add_argument(
        "--store",
        help="compare, and calibrate, on images of this store "
        "(default: the photographs in the package)",
    )
    parser.add_argument("--backbone", help="of a store: whose vectors, where it has several")
    parser.add_argument("--scores", help="of a store: a table of scores, shown as predictions")
    add_weights(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers export`."""
    from beam_flowers import files
    from beam_flowers.head.bundle import read_bundle
    from beam_flowers.workflows.export import check_export, export_model

    require_no_pipeline("export", beams)
    kind, output = arguments.to, arguments.output
    if kind in _STORE_FORMATS:
        return _export_store(arguments)
    if arguments.scores or arguments.backbone:
        raise InputError(
            f"--scores and --backbone are for exports of a store: {', '.join(_STORE_FORMATS)}"
        )
    terms = writing(arguments, arguments.model, arguments.store)
    check_export(kind, output, terms)
    bundle = read_bundle(files.absolute(arguments.model))
    backbone = None if kind in ("labels", "card") else backbone_of(bundle, arguments)
    with shown(arguments.progress) as progress:
        agreement = export_model(
            bundle, backbone, kind, output, arguments.store, warn, terms, progress
        )
    if agreement is not None:
        where = "the store's images" if arguments.store else "the package's photographs"
        print(f"agreement with the model, on {where}: {agreement}")
    print(f"{kind}: {output}")
    return 0


def _export_store(arguments: argparse.Namespace) -> int:
    exported = contrib("export_store").export_store(
        arguments.model,
        arguments.to,
        arguments.output,
        backbone=arguments.backbone,
        scores=arguments.scores,
        warn=warn,
        writing=writing(arguments),
    )
    print(f"{arguments.to}: {arguments.output} ({exported.rows} of {exported.stored} rows)")
    return 0
