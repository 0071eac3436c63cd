"""Registration of small pictures against shifts that are known."""

import numpy as np
import pytest
from video_helpers import astronaut

from rtgaze_jax.inference.registration import align_to, flat
from rtgaze_jax.inference.warp import compose, shifting, warp

SIZE = (60, 40)
PLACE = shifting(-180, -90)  # a rectangle with an eye


def reference():
    return flat(warp(astronaut(), PLACE, SIZE)), np.ones(SIZE[::-1], np.float32)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.2), (-1.2, 0.9)])
def test_shifts_are_found_in_spite_of_noise_and_light(shift):
    image, weights = reference()
    noise = np.random.default_rng(0).normal(0, 3, astronaut().shape)
    photo = np.clip(0.9 * astronaut() + 12 + noise, 0, 255).astype(np.uint8)
    found = align_to(image, weights, photo, compose(shifting(*shift), PLACE), limit=3)
    np.testing.assert_allclose(found, PLACE, atol=0.04)


def test_only_what_is_weighted_counts():
    """Half of the picture moves on its own, as irises do, and is not weighted."""
    image, weights = reference()
    photo = astronaut()
    photo[90:130, 180:208] = np.roll(photo, 3, 1)[90:130, 180:208]
    weights[:, :34] = 0
    found = align_to(image, weights, photo, compose(shifting(0.5, 0.5), PLACE), limit=3)
    np.testing.assert_allclose(found, PLACE, atol=0.04)


def test_the_guess_stays_where_the_picture_says_nothing():
    image, weights = reference()
    for photo, guess in (
        (255 - astronaut(), PLACE),  # another picture
        (np.full_like(astronaut(), 90), PLACE),  # none
        (astronaut(), compose(shifting(2.5, 0), PLACE)),  # too far away
    ):
        assert align_to(image, weights, photo, guess, limit=1.5) is guess
    plain = np.full_like(astronaut(), 90)
    assert align_to(flat(warp(plain, PLACE, SIZE)), weights, plain, PLACE, limit=3) is PLACE
    assert align_to(image, 0 * weights, astronaut(), PLACE, limit=3) is PLACE
