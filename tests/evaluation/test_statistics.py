"""Intervals against distributions whose intervals are known."""

import numpy as np
import pytest

from rtgaze_jax.evaluation.metrics import frechet_distance
from rtgaze_jax.evaluation.statistics import mean_interval, resamples, set_interval, slope_interval


def test_interval_of_a_mean_has_the_normal_width_and_covers_the_truth():
    rng = np.random.default_rng(0)
    people = np.arange(60)
    widths, hits = [], 0
    for _ in range(150):
        found = mean_interval(rng.normal(5, 2, 60), people)
        widths.append(found["high"] - found["low"])
        hits += found["low"] < 5 < found["high"]
    assert abs(np.mean(widths) / (2 * 1.96 * 2 / np.sqrt(60)) - 1) < 0.05
    assert 0.89 <= hits / 150 <= 0.99


def test_pairs_of_one_person_are_no_new_evidence():
    rng = np.random.default_rng(1)
    of_people = rng.normal(0, 1, 40)
    once = mean_interval(of_people, np.arange(40))
    often = mean_interval(np.repeat(of_people, 25), np.repeat(np.arange(40), 25))
    assert often == pytest.approx(once)


def test_missing_values_are_left_out():
    found = mean_interval(np.array([1.0, np.nan, 3.0]), np.array([7, 7, 9]))
    assert found["mean"] == 2.0
    assert mean_interval(np.full(3, np.nan), np.arange(3)) == {"mean": None, "low": None, "high": None}


def test_slope_of_a_noisy_line():
    rng = np.random.default_rng(2)
    x = rng.normal(3, 1, 2000)
    y = 0.7 * x - 4 + rng.normal(0, 0.5, 2000)
    people = rng.integers(0, 100, 2000)
    found = slope_interval(np.append(x, np.nan), np.append(y, 1.0), np.append(people, 0))
    assert abs(found["mean"] - np.polyfit(x, y, 1)[0]) < 1e-9
    assert found["low"] < 0.7 < found["high"]
    assert abs((found["high"] - found["low"]) / (2 * 1.96 * 0.5 / np.sqrt(2000)) - 1) < 0.3


def test_interval_of_a_distance_between_sets_lies_around_it():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, (300, 4)), rng.normal(np.eye(4)[0], 1, (300, 4))
    found = set_interval(frechet_distance, a, b, np.repeat(np.arange(60), 5))
    assert found["mean"] == frechet_distance(a, b)
    assert found["low"] < found["mean"] < found["high"]
    assert found["low"] < 1 < found["high"]


def test_resamples_are_as_large_as_the_sample_and_repeat():
    drawn = resamples(9, 50)
    assert (drawn.sum(1) == 9).all()
    np.testing.assert_array_equal(drawn, resamples(9, 50))
    assert (drawn != resamples(9, 50, seed=1)).any()
