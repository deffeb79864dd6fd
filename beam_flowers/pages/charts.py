"""Draws charts as SVG by Vega-Lite, here and not in the browser.

vl-convert, of Vega's own organisation, brings Vega-Lite without a browser: a page with its SVG
needs no script library (Vega's is 0.9 MB, Plotly's 4.5) and shows charts before any script runs.
Colours are variables of the page's style sheet, so that they follow dark mode. No chart holds a
user's text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from beam_flowers.head.softmax import Doubles

_WIDTH, _HEIGHT = 380, 220
PLANE = (640, 460)
"""Width and height of the map, in pixels."""

PALETTE = 10
"""Number of colours for labels, `--label-0` and so on."""

_LONG = re.compile(r"(\d\.\d)\d+")
# Vega gives its marks roles for screen readers but no descriptions; the figure has one.
_ROLES = re.compile(r' (?:role="graphics-\w+"|aria-roledescription="[^"]*")')

_AXIS = {
    "domain": False,
    "ticks": False,
    "grid": True,
    "gridColor": "var(--line)",
    "labelColor": "var(--soft)",
    "titleColor": "var(--soft)",
    "titleFontWeight": "normal",
    "labelFontSize": 11,
    "titleFontSize": 11,
    "labelPadding": 6,
    "tickCount": 5,
}
_CONFIG = {
    "background": None,
    "font": "inherit",
    "view": {"stroke": None},
    "axis": _AXIS,
    "aria": False,
}


def lines(
    steps: Sequence[Mapping[str, Any]], series: Mapping[str, str], title: str, *, percent: bool
) -> str:
    """Draws lines over `step`.

    Args:
        steps: with `step` and the series' columns.
        series: name by column; the last one stands out.
        title: of the vertical axis.
        percent: True if the values are shares.
    """
    names = list(series.values())
    colour = {"domain": names, "range": ["var(--soft)", "var(--accent)"][-len(names) :]}
    values = [
        {"step": step["step"], "value": step[column], "series": name}
        for column, name in series.items()
        for step in steps
        if step[column] is not None
    ]
    encoding = {
        "x": {"field": "step", "type": "quantitative", "axis": {"grid": False, "format": "d"}},
        "y": {
            **_axis("value", title),
            "scale": {"zero": False},
            "axis": {"format": "%" if percent else "~g"},
        },
        "color": {
            "field": "series",
            "type": "nominal",
            "scale": colour,
            "legend": {"title": None, "orient": "top", "labelColor": "var(--soft)"},
        },
    }
    mark = {"type": "line", "strokeWidth": 1.8, "point": len(steps) == 1}
    return _svg({"data": {"values": values}, "mark": mark, "encoding": encoding})


def reliability(bins: Sequence[Mapping[str, Any]]) -> str:
    """Draws the share of right answers over the mean score; on the diagonal both are equal."""
    values = [row for row in bins if row["images"]]
    axis = {"format": "%", "values": [0, 0.25, 0.5, 0.75, 1]}
    scale = {"domain": [0, 1]}
    diagonal = {
        "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
        "mark": {"type": "line", "strokeDash": [3, 4], "color": "var(--soft)", "strokeWidth": 1},
    }
    circle = {"type": "circle", "color": "var(--accent)", "opacity": 1}
    size = {
        "field": "images",
        "type": "quantitative",
        "scale": {"range": [30, 300]},
        "legend": None,
    }
    measured = {
        "data": {"values": values},
        "layer": [
            {"mark": {"type": "line", "color": "var(--accent)", "strokeWidth": 1.8}},
            {"mark": circle, "encoding": {"size": size}},
        ],
    }
    encoding = {
        "x": {**_axis("confidence", "mean score"), "axis": axis, "scale": scale},
        "y": {**_axis("accuracy", "share that is right"), "axis": axis, "scale": scale},
    }
    return _svg({"layer": [diagonal, measured], "encoding": encoding, "height": 300, "width": 320})


def histogram(counts: Sequence[int]) -> str:
    """Draws numbers of images by score, in bins of equal width over 0..1."""
    width = 1 / len(counts)
    values = [
        {"low": i * width, "high": (i + 1) * width, "images": count}
        for i, count in enumerate(counts)
    ]
    encoding = {
        "x": {
            **_axis("low", "score"),
            "bin": "binned",
            "scale": {"domain": [0, 1], "nice": False},
            "axis": {"grid": False, "values": [0, 0.25, 0.5, 0.75, 1], "format": ".2f"},
        },
        "x2": {"field": "high"},
        "y": {**_axis("images", "images"), "axis": {"tickCount": 3, "format": "~s"}},
    }
    mark = {"type": "bar", "color": "var(--soft)", "binSpacing": 1}
    spec = {"data": {"values": values}, "mark": mark, "encoding": encoding}
    return _svg({**spec, "width": PLANE[0], "height": 120})


def plane(points: Doubles, groups: Sequence[int], wrong: Sequence[bool]) -> str:
    """Draws points of float [n, 2], coloured by group; those that are `wrong` have a rim.

    The SVG has the marks in the order of the points.
    """
    values = [
        {"x": x, "y": y, "group": str(group % PALETTE if group >= 0 else -1), "wrong": bad}
        for (x, y), group, bad in zip(points.tolist(), groups, wrong, strict=True)
    ]
    names = [str(i) for i in range(-1, PALETTE)]
    colours = ["var(--soft)", *(f"var(--label-{i})" for i in range(PALETTE))]
    bare = {"axis": None, "scale": {"zero": False, "nice": False, "padding": 12}}
    encoding = {
        "x": {**_axis("x", None), **bare},
        "y": {**_axis("y", None), **bare},
        "fill": {
            "field": "group",
            "type": "nominal",
            "scale": {"domain": names, "range": colours},
            "legend": None,
        },
        "stroke": {"condition": {"test": "datum.wrong", "value": "var(--ink)"}, "value": None},
    }
    mark = {"type": "point", "shape": "circle", "size": 34, "opacity": 1, "strokeWidth": 1.4}
    spec = {"data": {"values": values}, "mark": mark, "encoding": encoding}
    return _svg({**spec, "width": PLANE[0], "height": PLANE[1]})


def _axis(field: str, title: str | None) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title}


def _svg(spec: Mapping[str, Any]) -> str:
    """Draws a specification; coordinates are cut to a tenth of a pixel, texts are not."""
    import vl_convert

    whole = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": _WIDTH,
        "height": _HEIGHT,
        "padding": 4,
        "config": _CONFIG,
        **spec,
    }
    drawn: str = vl_convert.vegalite_to_svg(whole)
    return re.sub("<[^>]*>", lambda tag: _ROLES.sub("", _LONG.sub(r"\1", tag[0])), drawn)
