"""Where the painted eyes of successive frames are: discs whose places can be measured, in a photo moved as known."""

import numpy as np
import pytest
from video_helpers import DiscNetwork, moving

from rtgaze_jax.inference.face import find_faces
from rtgaze_jax.inference.live import Aim, LiveRedirector
from rtgaze_jax.inference.photo import as_photo
from rtgaze_jax.inference.redirector import Redirector
from rtgaze_jax.inference.tracking import Tracker
from rtgaze_jax.inference.warp import apply, invert

EYE = np.array([247.0, 104.5])  # the subject's left one in the photo


class Restless(DiscNetwork):
    """Paints its eyes elsewhere with every encoding: `by` pixels to the right every other time."""

    def __init__(self, by):
        super().__init__()
        self.by = by

    def redirect(self, features, gaze, eye_points):
        shift = self.by * (self.encoded % 2) / self.size
        return super().redirect(features, gaze, np.asarray(eye_points) + np.array([shift, 0]))


def iris(result, matrix):
    """The middle of the dark disc painted on one eye, in the coordinates of the photo that `matrix` moved."""
    x, y = apply(matrix, EYE)
    down, right = np.mgrid[: result.shape[0], : result.shape[1]] + 0.5
    dark = np.clip(120.0 - result[..., 0], 0, None) * (np.hypot(right - x, down - y) < 8)
    return apply(invert(matrix), np.array([(dark * right).sum(), (dark * down).sum()]) / dark.sum())


def trembling(places):
    return float(np.sqrt((np.diff(places, 2, axis=0) ** 2).sum(-1).mean()))


def play(network, frames, gazes=None):
    """The frames as video, and how often the face had been encoded after each."""
    tracker, live = Tracker(), LiveRedirector(Redirector(network, {"gaze_range_degrees": [25, 35]}), Aim())
    results, encoded = [], []
    for i, frame in enumerate(frames):
        live.aim = Aim(*gazes[i]) if gazes else live.aim
        results.append(live.apply(frame, i / 25, tracker.update(frame, i / 25))[0])
        encoded.append(live.counts["encoded"])
    return results, encoded


@pytest.mark.parametrize("speed", [0.0, 0.5])
def test_painted_eyes_tremble_at_most_half_as_much_as_frame_by_frame(speed):
    random = np.random.default_rng(0)
    moved = [moving(i, speed=speed) for i in range(24)]
    frames = [np.clip(f + random.normal(0, 4, f.shape), 0, 255).astype(np.uint8) for f, _ in moved]
    model = Redirector(DiscNetwork(), {"gaze_range_degrees": [25, 35]})
    alone = [model.encode_found(as_photo(f), find_faces(f)[0]).look_at("camera").image for f in frames]
    plain, steady = (
        np.array([iris(result, matrix) for result, (_, matrix) in zip(results, moved, strict=True)])
        for results in (alone, play(DiscNetwork(), frames)[0])
    )
    assert trembling(steady) < 0.5 * trembling(plain)
    assert np.linalg.norm(steady.mean(0) - plain.mean(0)) < 1.5


def brighter(index):
    """A face at rest whose light changes every eight frames, so that it is encoded anew."""
    frame = moving(0)[0]
    return np.clip(frame.astype(int) + 12 * (index // 8 % 2), 0, 255).astype(np.uint8)


def test_a_new_encoding_takes_over_gradually():
    frames = [brighter(i) for i in range(24)]
    still, often = play(Restless(0), frames)
    results, encoded = play(Restless(4), frames)
    assert encoded == often
    assert len(set(encoded)) == 3
    matrix = moving(0)[1]
    way = np.array([iris(a, matrix)[0] - iris(b, matrix)[0] for a, b in zip(results, still, strict=True)])
    whole = np.ptp(way)
    assert whole > 1.5  # pixels: the network's change does arrive
    assert np.abs(np.diff(way)).max() < 0.5 * whole


def test_a_jump_of_the_gaze_is_seen_at_once():
    """Also where the frame is encoded anew at the same moment."""
    frames = [brighter(i) for i in range(16)]
    gazes = [(0.0, 0.0 if i < 8 else 25.0) for i in range(16)]
    (results, encoded), (final, _) = play(DiscNetwork(), frames, gazes), play(DiscNetwork(), frames, [(0.0, 25.0)] * 16)
    assert encoded[8] > encoded[7]
    before, after, meant = (r[..., 0].astype(int) for r in (results[7], results[8], final[8]))
    assert np.abs(after - meant).max() < 0.25 * np.abs(before - after).max()
