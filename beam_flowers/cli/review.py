"""Serves a local page on which labels are corrected."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from beam_flowers.cli.beam_flags import require_no_pipeline

OUTPUT = "corrections.csv"

_EPILOG = """\
Shows the images of SCORES one by one in the browser, those that the model is least sure of
first, to be labelled by key. Writes FILE after every key: sha256, uri, label, as `train --labels`
takes it (an empty label leaves an image out). What FILE holds already is kept and not asked again.
No image is changed or sent anywhere; the page answers on 127.0.0.1 alone, below a secret address.
Ctrl-C ends it. Measures no accuracy.

The loop: score STORE --model MODEL --output labels.csv; review labels.csv; train STORE --model
MODEL --labels corrections.csv. Images that are not in the store yet: embed them first."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers review`."""
    parser.epilog = _EPILOG
    parser.add_argument("scores", metavar="SCORES", help="a table that `score` wrote")
    parser.add_argument(
        "--output", metavar="FILE", default=OUTPUT, help=f"corrections (default ./{OUTPUT})"
    )
    parser.add_argument("--port", type=int, default=0, help="of the page (default: any free one)")
    parser.add_argument("--model-id", help="whose scores, of a table with several models")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


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
    from beam_flowers.review.serve import ReviewJob, reviewing

    require_no_pipeline("review", beams)
    job = ReviewJob(arguments.scores, arguments.output, arguments.port, arguments.model_id)
    with reviewing(job) as found:
        print(f"review: {found.url}\nCtrl-C ends it", flush=True)
        with opened(found.url) if arguments.open else contextlib.nullcontext():
            # It returns after Ctrl-C, which here is no failure.
            found.server.serve_forever()
        print(f"\n{len(found.decisions)} corrections in {arguments.output}")
    print(f"next: beam-flowers train STORE --model MODEL --labels {arguments.output}")
    return 0
