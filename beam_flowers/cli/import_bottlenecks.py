"""Reads retrain.py's text files into a store."""

from __future__ import annotations

import argparse
import shlex

from beam_flowers.cli.beam_flags import require_no_pipeline
from beam_flowers.cli.contrib import contrib
from beam_flowers.cli.progress import add_progress, conclude, shown

_EPILOG = """\
Reads DIR, retrain.py's --bottleneck_dir with its files <label>/<image>_<module>.txt, and the
images they are of, from its --image_dir; writes rows into STORE: label, sha256 and size are those
of the image, the vector that of the text. A text file that gives no row, since its image is
gone or its numbers are not, is in STORE/__rejects with the reason. The rows lie beside those of
`embed`, as a backbone of their own: which weights and pixels made them, nobody knows any more. They
can be trained on, evaluated and scored as a STORE; images cannot be scored with such a model.
Measures no accuracy: `train` does."""

INTERRUPTED = "the store is as it was; the same command begins anew"
"""Shown to the user after Ctrl-C."""

EXAMPLE = "beam-flowers import-bottlenecks bottlenecks --images photos --store imported"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers import-bottlenecks`."""
    parser.epilog = _EPILOG
    parser.add_argument("bottlenecks", metavar="DIR", help="folder of the text files")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="of the images")
    parser.add_argument("--store", required=True, help="folder of the feature store")
    parser.add_argument(
        "--module", help="whose vectors, as the files' names have it, where DIR has several"
    )
    add_progress(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers import-bottlenecks`."""
    require_no_pipeline("import-bottlenecks", beams)
    importing, store = contrib("retrain_files.import_bottlenecks"), arguments.store
    job = importing.ImportJob(arguments.bottlenecks, arguments.images, store, arguments.module)
    with shown(arguments.progress) as progress:
        summary = importing.import_bottlenecks(job, progress)
    places = {"store": store, "backbone": summary.backbone}
    if summary.rejected:
        places["rejects"] = f"{store.rstrip('/')}/__rejects"
    words = ("train", store, "--backbone", summary.backbone, "--model", "MODEL")
    conclude(arguments, summary, progress, places, f"beam-flowers {shlex.join(words)}")
    return 0
