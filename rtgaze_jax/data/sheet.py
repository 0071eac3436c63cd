"""Pictures of records to look at: gaze arrows, head axes, contact sheets, sheets of eyes. Images are uint8 RGB."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from rtgaze_jax.data.labels import head_gaze_vector, project
from rtgaze_jax.data.pairs import frontals_of, members_of
from rtgaze_jax.data.record import decode
from rtgaze_jax.data.storage import RecordSource

ARROW = 0.22  # reach of an arrow, world units
ARROW_START = 0.05  # in front of the cornea, so that the eye stays visible where the camera allows
AXES = {(220, 60, 60): (1, 0, 0), (60, 190, 60): (0, 1, 0), (70, 110, 255): (0, 0, 1)}  # colour -> head axis
GAZE_COLOUR = (255, 230, 40)
_SUBPIXEL = 4  # bits after the point in OpenCV's drawing coordinates


def draw_gaze(image: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """A copy of the image [H, W, 3] with an arrow along the labelled gaze, if there is one, in front of each eye."""
    image = image.copy()
    for center in record["eye_centers"] if "gaze_head" in record else ():
        direction = head_gaze_vector(record["gaze_head"])
        ends = center + np.outer([ARROW_START, ARROW], direction)
        _arrow(image, _pixels(ends, record, image.shape), GAZE_COLOUR)
    return image


def draw_axes(image: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """A copy of the image with the head's axes from between the eyes: x red, y green, z blue."""
    image = image.copy()
    middle = record["eye_centers"].mean(0)
    for colour, axis in AXES.items():
        ends = np.stack([middle, middle + ARROW * np.array(axis)])
        _arrow(image, _pixels(ends, record, image.shape), colour)
    return image


def draw_landmarks(image: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """A copy of the image with a dot on every landmark."""
    image = image.copy()
    radius = max(1, image.shape[0] // 200)
    for point in record["landmarks"] * [image.shape[1], image.shape[0]]:
        cv2.circle(image, _fixed(point), radius << _SUBPIXEL, (255, 80, 220), -1, cv2.LINE_AA, _SUBPIXEL)
    return image


def outline(image: np.ndarray, mask: np.ndarray, colour: Sequence[int] = (80, 255, 255)) -> np.ndarray:
    """A copy of the image with the border of a bool mask [H, W] in a colour."""
    image = image.copy()
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, tuple(colour), 1)
    return image


def overlay(record: Mapping[str, Any], size: int = 512) -> np.ndarray:
    """The labels of a record drawn over its picture, [size, size, 3]."""
    image = resize(outline(record["image"], record["eye_mask"]), size)
    return draw_gaze(draw_axes(draw_landmarks(image, record), record), record)


def contact_sheet(
    source: RecordSource, people: int = 40, pictures: int = 3, size: int = 192, seed: int = 0
) -> np.ndarray:
    """Random captures with gaze arrows, random gazes and views of each; its first picture is near-frontal."""
    rng = np.random.default_rng(seed)
    strips = []
    for capture in _choose(rng, source.grid.captures, people):
        members, fronts = members_of(source.grid, capture), frontals_of(source.grid, capture)
        first = int(np.flatnonzero(members == rng.choice(fronts))[0])
        places = members[_choose(rng, len(members), pictures, first=first)]
        places = np.resize(places, pictures)  # captures of fewer pictures show some twice
        records = [decode(source[int(place)]) for place in places]
        strips.append(np.hstack([draw_gaze(resize(record["image"], size), record) for record in records]))
    return tile(strips, columns=max(1, round(np.sqrt(len(strips) / strips[0].shape[1] * size))))


def eye_sheet(source: RecordSource, people: int = 6, gazes: int = 9, width: int = 256, seed: int = 0) -> np.ndarray:
    """Both eyes of random people in the near-frontal view: for each up to `gazes` strips, ordered by gaze."""
    rng = np.random.default_rng(seed)
    grid = source.grid
    blocks = []
    for capture in _choose(rng, grid.captures, people):
        fronts = frontals_of(grid, capture)
        some = fronts[np.linspace(0, len(fronts) - 1, min(gazes, len(fronts))).round().astype(int)]
        records = [decode(source[int(number)]) for number in some]
        blocks.append(tile([eye_strip(record, width) for record in _ordered(records)], columns=3))
    return tile(blocks, columns=2, border=8)


def eye_strip(record: Mapping[str, Any], width: int) -> np.ndarray:
    """Both eyes, level, enlarged to [0.4 width, width, 3]."""
    height = round(0.4 * width)
    pixels = _pixels(record["eye_centers"].astype(np.float64), record, record["image"].shape)
    left_to_right = pixels[0] - pixels[1]  # the subject's left eye is on the right
    scale = width / (1.9 * np.linalg.norm(left_to_right))
    cosine, sine = scale * left_to_right / np.linalg.norm(left_to_right)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    shift = np.array([width / 2, height / 2]) - turn @ pixels.mean(0)
    matrix = np.concatenate([turn, shift[:, None]], 1)
    return cv2.warpAffine(
        record["image"], matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def tile(images: Sequence[np.ndarray], columns: int, border: int = 2) -> np.ndarray:
    """Images of one size in rows of `columns`, on black."""
    height, width, _ = images[0].shape
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    sheet = np.zeros((rows * (height + border) - border, columns * (width + border) - border, 3), np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        sheet[y * (height + border) :, x * (width + border) :][:height, :width] = image
    return sheet


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """The image as [size, size, 3]."""
    shrink = size < image.shape[0]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)


def write_png(path: Any, image: np.ndarray) -> None:
    """Writes an RGB image as PNG, atomically."""
    from rtgaze_jax.files import write_bytes

    write_bytes(path, cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def _choose(rng: np.random.Generator, available: int, count: int, first: int | None = None) -> np.ndarray:
    """`count` different numbers below `available` (all, if there are fewer), in order; `first` leads where given."""
    chosen = rng.permutation(available)
    if first is not None:
        chosen = np.concatenate([[first], chosen[chosen != first]])
        return chosen[:count]
    return np.sort(chosen[:count])


def _ordered(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """From looking up to looking down; three of about the same pitch from image left to right."""
    if not all("gaze_camera" in record for record in records):
        return list(records)
    falling = sorted(records, key=lambda record: -record["gaze_camera"][0])
    rows = [falling[i : i + 3] for i in range(0, len(falling), 3)]
    return [record for row in rows for record in sorted(row, key=lambda record: -record["gaze_camera"][1])]


def _pixels(points: np.ndarray, record: Mapping[str, Any], shape: Sequence[int]) -> np.ndarray:
    return project(points, record["cam2world"], record["intrinsics"])[0] * [shape[1], shape[0]]


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """OpenCV's fixed-point coordinates: pixel centres are whole numbers there."""
    x, y = np.rint((np.asarray(point) - 0.5) * 2**_SUBPIXEL).astype(int)
    return int(x), int(y)


def _arrow(image: np.ndarray, ends: np.ndarray, colour: Sequence[int]) -> None:
    thickness = max(1, image.shape[0] // 160)
    if not np.isfinite(ends).all():
        return
    strokes = [(0, tuple(colour))] if image.shape[0] < 256 else [(2, (0, 0, 0)), (0, tuple(colour))]
    for extra, shade in strokes:
        cv2.line(image, _fixed(ends[0]), _fixed(ends[1]), shade, thickness + extra, cv2.LINE_AA, _SUBPIXEL)
        cv2.circle(image, _fixed(ends[1]), (thickness + 1 + extra // 2) << _SUBPIXEL, shade, -1, cv2.LINE_AA, _SUBPIXEL)
