"""What a camera does to a picture after the lens: exposure and tone per capture, blur, noise and JPEG per image."""

import functools

import cv2
import numpy as np

from rtgaze_jax.data.heads.light import Light
from rtgaze_jax.data.heads.renderer import Develop

NOISE_SIZE = 1100  # side of the stored noise field


def make_develop(rng: np.random.Generator, light: Light, augment: bool) -> Develop:
    """Exposure, white balance and tone of a capture: the same for all its gazes and views."""
    cast = light.ambient.mean(0) * np.pi + light.key_colour * 0.4
    cast = cast / (cast @ (0.3, 0.59, 0.11))
    balance = cast ** -(rng.uniform(0.65, 1.0)) * np.exp(rng.normal(0, 0.028, 3))
    exposure = 2.45 / light.level * np.exp(rng.normal(0, 0.24))
    contrast, saturation, lift = rng.uniform(0.0, 0.42), rng.uniform(0.8, 1.15), rng.uniform(0, 0.03)
    if not augment:
        balance, exposure, contrast, saturation, lift = 1 / cast, 2.45 / light.level, 0.15, 1.0, 0.0
    return Develop(np.asarray(balance * exposure, float), float(contrast), float(saturation), float(lift))


@functools.cache
def _noise(grain: bool) -> np.ndarray:
    """Unit noise [NOISE_SIZE, NOISE_SIZE, 3]; `grain` is noise that the camera has smoothed."""
    field = np.random.default_rng(90210).normal(size=(NOISE_SIZE, NOISE_SIZE, 3)).astype(np.float32)
    return cv2.GaussianBlur(field, (0, 0), 0.7) * 1.7 if grain else field


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Seeded lens blur, sensor noise and JPEG of one uint8 RGB image [R, R, 3]."""
    out = image
    resolution = image.shape[0]
    sigma = abs(rng.normal(0, 0.55)) * resolution / 512
    if sigma > 0.25:
        out = cv2.GaussianBlur(out, (0, 0), sigma)
    level = rng.gamma(1.2, 1.5)
    if level > 0.4:
        field = _noise(rng.random() < 0.5)
        if resolution > NOISE_SIZE:
            field = np.tile(field, (-(-resolution // NOISE_SIZE),) * 2 + (1,))
        top, left = rng.integers(0, max(len(field) - resolution, 0) + 1, size=2)
        window = field[top : top + resolution, left : left + resolution]
        # brighter pixels count more photons and so more noise
        strength = (level * (0.6 + 0.4 * np.sqrt(np.arange(256) / 128))).astype(np.float32)
        noisy = cv2.multiply(cv2.LUT(out, strength), window)
        out = cv2.add(out, noisy, dtype=cv2.CV_8U)
    if rng.random() < 0.6:
        quality = int(rng.integers(55, 97))
        encoded = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]
    return np.ascontiguousarray(out)
