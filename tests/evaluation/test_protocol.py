"""Pair lists: fixed, complete, and of one person each."""

import analytic_head
import numpy as np
import pytest

from rtgaze_jax.data.datasets import gaze_heads
from rtgaze_jax.data.record import Grid
from rtgaze_jax.errors import UserError
from rtgaze_jax.evaluation import protocol


def test_lineage_pairs_join_the_first_block_to_the_second():
    people = np.repeat([4, 2, 9], 23)
    pairs = protocol.lineage_pairs(people, 10)
    assert pairs.shape == (30, 3)
    np.testing.assert_array_equal(people[pairs[:, 0]], people[pairs[:, 1]])
    for start in (0, 23, 46):
        mine = pairs[(pairs[:, 0] >= start) & (pairs[:, 0] < start + 23)]
        np.testing.assert_array_equal(mine[:, 0], start + np.arange(10))
        np.testing.assert_array_equal(np.sort(mine[:, 1]), start + 10 + np.arange(10))
    np.testing.assert_array_equal(pairs, protocol.lineage_pairs(people, 10))


def test_lineage_pairs_need_enough_records():
    with pytest.raises(UserError, match="person 1 has 19 records"):
        protocol.lineage_pairs(np.ones(19, int), 10)


def test_published_counts():
    counts = {name: rule.block * rule.people for name, rule in protocol.LINEAGE.items()}
    assert counts == {"eth_xgaze": 1500, "mpii_face_gaze": 1500, "columbia_gaze": 2912}


def test_directory_and_memory_give_the_same_batches(tmp_path):
    settings = gaze_heads.Settings("test", people=3, gazes=3, views=2, resolution=32, seed=0)
    gaze_heads.generate(tmp_path, settings, workers=1, make_renderer=analytic_head.Camera)
    records = [r for p in range(3) for r in analytic_head.render_capture(32, "test", p, gazes=3, views=2)]
    stored, held = protocol.from_directory(tmp_path, 12), protocol.from_records(records, Grid(3, 3, 2), 12)
    np.testing.assert_array_equal(stored.pairs, held.pairs)
    assert stored.hash != held.hash  # the directory's covers its contents
    a, b = stored.batch([0, 5, 11, 11]), held.batch([0, 5, 11, 11])
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-2 if name == "target_depth" else 0)
    assert len(protocol.from_directory(tmp_path)) == protocol.most_pairs(Grid(3, 3, 2)) == 72
