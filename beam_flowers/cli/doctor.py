"""Prints the faults of a collection, before any backbone runs."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from typing import TYPE_CHECKING

from beam_flowers.cli.beam_flags import require_no_pipeline
from beam_flowers.cli.progress import add_progress, print_object, shown
from beam_flowers.cli.screen import cells, padded, visible
from beam_flowers.cli.shared_flags import IMAGES, add_images, add_overwrite, sources, writing
from beam_flowers.errors import InputError

if TYPE_CHECKING:
    from beam_flowers.doctor.findings import Finding

INTERRUPTED = "nothing was written; the same command begins anew"
"""Shown to the user after Ctrl-C."""

_EXAMPLES = 3

EXAMPLE = "beam-flowers doctor photos --output findings.html"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers doctor`."""
    parser.epilog = (
        f"{IMAGES}\n\nReads every file once and changes none. Severities: error (training would "
        "fail or lose a class),\nwarning (results suffer), note (good to know). Images that "
        "look alike are found with\nbeam-flowers[doctor]. Measures no accuracy: `train` does."
    )
    add_images(parser)
    add_progress(parser)
    parser.add_argument(
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        help="all findings with all their files as JSON, or, if the name ends with .html, as one "
        "page with thumbnails of them; may be given once for each",
    )
    add_overwrite(parser)
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=600,
        help="most images to show on the page, 5 KB each (default 600)",
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning"),
        help="exit with 1 if there is a finding as severe as this (default: exit with 0)",
    )
    for name in ("validation", "testing"):
        parser.add_argument(
            f"--{name}-percentage",
            type=int,
            default=10,
            help=f"as `train` will be given it: 0 for no {name} (default 10)",
        )


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers doctor`."""
    require_no_pipeline("doctor", beams)
    from beam_flowers.doctor.findings import SEVERITIES
    from beam_flowers.pages.page import ENDINGS, require_packages
    from beam_flowers.workflows.doctor import check_output, diagnose, write_json, write_page

    pages = [name for name in arguments.output if name.lower().endswith(ENDINGS)]
    if arguments.thumbnails < 0:
        raise InputError(f"--thumbnails is 0 or more, not {arguments.thumbnails}")
    images = sources(arguments)
    terms = writing(arguments).listing(images)
    for name in arguments.output:
        check_output(name, terms)
    if pages:
        require_packages()
    splits = 1 + sum(
        percentage > 0
        for percentage in (arguments.validation_percentage, arguments.testing_percentage)
    )
    with shown(arguments.progress) as progress:
        diagnosis = diagnose(images, splits, progress=progress)
        progress.begin("writing")
        for name in arguments.output:
            if name in pages:
                write_page(diagnosis, name, images, splits, arguments.thumbnails, terms)
            else:
                write_json(diagnosis, name, terms)
    _print_counts(diagnosis.counts())
    for finding in diagnosis.findings:
        _print_finding(finding)
    bad = {"error": {"error"}, "warning": {"error", "warning"}}.get(arguments.fail_on, set())
    severities = Counter(str(finding.severity) for finding in diagnosis.findings)
    named = [f"{severities[s]} {s}{'s' * (severities[s] != 1)}" for s in SEVERITIES]
    count = len(diagnosis.files)
    print(f"{count} file{'s' * (count != 1)}, {diagnosis.hidden} hidden: {', '.join(named)}")
    for name in arguments.output:
        print(f"{'page' if name in pages else 'findings'}: {name}")
    print(f"next: beam-flowers embed {shlex.join(arguments.images)} --store STORE")
    if arguments.progress == "json":
        found = {f"{s}s": severities[s] for s in SEVERITIES}
        print_object(event="summary", files=len(diagnosis.files), hidden=diagnosis.hidden, **found)
    return int(any(severity in bad for severity in severities))


def _print_counts(rows: list[tuple[str, int, int, int]]) -> None:
    header = ("label", "images", "copies", "unusable")
    labels = [visible(row[0]) or "(none)" for row in rows]
    width = max(map(cells, (header[0], *labels)))
    print(f"{header[0]:<{width}}  {header[1]:>8}  {header[2]:>6}  {header[3]:>8}")
    for label, (_, usable, copies, unusable) in zip(labels, rows, strict=True):
        print(f"{padded(label, width)}  {usable:>8}  {copies:>6}  {unusable:>8}")


def _print_finding(finding: Finding) -> None:
    count = f" ({finding.files} file{'s' * (finding.files > 1)})" if finding.files else ""
    print(f"{finding.severity}: {visible(finding.message)}{count}")
    for group in finding.groups[:_EXAMPLES]:
        print(f"    {visible(' = '.join(group[:4]))}{' = ...' if len(group) > 4 else ''}")
    if len(finding.groups) > _EXAMPLES:
        print(f"    and {len(finding.groups) - _EXAMPLES} more")
