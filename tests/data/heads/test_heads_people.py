"""People: seeds, splits, shares."""

import itertools

import numpy as np
import pytest

from rtgaze_jax.data.heads.people import PEOPLE, SPLIT_OFFSETS, person_seed, sample_person, skin_tone
from rtgaze_jax.errors import UserError


def test_splits_never_share_a_seed():
    ranges = sorted((offset, offset + PEOPLE) for offset in SPLIT_OFFSETS.values())
    assert set(SPLIT_OFFSETS) == {"train", "validation", "test"}
    for (_, end), (start, _) in itertools.pairwise(ranges):
        assert end <= start
    assert SPLIT_OFFSETS == {"train": 0, "validation": 2**60, "test": 2**61}  # never to be changed
    assert person_seed("test", PEOPLE - 1) < 2**63


def test_same_person_twice_and_different_people():
    assert sample_person("train", 3) == sample_person("train", 3)
    names = [sample_person(split, 3) for split in SPLIT_OFFSETS]
    assert len({p.pupil_distance for p in names}) == 3


@pytest.mark.parametrize(("split", "number"), [("dev", 0), ("train", -1), ("train", PEOPLE)])
def test_bad_names_are_user_errors(split, number):
    with pytest.raises(UserError):
        sample_person(split, number)


def test_people_vary_within_human_bounds():
    people = [sample_person("train", i) for i in range(250)]
    glasses = np.mean([p.glasses is not None for p in people])
    assert 0.09 < glasses < 0.22
    assert 0.35 < np.mean([p.male > 0.5 for p in people]) < 0.65
    assert all(18 <= p.age <= 84 and abs(sum(p.ancestry) - 1) < 1e-9 for p in people)
    # adult eyeballs are 23 to 25 mm across, pupils 55 to 71 mm apart
    assert all(0.114 <= p.eye_radius <= 0.126 and 0.55 <= p.pupil_distance <= 0.71 for p in people)
    assert np.std([p.pupil_distance for p in people]) > 0.015
    tones = np.array([p.tone for p in people])
    assert tones[:, 0].max() / tones[:, 0].min() > 4
    assert (tones[:, 0] > tones[:, 1]).mean() > 0.99  # skin is never green


def test_skin_tones_get_darker():
    tones = np.array([skin_tone(m) for m in np.linspace(0, 1, 9)])
    assert (np.diff(tones, axis=0) < 0).all()
    np.testing.assert_allclose(skin_tone(0.25), (0.52, 0.33, 0.235), rtol=1e-6)
