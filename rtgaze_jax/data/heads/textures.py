"""Procedural textures: irises, scleras and a tiling skin detail map, from seeds."""

import functools

import cv2
import numpy as np

from rtgaze_jax.data.heads.people import Iris, Person

IRIS_SHAPE = (64, 512)  # radius (pupil edge to limbus), azimuth
SCLERA_SHAPE = (128, 512)  # angle from the limbus to 115 degrees, azimuth
DETAIL = 512


def _ring_noise(rng: np.random.Generator, shape: tuple[int, int], radial: float, around: float) -> np.ndarray:
    """Noise over (radius, azimuth) that closes around; features in pixels, deviation 1."""
    rows, columns = max(2, round(shape[0] / radial) + 1), max(3, round(shape[1] / around))
    small = rng.normal(size=(rows, columns)).astype(np.float32)
    wrapped = np.concatenate([small[:, -2:], small, small[:, :2]], 1)
    scale = shape[1] / columns
    out = cv2.resize(wrapped, (round(scale * (columns + 4)), shape[0]), interpolation=cv2.INTER_CUBIC)
    start = round(2 * scale)
    return out[:, start : start + shape[1]] / 0.75


def iris_texture(iris: Iris) -> np.ndarray:
    """Linear albedo [64, 512, 3] as float32; row 0 is the pupil's edge, the last row the limbus."""
    rng = np.random.default_rng([iris.seed, 11])
    r = ((np.arange(IRIS_SHAPE[0]) + 0.5) / IRIS_SHAPE[0])[:, None]
    sway = 0.06 * _ring_noise(rng, IRIS_SHAPE, 40, 60)
    fine, broad = _ring_noise(rng, IRIS_SHAPE, 40, 3.2), _ring_noise(rng, IRIS_SHAPE, 60, 9)
    fibres = 0.55 * fine + 0.5 * broad + 0.2 * _ring_noise(rng, IRIS_SHAPE, 12, 5)
    frill = 0.32 + 0.05 * _ring_noise(rng, IRIS_SHAPE, 99, 26) + sway * 0.4
    inner = np.clip((frill + 0.10 - r) / 0.16, 0, 1)
    colour = np.asarray(iris.outer) * (1 - inner[..., None]) + np.asarray(iris.inner) * inner[..., None]
    crypts = np.clip(_ring_noise(rng, IRIS_SHAPE, 12, 16) - 1.1, 0, 1) * np.clip(1 - np.abs(r - 0.45) / 0.25, 0, 1)
    collar = np.exp(-(((r - frill) / 0.035) ** 2))
    shade = np.exp(iris.fibres * 0.42 * fibres + 0.22 * collar - 0.7 * crypts)
    shade *= 1 - 0.55 * np.exp(-r / 0.035)
    edge = np.clip((r - 0.80 + 0.02 * broad) / 0.2, 0, 1)
    shade *= 1 - iris.ring * 0.80 * edge**1.5
    flecks = np.clip(_ring_noise(rng, IRIS_SHAPE, 7, 14) - 2.0, 0, 1)[..., None]
    colour = colour * shade[..., None] * (1 - 0.6 * flecks * np.array((0.5, 0.8, 1.0)))
    return np.clip(colour, 0.002, 1).astype(np.float32)


def sclera_texture(person: Person) -> np.ndarray:
    """Linear albedo [128, 512, 3]: off-white, veins, pinker towards the lids."""
    rng = np.random.default_rng([person.iris.seed, 13])
    h, w = SCLERA_SHAPE
    base = np.asarray(person.sclera)
    mottle = 0.03 * _ring_noise(rng, SCLERA_SHAPE, 40, 40) + 0.015 * _ring_noise(rng, SCLERA_SHAPE, 10, 12)
    image = base * (1 + mottle[..., None] * np.array((0.5, 1.0, 1.6)))
    veins = np.zeros((h, w), np.float32)
    for _ in range(int(26 + 40 * person.veins)):
        # veins run in from the corners (azimuth 0 and half way round) towards the limbus and thin out
        x, y = rng.choice((0.0, w / 2)) + rng.normal(0, w * 0.10), h * rng.uniform(0.6, 1.0)
        heading, points = -np.pi / 2 + rng.normal(0, 0.3), []
        for _ in range(int(rng.integers(14, 50))):
            points.append((x, y))
            heading += rng.normal(0, 0.38) + 0.12 * (-np.pi / 2 - heading)
            x, y = x + 2.6 * np.cos(heading) * 1.6, y + 2.0 * np.sin(heading)
            if y < h * 0.05:
                break
        path = np.array(points)
        strength = rng.uniform(0.2, 0.9) * rng.uniform(0.4, 1)
        for lap in (-w, 0, w):
            line = np.round((path + np.array([lap, 0])) * 8).astype(np.int32)[:, None]
            cv2.polylines(veins, [line], False, float(strength), 1, cv2.LINE_AA, 3)
    veins = np.clip(0.8 * veins + 0.7 * cv2.GaussianBlur(veins, (0, 0), 1.6), 0, 1)
    row = ((np.arange(h) + 0.5) / h)[:, None]
    turn = (np.arange(w) + 0.5) / w * 2 * np.pi
    corner = np.abs(np.cos(turn))[None] ** 2
    blush = np.clip(row * 1.3 - 0.15, 0, 1) * (0.12 + 0.25 * corner) * (0.5 + 0.6 * person.veins)
    absorb = (0.9 * person.veins * veins)[..., None] * (0.25, 1.0, 0.95) + blush[..., None] * (0.15, 0.75, 0.72)
    return np.clip(image * np.exp(-absorb), 0.01, 1).astype(np.float32)


@functools.cache
def skin_detail() -> np.ndarray:
    """Tiling uint8 [512, 512, 4]: pore height, mottling, freckles, fine lines. One tile spans about 30 mm."""
    rng = np.random.default_rng(20231)
    frequency = np.fft.fftfreq(DETAIL) * DETAIL
    radius = np.hypot(frequency[:, None], frequency[None])

    def band(low: float, high: float) -> np.ndarray:
        spectrum = np.fft.fft2(rng.normal(size=(DETAIL, DETAIL)))
        spectrum *= np.exp(-((radius / high) ** 2)) * (1 - np.exp(-((radius / low) ** 2)))
        out = np.fft.ifft2(spectrum).real
        return out / out.std()

    points = rng.uniform(0, DETAIL, (1500, 2))
    pores = np.zeros((DETAIL, DETAIL), np.float32)
    for x, y in points:
        for dx in (-DETAIL, 0, DETAIL):
            for dy in (-DETAIL, 0, DETAIL):
                if -9 < x + dx < DETAIL + 9 and -9 < y + dy < DETAIL + 9:
                    cv2.circle(
                        pores,
                        (int((x + dx) * 8), int((y + dy) * 8)),
                        int(8 * (1.4 + 1.4 * ((x * 7) % 1))),
                        1.0,
                        -1,
                        cv2.LINE_AA,
                        3,
                    )
    blurred = cv2.GaussianBlur(np.tile(pores, (3, 3)), (0, 0), 1.4)[DETAIL : 2 * DETAIL, DETAIL : 2 * DETAIL]
    height = 0.5 - 0.30 * blurred + 0.075 * band(30, 90) + 0.05 * band(8, 30)
    mottle = 0.5 + 0.13 * band(1, 6) + 0.10 * band(6, 26) + 0.05 * band(26, 90)
    spots = np.clip(band(12, 34) * 0.8 + band(5, 12) * 0.3 - 1.1, 0, 1)
    lines = 0.5 + 0.16 * band(40, 150)
    return (np.clip(np.stack([height, mottle, spots, lines], -1), 0, 1) * 255).astype(np.uint8)
