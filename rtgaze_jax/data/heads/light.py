"""Light and surroundings of a capture: an environment map, one key light, a background picture. All linear RGB."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

ENV_SHAPE = (64, 128)  # latitude (top = up), longitude (0 = behind the head, middle = in front)
DIRECTIONS = 40  # visibility samples of the ambient light


@dataclass(frozen=True)
class Light:
    """What lights a capture."""

    environment: np.ndarray  # [64, 128, 3] radiance
    ambient: np.ndarray  # [DIRECTIONS, 3] radiance of each ambient direction
    key_direction: np.ndarray  # [3] unit, towards the light
    key_colour: np.ndarray  # [3] irradiance
    key_softness: float  # radius of the shadow's blur, world units
    level: float  # irradiance of a forward-facing white surface


@functools.cache
def directions() -> np.ndarray:
    """Unit vectors [DIRECTIONS, 3] spread evenly over the sphere."""
    i = np.arange(DIRECTIONS) + 0.5
    y, turn = 1 - 2 * i / DIRECTIONS, i * np.pi * (1 + 5**0.5)
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(turn), y, r * np.sin(turn)], 1)


@functools.cache
def _sphere() -> np.ndarray:
    """The direction of every environment texel [64, 128, 3]."""
    h, w = ENV_SHAPE
    up = np.pi / 2 - (np.arange(h) + 0.5) / h * np.pi
    turn = (np.arange(w) + 0.5) / w * 2 * np.pi - np.pi
    up, turn = np.meshgrid(up, turn, indexing="ij")
    return np.stack([np.cos(up) * np.sin(turn), np.sin(up), np.cos(up) * np.cos(turn)], -1)


def unit(azimuth: float, elevation: float) -> np.ndarray:
    """World direction; azimuth from +z towards +x, radians."""
    return np.array([np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)])


def temperature(rng: np.random.Generator, spread: float) -> np.ndarray:
    """A light colour between warm and cool, luminance about 1."""
    t = rng.uniform(-1, 1) * spread
    colour = np.array([1 + t, 1.0, 1 - 1.15 * t]) * np.exp(rng.normal(0, 0.015, 3))
    return colour / (colour @ (0.3, 0.59, 0.11))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Smooth noise with features of about `cell` pixels, mean 0, deviation 1; wraps around horizontally."""
    small = rng.normal(size=(max(2, int(shape[0] / cell)), max(2, int(shape[1] / cell)))).astype(np.float32)
    small = np.concatenate([small, small[:, :1]], 1)
    out = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return (out - out.mean()) / (out.std() + 1e-6)


def _window(
    env: np.ndarray, center: np.ndarray, size: tuple[float, float], colour: np.ndarray, panes: int, edge: float
) -> None:
    """Add a rectangular light seen at a direction; sizes are tangents of half angles."""
    side = np.cross([0.0, 1.0, 0.0], center)
    side /= np.linalg.norm(side)
    top = np.cross(center, side)
    rays = _sphere()
    ahead = rays @ center
    x, y = (rays @ side) / np.maximum(ahead, 0.05) / size[0], (rays @ top) / np.maximum(ahead, 0.05) / size[1]
    fade = lambda v: np.clip((1 - np.abs(v)) / edge + 0.5, 0, 1)  # noqa: E731
    mask = fade(x) * fade(y) * (ahead > 0.05)
    if panes > 1:
        bars = np.abs(((x * 0.5 + 0.5) * panes + 0.5) % 1 - 0.5) < 0.09
        mask = np.where(bars, mask * 0.15, mask)
    env += mask[..., None] * colour


def make_light(rng: np.random.Generator) -> Light:
    """Indoor or outdoor light with one key light, up to three soft boxes or windows."""
    rays = _sphere()
    height = rays[..., 1:2]
    outdoor = rng.random() < 0.35
    tone = temperature(rng, 0.22)
    if outdoor:
        sky = np.array([0.75, 0.92, 1.2]) if rng.random() < 0.5 else np.array([1.0, 1.0, 1.02])
        ground = np.array([0.42, 0.40, 0.33]) * rng.uniform(0.4, 1.1)
        env = np.where(height > 0, sky * (0.75 + 0.5 * height), ground * (0.6 - 0.25 * height))
        blocks = smooth_noise(rng, ENV_SHAPE, 9) > rng.uniform(-0.6, 1.0)
        low = (height[..., 0] < rng.uniform(0.05, 0.5)) & blocks
        env = np.where(low[..., None], ground * rng.uniform(0.25, 0.9), env)
    else:
        wall = np.array([0.5, 0.48, 0.45]) * np.exp(rng.normal(0, 0.08, 3)) * rng.uniform(0.25, 1.0)
        env = wall * (0.75 + 0.45 * np.clip(height, -1, 1)) * tone
        env = env * np.exp(0.25 * smooth_noise(rng, ENV_SHAPE, 10))[..., None]
        if rng.random() < 0.6:
            _window(env, unit(rng.uniform(-3, 3), 1.35), (0.7, 0.7), 2.5 * rng.uniform(0.5, 1.5) * tone, 1, 0.15)
    env = np.ascontiguousarray(env, np.float64)
    for _ in range(rng.integers(1, 4)):
        azimuth = rng.normal(0, 0.75)
        center = unit(azimuth, rng.uniform(-0.05, 0.75))
        size = (rng.uniform(0.06, 0.42), rng.uniform(0.08, 0.48))
        power = rng.uniform(0.6, 2.0) / (size[0] * size[1] * 4 + 0.05)
        _window(env, center, size, power * temperature(rng, 0.25), int(rng.integers(1, 4)), rng.uniform(0.06, 0.2))
    elevation = rng.uniform(0.05, 1.0) if outdoor else rng.uniform(0.0, 0.85)
    key = unit(np.clip(rng.normal(0, 0.75), -1.5, 1.5), elevation)
    strength = rng.choice((0.15, 0.6, 1.2, 2.2), p=(0.18, 0.26, 0.34, 0.22)) * rng.uniform(0.7, 1.4)
    key_colour = strength * temperature(rng, 0.2)
    glow = np.clip((rays @ key - 0.985) / 0.008, 0, 1)[..., None] * key_colour * 10
    soft = cv2.GaussianBlur(np.concatenate([env] * 3, 1), (0, 0), 5)[:, ENV_SHAPE[1] : 2 * ENV_SHAPE[1]]
    ambient = sample_environment(soft, directions())
    faces = np.array([[0, 0, 1.0], [0.5, 0.1, 0.86], [-0.5, 0.1, 0.86]])
    cosine = np.maximum(faces @ directions().T, 0)
    forward = (cosine @ ambient).mean(0) * 4 * np.pi / DIRECTIONS + key_colour * np.maximum(faces @ key, 0).mean()
    return Light(
        environment=(env + glow).astype(np.float32),
        ambient=ambient.astype(np.float32),
        key_direction=key.astype(np.float32),
        key_colour=key_colour.astype(np.float32),
        key_softness=float(rng.uniform(0.004, 0.03)),
        level=float(forward @ (0.3, 0.59, 0.11)),
    )


def sample_environment(env: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Nearest radiance [n, 3] of an environment map along unit rays [n, 3]."""
    h, w = env.shape[:2]
    row = np.clip(((np.pi / 2 - np.arcsin(np.clip(rays[:, 1], -1, 1))) / np.pi * h).astype(int), 0, h - 1)
    column = ((np.arctan2(rays[:, 0], rays[:, 2]) + np.pi) / (2 * np.pi) * w).astype(int) % w
    return env[row, column]


def _muted(rng: np.random.Generator, spread: float) -> np.ndarray:
    """A colour factor: mostly warm or cool, seldom vivid."""
    warm = rng.normal(0, spread)
    vivid = 2.2 if rng.random() < 0.12 else 1.0
    return np.exp(vivid * np.array((warm, 0, -1.2 * warm)) + rng.normal(0, 0.35 * spread * vivid, 3))


def make_background(rng: np.random.Generator, light: Light, size: int = 160) -> np.ndarray:
    """An out-of-focus backdrop [size, 2 * size, 3], linear, about as bright as the light's surroundings."""
    shape = (size, 2 * size)
    kind = rng.choice(("plain", "room", "street", "bokeh"), p=(0.25, 0.3, 0.25, 0.2))
    y = np.linspace(1, -1, size)[:, None, None]
    base = rng.uniform(0.08, 0.6) * _muted(rng, 0.14)
    picture = np.broadcast_to(base * (1 + 0.35 * rng.normal() * y), (*shape, 3)).copy()
    picture *= np.exp(0.10 * smooth_noise(rng, shape, size / 2))[..., None]
    canvas = picture.astype(np.float32)
    if kind in ("room", "street"):
        for _ in range(int(rng.integers(5, 22))):
            colour = rng.uniform(0.02, 0.7) * _muted(rng, 0.16)
            x0, x1 = (
                np.sort(rng.uniform(-0.1, 1.1, 2))
                if rng.random() < 0.2
                else rng.uniform(0, 1) + np.array([0, rng.uniform(0.02, 0.25)])
            )
            y0, y1 = (0, 1) if rng.random() < 0.25 else np.sort(rng.uniform(0, 1.1, 2))
            cv2.rectangle(
                canvas, (int(x0 * shape[1]), int(y0 * size)), (int(x1 * shape[1]), int(y1 * size)), colour.tolist(), -1
            )
        if kind == "street":
            leaves = np.clip(smooth_noise(rng, shape, 5) + smooth_noise(rng, shape, 14), -1.5, 2.5)[..., None]
            green = np.array((0.075, 0.105, 0.045)) * np.exp(rng.normal(0, 0.3, 3))
            mask = np.clip(smooth_noise(rng, shape, size / 3) * 2 + rng.uniform(-1, 1.5), 0, 1)[..., None]
            canvas = canvas * (1 - mask) + mask * green * np.exp(0.6 * leaves)
    if kind == "bokeh" or rng.random() < 0.15:
        dots = np.zeros_like(canvas)
        for _ in range(int(rng.integers(10, 50))):
            colour = rng.uniform(0.1, 1.2) * _muted(rng, 0.3)
            center = (int(rng.uniform(0, shape[1])), int(rng.uniform(0, size)))
            cv2.circle(dots, center, int(rng.uniform(2, 9)), colour.tolist(), -1, cv2.LINE_AA)
        canvas = canvas * 0.6 + dots
    sigma = rng.uniform(1.5, 7.0)
    canvas = np.asarray(cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), sigma), np.float32)
    grain = smooth_noise(rng, shape, 1.5)[..., None]
    brightness = light.level / np.pi * rng.uniform(0.5, 1.6)
    return np.clip(canvas * brightness * (1 + 0.015 * grain), 0, 40).astype(np.float32)
