"""The confusion matrix as a picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

from beam_flowers.head.softmax import Indices

SOFTWARE = "beam_flowers"
"""Named in the file, by which it is known again."""

_MOST_NUMBERS = 30
"""Above so many labels the cells are too small for numbers in them."""
_MOST_NAMES = 120


def confusion_png(matrix: Indices, labels: Sequence[str], title: str) -> bytes:
    """A PNG of a confusion matrix [C, C]; colour = share of the row, numbers = pictures.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    # Neither pyplot nor its global state: a library must not choose the user's window system.
    from matplotlib.figure import Figure

    classes = len(labels)
    side = min(3 + 0.55 * classes, 24)
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the pictures with the label")
    axes.set(xlabel="label given by the model", ylabel="label of the picture")
    axes.set_title(title, parse_math=False, fontsize=10)
    if classes <= _MOST_NAMES:
        # A dollar sign in a label is a dollar sign.
        names = [label.replace("\n", " ") for label in labels]
        axes.set_xticks(range(classes), names, rotation=90, parse_math=False)
        axes.set_yticks(range(classes), names, parse_math=False)
    if classes <= _MOST_NUMBERS:
        for row, column in zip(*matrix.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks becomes boxes; the CSV has it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", metadata={"Software": SOFTWARE})
    return buffer.getvalue()
