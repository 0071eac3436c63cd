"""Synthetic footage whose lids and head are known: closed eyes, covered and turned faces keep their pixels."""

import cv2
import numpy as np
import pytest
from video_helpers import disc_model

from rtgaze_jax.data.heads.footage import Moment, render_footage
from rtgaze_jax.data.heads.renderer import Renderer
from rtgaze_jax.inference import mesh
from rtgaze_jax.inference.gating import Schedule
from rtgaze_jax.inference.live import Aim, LiveRedirector
from rtgaze_jax.inference.tracking import Tracker

MOMENTS = {
    "open": Moment(),
    "half": Moment(opening=0.45),
    "closed": Moment(opening=0.0),
    "turned 25": Moment(view=(np.radians(25), 0)),
    "turned 60": Moment(view=(np.radians(-60), 0)),
}


@pytest.fixture(scope="module")
def footage():
    """One person's frames by name, u8[240, 240, 3]."""
    renderer = Renderer(240, 1)
    shots = render_footage(renderer, "test", 3, MOMENTS.values())
    return {name: shot.image for name, shot in zip(MOMENTS, shots, strict=True)}


def changes(frames, model=None, aim=None, rate=25):
    """For each frame, how many of its pixels differ after redirection."""
    tracker, live = Tracker(), LiveRedirector(model or disc_model(), aim or Aim())
    counts = []
    for i, frame in enumerate(frames):
        before = frame.copy()
        result, windows = live.apply(frame, i / rate, tracker.update(frame, i / rate))
        np.testing.assert_array_equal(frame, before)
        different = (result != frame).any(-1)
        counts.append(int(different.sum()))
        for window in windows:
            different[window] = False
        assert not different.any()  # outside the announced windows nothing changes
    return counts


def test_closed_eyes_stay_closed(footage):
    """A blink: nothing is painted on closed lids, and the eyes are back a moment later."""
    names = ["open"] * 4 + ["closed"] * 3 + ["open"] * 4
    counts = changes([footage[n] for n in names])
    assert all(counts[:4])
    assert counts[4:7] == [0, 0, 0]
    assert counts[-1] == pytest.approx(counts[3], rel=0.2)


def test_half_closed_eyes_are_still_redirected(footage):
    assert min(changes([footage["open"]] * 2 + [footage["half"]] * 3)) > 0


def covered(image, region):
    """The frame with a flat, grey hand over the eyes or the whole face."""
    (seen,) = Tracker().update(image, 0.0)
    points = seen.face.landmarks
    if region == "eyes":
        points = points[list(mesh.EYE_HALOS[0] + mesh.EYE_HALOS[1])]
    low, high = points.min(0).astype(int) - 4, points.max(0).astype(int) + 4
    result = image.copy()
    result[low[1] : high[1], low[0] : high[0]] = (150, 130, 120)
    return result


@pytest.mark.parametrize("region", ["eyes", "face"])
def test_a_covered_face_is_left_alone(footage, region):
    hidden = covered(footage["open"], region)
    counts = changes([footage["open"]] * 3 + [hidden] * 4)
    assert min(counts[:3]) > 0
    assert counts[3:] == [0] * 4
    assert changes([hidden] * 2) == [0, 0]  # also where the eyes were never seen


def test_a_structured_cover_is_noticed_by_what_was_seen_before(footage):
    """Stripes look like an iris to a contrast measure, but not like this person's face."""
    hidden = covered(footage["open"], "eyes")
    flat = (hidden != footage["open"]).any(-1)
    stripes = (np.arange(240)[None, :] // 5 % 2 * 150 + 40).astype(np.uint8)
    hidden[flat] = np.broadcast_to(stripes[..., None], hidden.shape)[flat]
    assert changes([footage["open"]] * 3 + [hidden] * 3)[3:] == [0, 0, 0]


def test_a_turned_head_keeps_its_pixels(footage):
    assert changes([footage["turned 60"]] * 3) == [0, 0, 0]
    assert min(changes([footage["turned 25"]] * 3)) > 0


def test_release_and_return_are_smooth(footage):
    """Someone who looks far away means it: the correction fades out over a third of a second, and back in."""
    model = disc_model()
    tracker, live = Tracker(), LiveRedirector(model, Aim())
    strengths = []
    apply_gate = live._people
    for i in range(40):
        model.network.gaze = (0.0, 55.0 if 10 <= i < 25 else 2.0)
        # a little light, so that each frame is encoded and its gaze estimated
        frame = cv2.convertScaleAbs(footage["open"], alpha=1.0, beta=8 * (i % 2))
        live.apply(frame, i / 25, tracker.update(frame, i / 25))
        apply_gate = live._people
        strengths.append(apply_gate[0].gate.state()["strength"])
    assert strengths[9] == 1
    assert min(strengths) < 0.2
    assert strengths[-1] > 0.8
    assert np.abs(np.diff(strengths)).max() < 0.04 / 0.3 + 1e-6


def test_faces_come_in_smoothly_but_at_once_after_a_cut(footage):
    """Someone who steps into the picture is taken over in half a second; a new shot begins with the eyes in place."""
    empty = cv2.GaussianBlur(footage["open"], (0, 0), 12)
    other = 255 - np.roll(empty, 60, 0)
    strengths = {}
    for name, before in (("enters", empty), ("cut", other)):
        tracker, live = Tracker(), LiveRedirector(disc_model(), Aim())
        for i, frame in enumerate([before] * 5 + [footage["open"]] * 8):
            live.apply(frame, i / 25, tracker.update(frame, i / 25))
            if live._people and name not in strengths:
                strengths[name] = next(iter(live._people.values())).gate.state()["strength"]
    assert strengths["enters"] < 0.1
    assert strengths["cut"] == 1


def test_strength_scales_the_way_from_the_own_gaze(footage):
    """At half strength the painted iris moves half as far."""
    wanted = []
    model = disc_model(gaze=(0.0, 10.0))
    inner = model.network.redirect

    def remember(features, gaze, points):
        wanted.append(np.degrees(np.asarray(gaze[0])))
        return inner(features, gaze, points)

    model.network.redirect = remember
    changes([footage["open"]], model, Aim(yaw=-20.0, strength=Schedule(((0.0, 0.5),))))
    np.testing.assert_allclose(wanted[0], (0, -5), atol=1e-3)
    assert changes([footage["open"]], model, Aim(strength=Schedule(((0.0, 0.0),)))) == [0]


def test_a_face_that_rests_is_encoded_once(footage):
    model = disc_model()
    changes([footage["open"]] * 6, model)
    assert model.network.encoded == model.network.rendered == 1
    changes([footage["open"], footage["half"]], model)
    assert model.network.encoded == 3  # lids moved
