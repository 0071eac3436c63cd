"""Line charts and sheets of pictures, drawn with Pillow."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#1f5fa8", "#d1603d", "#5b8c3a", "#8a5a9e", "#777777")
_INK, _GRID, _PAPER = "#222222", "#dddddd", "#ffffff"
_FINE = 2  # drawn larger and shrunk, so that lines are smooth


class Series(NamedTuple):
    """A curve: positions, values, and a band around it."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def line_chart(series: Mapping[str, Series], title: str, x_label: str, y_label: str) -> Image.Image:
    """A chart of 720 x 440 pixels: curves with bands, y from 0, a legend on the right. Empty series are left out."""
    series = {name: s for name, s in series.items() if len(s.x)}
    width, height = 720 * _FINE, 440 * _FINE
    left, top, right, bottom = (v * _FINE for v in (70, 66, 600, 380))
    page = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(page, "RGBA")
    text = lambda at, words, size=14, anchor="mm", fill=_INK: pen.text(  # noqa: E731
        at, words, fill=fill, font=ImageFont.load_default(size * _FINE), anchor=anchor
    )
    text((left, 22 * _FINE), title, 17, "lm")
    if not series:
        text((width / 2, height / 2), "no data")
        return page.resize((width // _FINE, height // _FINE), Image.Resampling.LANCZOS)
    x_ticks = ticks(max(max(s.x) for s in series.values()))
    y_ticks = ticks(max(max(s.high) for s in series.values()))
    place_x = lambda v: left + (right - left) * v / x_ticks[-1]  # noqa: E731
    place_y = lambda v: bottom - (bottom - top) * v / y_ticks[-1]  # noqa: E731
    for v in y_ticks:
        pen.line([(left, place_y(v)), (right, place_y(v))], fill=_GRID, width=_FINE)
        text((left - 10 * _FINE, place_y(v)), f"{v:g}", anchor="rm")
    for v in x_ticks:
        pen.line([(place_x(v), bottom), (place_x(v), bottom + 5 * _FINE)], fill=_INK, width=_FINE)
        text((place_x(v), bottom + 18 * _FINE), f"{v:g}")
    pen.line([(left, bottom), (right, bottom)], fill=_INK, width=_FINE)
    text(((left + right) / 2, bottom + 42 * _FINE), x_label)
    text((left, top - 8 * _FINE), y_label, 13, "lb")
    for i, (name, s) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        band = [(place_x(x), place_y(y)) for x, y in zip(s.x, s.high, strict=True)]
        band += [(place_x(x), place_y(max(y, 0))) for x, y in zip(s.x[::-1], s.low[::-1], strict=True)]
        if len(s.x) > 1:
            pen.polygon(band, fill=colour + "33")
        points = [(place_x(x), place_y(y)) for x, y in zip(s.x, s.y, strict=True)]
        pen.line(points, fill=colour, width=3 * _FINE, joint="curve")
        for x, y in points:
            r = 4 * _FINE
            pen.ellipse([x - r, y - r, x + r, y + r], fill=colour)
        at = top + (14 + 24 * i) * _FINE
        pen.line([(right + 16 * _FINE, at), (right + 40 * _FINE, at)], fill=colour, width=3 * _FINE)
        text((right + 48 * _FINE, at), name, anchor="lm")
    return page.resize((width // _FINE, height // _FINE), Image.Resampling.LANCZOS)


def ticks(largest: float) -> list[float]:
    """Round numbers from 0 to at least `largest`, four to eight of them."""
    largest = max(largest, 1e-6)
    step = 10.0 ** np.floor(np.log10(largest / 4))
    step *= next(m for m in (1, 2, 5, 10) if m * step * 7 >= largest)
    return [float(step * i) for i in range(int(np.ceil(largest / step - 1e-9)) + 1)]


def sheet(
    tiles: Sequence[Sequence[UInt8[np.ndarray, "S S 3"]]], captions: Sequence[str], columns: int = 2, side: int = 176
) -> Image.Image:
    """Tiles of pictures side by side, each with a caption below, in a grid of `columns`."""
    pictures = max(len(tile) for tile in tiles)
    wide, tall = pictures * side + 16, side + 30
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (columns * wide + 16, rows * tall + 16), _PAPER)
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(14)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = 16 + (i % columns) * wide, 16 + (i // columns) * tall
        for j, picture in enumerate(tile):
            page.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS), (x + j * side, y))
        pen.text((x, y + side + 4), caption, fill=_INK, font=font)
    return page
