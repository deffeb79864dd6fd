"""Below which score a label should rather be `unknown`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import InputError


def threshold_for_precision(
    scores: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], target_precision: float
) -> float:
    """The smallest score from which on at least `target_precision` of the labels are right.

    A picture is answered where its score is >= the threshold. To be measured on pictures that
    the head was not trained on: the validation side. What is reached there is an estimate; on
    few pictures other ones can fall well below it.

    Args:
        scores: [n], the best score of each picture, finite; n >= 1.
        correct: [n], whether its label is right.
        target_precision: over 0, up to 1.

    Returns:
        One of the scores.

    Raises:
        InputError: if no threshold reaches the target; names the best one.
    """
    if not 0 < target_precision <= 1:
        raise InputError(f"a target precision lies above 0 and up to 1, not {target_precision!r}")
    if not len(scores):
        raise InputError("there are no pictures to choose a threshold on")
    levels, places = np.unique(scores, return_inverse=True)
    answered = np.bincount(places)[::-1].cumsum()[::-1]
    right = np.bincount(places, weights=correct.astype(np.float64))[::-1].cumsum()[::-1]
    precision = right / answered
    reached = np.flatnonzero(precision >= target_precision)
    if not len(reached):
        best = int(precision.argmax())
        raise InputError(
            f"no threshold has a precision of {target_precision!r} on these {len(scores)} pictures;"
            f" the best is {precision[best]:.4f}, at a threshold of {levels[best]:.4f}, which"
            f" answers {answered[best]} of them"
        )
    return float(levels[reached[0]])
