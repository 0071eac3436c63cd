"""Where irises go from frame to frame, measured on the picture itself.

Iris landmarks scatter by tenths of a pixel even on noise-free frames, more than what is to be measured. Here the
picture of an iris is laid on that of the next frame by least squares (Lucas and Kanade), in the exactly known frame of
the head, so that only what the iris moves in the head counts. Lids share the window and do not move,
so the motion comes out too small, sideways by about 7 %, up and down by about 40 %, whatever made the picture
(tests/inference/test_iris_motion.py). At rest it adds about 0.15 thousandths of the eyes' distance of its own.
"""

import cv2
import numpy as np

from rtgaze_jax.inference.warp import compose, scaling, shifting, warp

_SCALE = 400  # pixels for the distance of the eyes' outer corners
_HALF = np.array([30, 20])  # pixels: half the window around an iris, whose diameter is about 50
_BLUR = 2.0
_STEPS = 6

_Y, _X = np.mgrid[: 2 * _HALF[1], : 2 * _HALF[0]] + 0.5
# lids do not move with the iris, so the middle counts most
_WEIGHTS = np.exp(-2 * (((_X - _HALF[0]) / _HALF[0]) ** 2 + ((_Y - _HALF[1]) / _HALF[1]) ** 2))
_WEIGHTS /= _WEIGHTS.sum()


def _window(pixels: np.ndarray, to_head: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Grey levels around a point of the head's frame."""
    corner = _HALF - centre * _SCALE
    matrix = compose(shifting(*corner), compose(scaling(_SCALE, _SCALE), to_head))
    grey = warp(pixels, matrix, tuple((2 * _HALF).tolist())).astype(np.float32).mean(-1)
    return cv2.GaussianBlur(grey, (0, 0), _BLUR)


def iris_step(
    frames: tuple[np.ndarray, np.ndarray], to_head: tuple[np.ndarray, np.ndarray], centre: np.ndarray
) -> np.ndarray:
    """How far the iris near `centre` moves in the head from one frame u8[H, W, 3] to the next, f64[2].

    to_head: for both frames the 2x3 map from pixels to the head's frame. centre and result in that frame's unit, the
    distance of the eyes' outer corners.
    """
    old, shift = _window(frames[0], to_head[0], centre), np.zeros(2)
    for _ in range(_STEPS):
        new = _window(frames[1], to_head[1], centre + shift / _SCALE)
        dy, dx = np.gradient((old + new) / 2)
        slopes, change = np.stack([dx, dy]), old - new
        change = change - (_WEIGHTS * change).sum()
        squares = np.einsum("ihw,jhw,hw->ij", slopes, slopes, _WEIGHTS)
        step = np.linalg.solve(squares, np.einsum("ihw,hw,hw->i", slopes, change, _WEIGHTS))
        shift = shift + step
        if np.hypot(*step) < 1e-3:
            break
    return shift / _SCALE
