"""Means with bootstrap intervals over people. NumPy, deterministic in the seed.

The pairs of one person resemble each other, so people are resampled, not pairs: the interval says what other people of
the same kind would have given.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

DRAWS = 2000
SLOW_DRAWS = 100  # for statistics that take milliseconds each
COVERAGE = 0.95

Interval = dict[str, float | None]
"""mean, low and high; None where nothing was measured."""


def resamples(count: int, draws: int = DRAWS, seed: int = 0) -> Int[np.ndarray, "draws count"]:
    """How often each of `count` people is drawn in each of `draws` resamples of the same size."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def mean_interval(values: Float[np.ndarray, "n"], people: Int[np.ndarray, "n"]) -> Interval:
    """The mean over all pairs with its 95 % interval. NaN values are left out."""
    known = np.isfinite(values)
    if not known.any():
        return _nothing()
    numbers, index = np.unique(people[known], return_inverse=True)
    sums = np.bincount(index, values[known].astype(np.float64))
    sizes = np.bincount(index)
    weights = resamples(len(numbers))
    return _interval(sums.sum() / sizes.sum(), (weights @ sums) / (weights @ sizes))


def slope_interval(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], people: Int[np.ndarray, "n"]) -> Interval:
    """The least-squares slope of y over x with its 95 % interval; 1 where y follows x fully, 0 where it does not."""
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 3:
        return _nothing()
    x, y = x[known].astype(np.float64), y[known].astype(np.float64)
    numbers, index = np.unique(people[known], return_inverse=True)
    one, sx, sy, sxx, sxy = np.stack([np.bincount(index, v) for v in (np.ones_like(x), x, y, x * x, x * y)])

    def slope(weights: np.ndarray) -> np.ndarray:
        n, a, b, aa, ab = (weights @ s for s in (one, sx, sy, sxx, sxy))
        return (n * ab - a * b) / np.maximum(n * aa - a * a, 1e-12)

    return _interval(float(slope(np.ones(len(numbers)))), slope(resamples(len(numbers))))


def set_interval(
    distance: Callable[[np.ndarray, np.ndarray], float],
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "n d"],
    people: Int[np.ndarray, "n"],
) -> Interval:
    """A distance between two sets of features, row i of both belonging to pair i, with its 95 % interval.

    A Frechet distance is biased upwards for few images, and more so in resamples, which hold fewer different people:
    the interval is shifted by the resamples' bias, so that it lies around the mean.
    """
    if len(a) < 3:
        return _nothing()
    numbers, index = np.unique(people, return_inverse=True)
    rows = [np.flatnonzero(index == i) for i in range(len(numbers))]
    whole, drawn = distance(a, b), []
    for weights in resamples(len(numbers), SLOW_DRAWS):
        chosen = np.concatenate([np.tile(r, w) for r, w in zip(rows, weights, strict=True) if w])
        drawn.append(distance(a[chosen], b[chosen]))
    centred = np.maximum(np.asarray(drawn) - np.mean(drawn) + whole, 0)
    return _interval(whole, centred)


def _interval(mean: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return {"mean": float(mean), "low": float(low), "high": float(high)}


def _nothing() -> Interval:
    return {"mean": None, "low": None, "high": None}
