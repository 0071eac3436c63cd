"""The way of NVIDIA GPUs, as far as a processor can go it: graph options, results in host memory, turned kernels."""

import jax
import numpy as np
import pytest
from network_helpers import SPECK, compiled, quick_compile, varied_params  # noqa: F401

from rtgaze_jax.geometry.camera import frontal_camera
from rtgaze_jax.inference import graphs
from rtgaze_jax.inference.benchmark import fixed_inputs
from rtgaze_jax.inference.network import BUCKETS, FUSED, STAGES, Network

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def gpu(monkeypatch):
    for module in ("graphs", "network"):
        monkeypatch.setattr(f"rtgaze_jax.inference.{module}.capability", lambda: 9.0)
    graphs.compiler_options.cache_clear()
    yield
    graphs.compiler_options.cache_clear()


def test_nothing_special_without_an_nvidia_gpu():
    graphs.compiler_options.cache_clear()
    assert graphs.compiler_options() == {}
    assert graphs.host_memory() is None


def test_a_compiler_that_does_not_know_the_options_is_not_given_any(gpu, monkeypatch):
    assert graphs.compiler_options() == graphs._GRAPHS
    graphs.compiler_options.cache_clear()
    monkeypatch.setattr(graphs, "_GRAPHS", {"xla_gpu_no_such_option": "1"})
    assert graphs.compiler_options() == {}


def test_the_results_are_the_same_and_wait_on_the_host(gpu, compiled, monkeypatch):  # noqa: F811
    fast = Network(varied_params(SPECK), SPECK)
    kernel = fast.params["encode"]["high"]["Conv_0"]["kernel"]
    assert kernel.shape == (SPECK.encoder.high_widths[0], 7, 7, 5)  # as cuDNN reads them
    monkeypatch.undo()
    plain = Network(varied_params(SPECK), SPECK)
    images, gaze, points = fixed_inputs(3, SPECK.image_size)
    camera = np.asarray(frontal_camera())[None]

    def results(network):
        features = network.encode(images[:1])
        scene = network.redirect(features, gaze[:1], points[:1])
        shown = network.render(features, scene, camera), network.look(features, gaze[:1], points[:1])
        return (
            *shown,
            network.redirect_images(images, gaze, points),
            network.redirect_images(images[:1], gaze[:1], points[:1]),
        )

    fast.warm_up(*STAGES, FUSED)
    fast.warm_up(FUSED, batch=BUCKETS[1])
    compiled.clear()
    found = results(fast)
    assert compiled == []
    expected = results(plain)
    kinds = {x.sharding.memory_kind for x in jax.tree.leaves((found[:2], found[3]))}
    assert kinds == {"pinned_host"}
    assert found[2]["image"].shape == images.shape
    for actual, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        bound = 1 if wanted.dtype == np.uint8 else 1e-5
        assert np.abs(np.asarray(actual, np.float64) - np.asarray(wanted, np.float64)).max() <= bound
