"""Serves a local page on which labels are corrected."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from beam_flowers.cli.beam_flags import require_no_pipeline
from beam_flowers.cli.shared_flags import warn
from beam_flowers.review import CHOOSE

OUTPUT = "corrections.csv"
_MOST_LABELS = 10

_EPILOG = f"""\
Shows images one by one in the browser, to be labelled by key, and writes FILE after every key:
sha256, uri, label, as `train --labels` takes it (an empty label leaves an image out). What FILE
holds already is kept and not asked again.

Of a STORE it asks about images that have no label yet, {CHOOSE} by default: first about diverse
ones, which takes neither labels nor a model, then, when it is run again, about those that the
labels so far are least sure of. A new label is typed once and confirmed; keys 1 to 9 then stand
for the first nine. Of SCORES it asks about all images, those the model is least sure of first.

No image is changed or sent anywhere; the page answers on 127.0.0.1 alone, below a secret address.
Ctrl-C ends it. Measures no accuracy. Those that `train` prints are low then: they are of images
that were chosen because they are hard.

From unsorted images to a table:
  beam-flowers embed IMAGES --store STORE
  beam-flowers review STORE
  beam-flowers train STORE --model MODEL --labels corrections.csv
  beam-flowers score STORE --model MODEL --output labels.csv
  beam-flowers review labels.csv"""

EXAMPLE = "beam-flowers review store --choose 25 --open"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers review`."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "source", metavar="SOURCE", help="a feature store, or a table that `score` wrote"
    )
    parser.add_argument(
        "--choose",
        type=int,
        metavar="N",
        help=f"of a store: images to ask about (default {CHOOSE})",
    )
    parser.add_argument(
        "--output", metavar="FILE", default=OUTPUT, help=f"corrections (default ./{OUTPUT})"
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--port", type=int, default=0, help="of the page (default: any free one)")
    parser.add_argument("--backbone", help="of a store: whose vectors, where it has several")
    parser.add_argument("--model-id", help="of scores: whose, of a table with several models")


@contextlib.contextmanager
def opened(url: str) -> Iterator[None]:
    """Opens a page in the browser by a file that leads there, and deletes that behind the body.

    All users of a machine see the command line of a browser, and the address holds the secret.
    """
    import html
    import tempfile
    import webbrowser

    # A folder of the user's own, 0700.
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        page = Path(folder, "review.html")
        address = html.escape(url)
        page.write_text(
            f'<!doctype html><title>review</title><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0;url={address}"><a href="{address}">review</a>'
        )
        webbrowser.open(page.as_uri())
        yield


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers review`."""
    from beam_flowers.pages.format import counted
    from beam_flowers.review.serve import ReviewJob, reviewing

    require_no_pipeline("review", beams)
    output = arguments.output
    job = ReviewJob(
        arguments.source,
        output,
        arguments.port,
        arguments.model_id,
        arguments.choose,
        arguments.backbone,
    )
    with reviewing(job) as found:
        if found.chosen:
            how = (
                "diverse"
                if found.chosen.is_diverse
                else "those the labels so far are least sure of"
            )
            print(f"{counted(found.count, 'image')} to label: {how}")
        print(f"review: {found.url}\nCtrl-C ends it", flush=True)
        with opened(found.url) if arguments.open else contextlib.nullcontext():
            # It returns after Ctrl-C, which here is no failure.
            found.server.serve_forever()
        labels = Counter(decision.label for decision in found.decisions)
    print(f"\n{counted(labels.total(), 'correction')} in {output}{_listed(labels)}")
    if found.chosen:
        _print_singles([label for label, count in labels.items() if label and count == 1])
        command = f"beam-flowers review {shlex.quote(job.source)}"
        print(f"more, those that the labels so far are least sure of: {command}")
    print(f"next: {found.following}")
    return 0


def _listed(labels: Counter[str]) -> str:
    """Returns the labels with their counts, most frequent first."""
    each = (f"{label or 'left out'} {count:,}" for label, count in labels.most_common(_MOST_LABELS))
    rest = f", and {len(labels) - _MOST_LABELS:,} more" if len(labels) > _MOST_LABELS else ""
    return (": " + ", ".join(each) + rest) if labels else ""


def _print_singles(single: list[str]) -> None:
    if single:
        have = "labels have" if len(single) > 1 else "label has"
        named = ", ".join(repr(label) for label in single[:_MOST_LABELS])
        warn(f"{len(single)} {have} one image only, and `train` needs two: {named}. Label more")
