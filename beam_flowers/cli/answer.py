"""Prints what a score table says, on standard error: scripts read standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from beam_flowers.cli.screen import padded, visible
from beam_flowers.files.text import without_secrets

if TYPE_CHECKING:
    from beam_flowers.scoring.answer import Agreement, ScoreAnswer

_MOST_LABELS, _MOST_CONFUSIONS, _BAR = 20, 5, 20


def print_answers(answers: Sequence[ScoreAnswer], reasons: Mapping[str, int], rejects: str) -> None:
    """Prints the answer of each model, and how many files were rejected.

    Args:
        answers: of the models.
        reasons: rejected files by class of the error.
        rejects: place of the table of rejects.
    """
    from beam_flowers.pages.format import counted

    for answer in answers:
        if len(answers) > 1:
            _print(f"model {answer.model_id[:12]}:")
        for line in answer_lines(answer, _block()):
            _print(line)
    if number := sum(reasons.values()):
        named = ", ".join(f"{name} {count:,}" for name, count in sorted(reasons.items()))
        _print(f"{counted(number, 'file')} rejected ({named}): see {rejects}")


def answer_lines(answer: ScoreAnswer, block: str = "#") -> Iterator[str]:
    """Yields labels with counts and bars, doubtful images, and the agreement with given labels."""
    from beam_flowers.pages.format import counted, short_name

    most = max(answer.labels.values(), default=1)
    shown = answer.labels.most_common(_MOST_LABELS)
    width = max((len(visible(label)) for label, _ in shown), default=0)
    yield f"labels predicted for {counted(answer.images, 'image')}:"
    for label, count in shown:
        bar = block * max(1, round(_BAR * count / most))
        yield f"  {padded(visible(label), min(width, 40))} {count:>9,} {bar}"
    if rest := len(answer.labels) - len(shown):
        yield f"  and {counted(rest, 'label')} more"
    if answer.rule:
        share = answer.unknown / max(answer.images, 1)
        yield f"{counted(answer.unknown, 'image')} ({share:.1%}) unknown by the rule {answer.rule}"
    elif answer.images:
        yield f"median score {answer.median:.2f}; the least sure:"
        for score, label, uri in answer.least_sure:
            yield f"  {score:.2f} {visible(label)}  {visible(short_name(uri))}"
    if found := answer.agreement:
        yield from _agreement_lines(found)


def _agreement_lines(found: Agreement) -> Iterator[str]:
    from beam_flowers.pages.format import counted

    yield (
        f"predicted as given: {found.accuracy:.1%} of {counted(found.images, 'image')} (95 % "
        f"interval {found.low:.1%} to {found.high:.1%}); images of the training flatter this"
    )
    if found.strange:
        yield f"not counted: {counted(found.strange, 'image')} given labels that the model lacks"
    if found.confusions:
        yield "most frequent differences, given and predicted:"
    for given, predicted, images in found.confusions[:_MOST_CONFUSIONS]:
        yield f"  {images:>9,} {visible(given)} as {visible(predicted)}"


def _block() -> str:
    """Returns the character of a bar that the terminal can show."""
    try:
        "\N{FULL BLOCK}".encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "\N{FULL BLOCK}"


def _print(text: str) -> None:
    print(without_secrets(text), file=sys.stderr)
