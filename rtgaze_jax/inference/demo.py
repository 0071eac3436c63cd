"""A sheet of pictures that shows what the shipped network does with one photo."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from rtgaze_jax import files
from rtgaze_jax.inference import blend, mesh
from rtgaze_jax.inference.photo import write_photo
from rtgaze_jax.inference.provenance import Edit
from rtgaze_jax.inference.redirector import EncodedFace, Redirector

GAZES = {"camera": (0.0, 0.0), "left": (0.0, 20.0), "right": (0.0, -20.0), "up": (12.0, 0.0), "down": (-12.0, 0.0)}
"""(pitch, yaw) in degrees; left and right are those of the image."""
_ZOOM, _TILE = 4, 256
_FRAMES, _AROUND = 24, (10.0, 22.0)  # of the GIF; degrees of pitch and yaw


def _labelled(pixels: np.ndarray, text: str) -> np.ndarray:
    """An image with a line of text above it."""
    strip = Image.new("RGB", (pixels.shape[1], 18), "white")
    ImageDraw.Draw(strip).text((4, 3), text, fill="black")
    return np.concatenate([np.asarray(strip), pixels])


def _window(points: np.ndarray, grow: float, aspect: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of a photo around points, grown by a factor, of at least a given aspect (width / height)."""
    low, high = points.min(0), points.max(0)
    centre, half = (low + high) / 2, (high - low).max() * grow / 2
    half = np.array([half, half / aspect])
    low, high = np.maximum(centre - half, 0).astype(int), np.minimum(centre + half, (shape[1], shape[0])).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _tile(pixels: np.ndarray, width: int) -> np.ndarray:
    """An image resized to a width, sharp pixels when enlarged."""
    size = (width, max(1, round(pixels.shape[0] * width / pixels.shape[1])))
    grow = width > pixels.shape[1]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC if grow else cv2.INTER_AREA)


def depth_picture(depth: np.ndarray) -> np.ndarray:
    """Depth as grey, near is bright, nothing is black."""
    hit = depth > 0
    if not hit.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    near, far = np.percentile(depth[hit], (1, 99))
    grey = np.where(hit, 40 + 215 * np.clip((far - depth) / max(far - near, 1e-6), 0, 1), 0)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)


def sheet(face: EncodedFace, results: dict[str, np.ndarray]) -> np.ndarray:
    """Faces in one row, eyes at four times their size in the next: the photo first, then each result. u8[h, w, 3]."""
    shape = face.photo.pixels.shape
    whole = _window(face.found.landmarks, 1.5, 1.0, shape)
    eyes = _window(face.found.landmarks[list(mesh.EYE_CONTOURS[0] + mesh.EYE_CONTOURS[1])], 1.25, 2.6, shape)
    width = max(_TILE, _ZOOM * (eyes[1].stop - eyes[1].start)) if shape[1] < 2000 else 2 * _TILE
    pictures = {"photo": face.photo.pixels} | results
    columns = [
        np.concatenate([_labelled(_tile(pixels[whole], width), name), _tile(pixels[eyes], width)])
        for name, pixels in pictures.items()
    ]
    half = (len(columns) + 1) // 2
    rows = [np.concatenate(columns[:half], 1), np.concatenate(columns[half:], 1)]
    return np.concatenate(
        [np.pad(r, ((0, 0), (0, rows[0].shape[1] - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
    )


def stages(face: EncodedFace, pitch: float, yaw: float) -> np.ndarray:
    """Crop, rendered face, depth, a new view, and the masks of the paste, side by side. u8[h, w, 3]."""
    out = face.redirect(pitch, yaw)
    masks = np.zeros(face.photo.pixels.shape[:2], np.float32)
    for side in (0, 1):
        area = blend.eye_area(face.found, side, face.photo.pixels.shape[:2])
        if area is not None:
            masks[area.window] = np.maximum(masks[area.window], blend.mask(area))
    tinted = out.image * (1 - 0.5 * masks[..., None]) + np.array([0, 255, 0]) * 0.5 * masks[..., None]
    whole = _window(face.found.landmarks, 1.6, 1.0, masks.shape)
    pictures = {
        "crop": face.crop,
        f"rendered, pitch {pitch:g} yaw {yaw:g}": face.render(pitch, yaw).image,
        "depth": depth_picture(out.depth),
        "view from 25 degrees left": face.render(pitch, yaw, view=(0, 25)).image,
        "where the photo changes": np.ascontiguousarray(tinted.astype(np.uint8)[whole]),
    }
    return np.concatenate(
        [_labelled(cv2.resize(p, (_TILE, _TILE), interpolation=cv2.INTER_AREA), n) for n, p in pictures.items()], 1
    )


def circling(face: EncodedFace) -> bytes:
    """A GIF of the face whose eyes go around once."""
    window = _window(face.found.landmarks, 1.3, 1.0, face.photo.pixels.shape)
    frames = []
    for angle in np.linspace(0, 2 * np.pi, _FRAMES, endpoint=False):
        pixels = face.redirect(_AROUND[0] * np.cos(angle), _AROUND[1] * np.sin(angle)).image[window]
        frames.append(Image.fromarray(_tile(pixels, _TILE)))
    palette = frames[0].quantize(160)  # one for all frames, or the skin would flicker
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    content = io.BytesIO()
    options = {"duration": 80, "loop": 0, "optimize": True, "comment": Edit().sentence}
    first.save(content, "GIF", save_all=True, append_images=rest, **options)
    return content.getvalue()


def make_demo(model: Redirector, photo: Path, folder: Path, say: Callable[[str], None] = print) -> None:
    """Writes the redirected photos, `sheet.png`, `stages.png` and `circling.gif` to a folder. `say` hears of each
    file."""
    face = model.encode(photo)
    results = {}
    for name, (pitch, yaw) in GAZES.items():
        results[f"{name}: pitch {pitch:g}, yaw {yaw:g}"] = image = face.redirect(pitch, yaw).image
        write_photo(folder / f"{photo.stem}_{name}.png", image, face.photo, Edit())
        say(f"{folder / f'{photo.stem}_{name}.png'}: pitch {pitch:g}, yaw {yaw:g} degrees")
    for name, picture in (("sheet", sheet(face, results)), ("stages", stages(face, *GAZES["left"]))):
        write_photo(folder / f"{name}.png", picture, face.photo, Edit())
        say(str(folder / f"{name}.png"))
    files.write_bytes(folder / "circling.gif", circling(face))
    say(str(folder / "circling.gif"))
