"""Smoothing, look-aways and schedules against closed forms; tracking against known motion."""

import json

import numpy as np
import pytest
from video_helpers import astronaut, moving

from rtgaze_jax.errors import UserError
from rtgaze_jax.inference import align
from rtgaze_jax.inference.gating import Schedule, angle_between, ramp
from rtgaze_jax.inference.saccades import LookAway, saccade_seconds
from rtgaze_jax.inference.tracking import OneEuro, Tracker, fit_similarity, similarity_matrix
from rtgaze_jax.inference.warp import apply, compose, invert


def test_one_euro_is_the_first_order_low_pass_at_rest():
    """With beta 0 the step response is 1 - (1 - a)^n, a = 1 / (1 + 1 / (2 pi f dt))."""
    smooth = OneEuro(2.0, 0.0)
    smooth(np.zeros(3), 0.0)
    a = 1 / (1 + 25 / (2 * np.pi * 2.0))
    for n in range(1, 20):
        np.testing.assert_allclose(smooth(np.ones(3), n / 25), 1 - (1 - a) ** n, rtol=1e-12)


def test_one_euro_smooths_rest_and_follows_motion():
    times = np.arange(200) / 25
    noise = np.random.default_rng(0).normal(0, 0.01, 200)
    still, moved = OneEuro(1.0, 30.0), OneEuro(1.0, 30.0)
    rest = np.array([still(np.array([n]), t)[0] for t, n in zip(times, noise, strict=True)])
    assert np.diff(rest).std() < 0.5 * np.diff(noise).std()
    path = 2.0 * times
    followed = np.array([moved(np.array([p]), t)[0] for t, p in zip(times, path, strict=True)])
    assert np.abs(followed - path)[50:].max() < 0.1 * 2.0 / 25  # a tenth of a frame behind


def test_one_euro_goes_on_from_its_state():
    random = np.random.default_rng(1).normal(size=(20, 4, 2))
    one, first = OneEuro(1.0, 5.0), OneEuro(1.0, 5.0)
    expected = [one(x, i / 30) for i, x in enumerate(random)]
    for i in range(10):
        first(random[i], i / 30)
    second = OneEuro(1.0, 5.0, json.loads(json.dumps(first.state())))
    for i in range(10, 20):
        np.testing.assert_array_equal(second(random[i], i / 30), expected[i])


def test_similarity_is_recovered():
    random = np.random.default_rng(2)
    points = random.normal(size=(30, 2))
    matrix = similarity_matrix(np.array([3.0, -2.0, 0.4, 2.5]))
    np.testing.assert_allclose(fit_similarity(points, apply(matrix, points)), [3.0, -2.0, 0.4, 2.5], atol=1e-9)


def trembling(places):
    """Root mean square of second differences: what is left of a path when steady motion is taken away."""
    return float(np.sqrt((np.diff(places, 2, axis=0) ** 2).sum(-1).mean()))


@pytest.mark.parametrize("speed", [0.0, 0.5])
def test_eyes_tremble_at_most_half_as_much_as_without_smoothing(speed):
    """Where the new eyes go, in the coordinates of the photo that moves: constant, were tracking perfect."""
    random, tracker, smooth, plain = np.random.default_rng(0), Tracker(), [], []
    for i in range(24):
        frame, matrix = moving(i, speed=speed)
        frame = np.clip(frame + random.normal(0, 4, frame.shape), 0, 255).astype(np.uint8)
        (seen,) = tracker.update(frame, i / 25)
        assert seen.identity == 0
        framing = align.crop_matrix(seen.raw, 1)
        for found, crop, points in (
            (plain, framing, align.eye_points(seen.raw, framing, 1)),
            (smooth, seen.framing, seen.points),
        ):
            found.append(apply(compose(invert(matrix), invert(crop)), points))
    assert trembling(np.array(smooth)) < 0.5 * trembling(np.array(plain))
    assert np.linalg.norm(np.array(smooth).mean(0) - np.array(plain).mean(0), axis=-1).max() < 1.0  # and no lag


def test_tracks_survive_their_state_and_faces_keep_their_numbers():
    frames = [moving(i)[0] for i in range(8)]
    one, first = Tracker(), Tracker()
    expected = [one.update(f, i / 25) for i, f in enumerate(frames)]
    for i in range(4):
        first.update(frames[i], i / 25)
    second = Tracker(state=json.loads(json.dumps(first.state())))
    for i in range(4, 8):
        (seen,) = second.update(frames[i], i / 25)
        np.testing.assert_array_equal(seen.framing, expected[i][0].framing)
        np.testing.assert_array_equal(seen.face.landmarks, expected[i][0].face.landmarks)


def test_choice_of_faces():
    photo = astronaut()[:300, 80:380]
    small = np.pad(photo[::2, ::2], ((75, 75), (0, 0), (0, 0)), "edge")
    both = np.concatenate([photo, small], 1)
    places = {}
    for choice in (1, 2, 3, None):
        places[choice] = [o.face.box[0] > 300 for o in Tracker(choice).update(both, 0.0)]
    assert places == {1: [False], 2: [True], 3: [], None: [False, True]}


def test_a_cut_starts_anew():
    tracker = Tracker()
    tracker.update(moving(0)[0], 0.0)
    tracker.update(moving(0)[0], 0.04)
    assert tracker.update(np.full((240, 320, 3), 128, np.uint8), 0.08) == []
    found = [tracker.update(np.roll(moving(0)[0], 90, 1), 0.12 + i / 25) for i in range(6)]
    (again,) = next(seen for seen in found if seen)  # lost faces are looked for every few frames
    assert again.fresh
    assert again.identity == 1


def test_look_aways_fill_their_share_and_follow_the_seed():
    away = LookAway(0.25, seed=3)
    times = np.arange(0, 600, 0.02)
    offsets = np.array([away.offset(t) for t in times])
    size = np.hypot(*offsets.T)
    assert (size > 1).mean() == pytest.approx(0.25, abs=0.05)
    assert size.max() <= 18
    assert (offsets[:, 0] < -0.5).sum() > 3 * (offsets[:, 0] > 0.5).sum()  # rather down than up
    other = LookAway(0.25, seed=3)
    assert other.offset(500.0) == tuple(offsets[25_000])  # asked out of order
    assert (np.array([LookAway(0.25, seed=4).offset(t) for t in times[:500]]) != offsets[:500]).any()
    assert LookAway(0.0).offset(10.0) == (0.0, 0.0)


def test_saccades_take_the_time_that_saccades_take():
    assert saccade_seconds(10) == pytest.approx(0.043)
    away = LookAway(0.5, seed=0)
    size = np.array([np.hypot(*away.offset(t)) for t in np.arange(0, 60, 0.001)])
    moving_share = (np.abs(np.diff(size)) > 1e-9).mean()
    jumps = np.count_nonzero(np.diff((size > 3).astype(int)))
    assert 20 < jumps < 120
    assert 0.02 < moving_share * 60 / jumps < 0.06  # seconds in motion for each jump


def test_schedule():
    schedule = Schedule.parse("1:0,3:1,5:0.5")
    assert [schedule(t) for t in (0, 1, 2, 3, 4, 9)] == [0, 0, 0.5, 1, 0.75, 0.5]
    assert Schedule.parse("0.3")(7) == 0.3
    for wrong in ("", "2", "a", "1:2", "3:1,2:1", "0.5,0.6", "nan", "-1:0", "1:nan"):
        with pytest.raises(UserError, match="--strength"):
            Schedule.parse(wrong)


def test_ramp_and_angle():
    assert [ramp(x, (40.0, 32.0)) for x in (50, 40, 36, 32, 0)] == [0, 0, 0.5, 1, 1]
    assert angle_between((0, 0), (30, 0)) == pytest.approx(30)
    assert angle_between((10, 20), (10, 20)) == pytest.approx(0, abs=1e-5)
    # half a turn of the head: cos = cos(a) cos(b)
    assert angle_between((20, 0), (0, 30)) == pytest.approx(
        np.degrees(np.arccos(np.cos(np.radians(20)) * np.cos(np.radians(30))))
    )
