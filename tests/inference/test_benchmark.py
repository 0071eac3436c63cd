"""The benchmark: its statistics against other formulas, its report, and the whole command once on the smallest
preset. Nothing here asserts how long anything takes."""

import dataclasses
import itertools
import json
import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from network_helpers import SPECK, TINY, quick_compile, varied_params  # noqa: F401

from rtgaze_jax import cli
from rtgaze_jax.errors import FailureError, UserError
from rtgaze_jax.geometry.camera import frontal_camera
from rtgaze_jax.inference import benchmark, benchmark_report, measure
from rtgaze_jax.inference.network import Network
from rtgaze_jax.models.config import preset
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.weights import io


def test_latency_percentiles():
    """0, 1, ... 100 milliseconds in any order have themselves as percentiles; in between it is linear."""
    found = measure.latency(np.random.default_rng(0).permutation(101) / 1000)
    assert found == pytest.approx({"p50_ms": 50, "p95_ms": 95, "p99_ms": 99, "calls": 101})
    times = np.random.default_rng(1).gamma(2.0, 0.001, 37)
    ordered = 1000 * np.sort(times)
    for part, name in ((0.5, "p50_ms"), (0.95, "p95_ms"), (0.99, "p99_ms")):
        place = part * 36
        low = math.floor(place)
        expected = ordered[low] + (place - low) * (ordered[min(low + 1, 36)] - ordered[low])
        assert measure.latency(times)[name] == pytest.approx(expected)


def test_sustained_frames():
    found = measure.sustained([0.010] * 99 + [0.110])
    assert found["fps"] == pytest.approx(100 / (0.99 + 0.11))
    assert found["seconds"] == pytest.approx(1.1)
    assert found["p50_ms"] == pytest.approx(10)
    assert found["p99_over_p50"] == pytest.approx((10 + 0.01 * 100) / 10)


def test_calls_are_timed_one_by_one_until_the_budget_is_spent():
    ticks = itertools.count()
    calls = []
    # the clock advances a second at every look: two looks a call, one a check, none while there are too few
    times = measure.call_seconds(lambda: calls.append(0), budget=30, least=2, clock=lambda: next(ticks))
    assert times == [1] * 11
    assert len(calls) == 12  # one before, which does not count
    few = measure.call_seconds(lambda: None, budget=0, least=4, clock=lambda: next(ticks))
    assert len(few) == 4
    many = measure.call_seconds(lambda: None, budget=1e9, least=1, most=6, clock=lambda: next(ticks))
    assert len(many) == 6


def test_queued_calls_share_their_time():
    ticks = iter([3.0, 5.0])
    calls = []
    assert measure.queued_seconds(lambda: calls.append(0), 8, clock=lambda: next(ticks)) == 2 / 8
    assert len(calls) == 9


def test_roofline_closed_form():
    ceilings = {"flops_per_s": 100e12, "bytes_per_s": 1e12}
    compute = measure.roofline(2e11, 1e6, ceilings, seconds=0.004)
    assert compute["floor_ms"] == pytest.approx(2.0)
    assert compute["bound"] == "compute"
    assert compute["share"] == pytest.approx(0.5)
    memory = measure.roofline(2e9, 3e9, ceilings, seconds=0.004)
    assert memory["floor_ms"] == pytest.approx(3.0)
    assert memory["bound"] == "memory"
    assert memory["share"] == pytest.approx(0.75)


def test_contraction_flops_closed_form():
    count = lambda f, *a, **k: measure.contraction_flops(jax.make_jaxpr(f)(*a), **k)  # noqa: E731
    a, b = jnp.ones((5, 7)), jnp.ones((7, 3))
    assert count(jnp.matmul, a, b) == 2 * 5 * 7 * 3
    assert count(jax.jit(lambda a, b: jnp.sin(a) @ b), a, b) == 2 * 5 * 7 * 3
    heads = jnp.ones((2, 6, 4, 8))
    assert count(lambda q: jnp.einsum("bnhd,bmhd->bhnm", q, q), heads) == 2 * 2 * 4 * 6 * 6 * 8
    x, kernel = jnp.ones((2, 8, 8, 6)), jnp.ones((3, 3, 6, 10))
    dims = ("NHWC", "HWIO", "NHWC")
    convolve = lambda x, k, **o: jax.lax.conv_general_dilated(x, k, dimension_numbers=dims, **o)  # noqa: E731
    assert count(lambda x, k: convolve(x, k, window_strides=(1, 1), padding="SAME"), x, kernel) == 2 * 128 * 10 * 54
    assert count(lambda x, k: convolve(x, k, window_strides=(2, 2), padding="SAME"), x, kernel) == 2 * 32 * 10 * 54
    depthwise = lambda x, k: convolve(  # noqa: E731
        x, k, window_strides=(1, 1), padding="SAME", feature_group_count=6
    )
    assert count(depthwise, x, jnp.ones((3, 3, 1, 6))) == 2 * 128 * 6 * 9
    upwards = lambda x, k: jax.lax.conv_transpose(x, k, (2, 2), "SAME", dimension_numbers=dims)  # noqa: E731
    assert count(upwards, x, kernel) == 2 * 4 * 128 * 10 * 54 / 4


def test_loops_count_as_often_as_they_run():
    a = jnp.ones((4, 4))
    loop = lambda a: jax.lax.scan(lambda c, _: (c @ c, None), a, length=5)[0]  # noqa: E731
    jaxpr = jax.make_jaxpr(loop)(a)
    assert measure.contraction_flops(jaxpr) == 5 * 128
    assert measure.contraction_flops(jaxpr, seen_by_xla=True) == 128
    either = jax.make_jaxpr(lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a, lambda a: a, a))(a)
    assert measure.contraction_flops(either) == 128
    traced = jax.jit(loop).trace(a)
    flops, moved = measure.cost(traced.lower(), traced.jaxpr)
    assert flops == pytest.approx(5 * 128, rel=0.1)  # XLA adds the counter of the loop
    assert moved > 0
    silent = SimpleNamespace(cost_analysis=lambda: None, compile=traced.lower().compile)  # as on a GPU
    assert measure.cost(silent, traced.jaxpr) == (5 * 128, moved)


def test_kernels_count_once_a_program():
    def kernel(x, y, out):
        out[...] = x[...] @ y[...]

    block = pl.BlockSpec((8, 8), lambda i: (i, 0))
    whole = pl.BlockSpec((8, 8), lambda i: (0, 0))
    shape = jax.ShapeDtypeStruct((24, 8), jnp.float32)
    product = pl.pallas_call(
        kernel, out_shape=shape, grid=(3,), in_specs=[block, whole], out_specs=block, interpret=True
    )
    jaxpr = jax.make_jaxpr(product)(jnp.ones((24, 8)), jnp.ones((8, 8)))
    assert measure.contraction_flops(jaxpr) == 2 * 24 * 8 * 8
    assert measure.contraction_flops(jaxpr, seen_by_xla=True) == 0


def test_xla_counts_the_same_work():
    """Over a whole stage: XLA leaves out padding and adds what is no product."""
    network = Network(varied_params(SPECK), SPECK)
    traced, lowered = network.trace("encode")["encode"], network.lower("encode")["encode"]
    ours = measure.contraction_flops(traced.jaxpr)
    assert ours == pytest.approx(lowered.cost_analysis()["flops"], rel=0.3)


def test_psnr():
    black, grey = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 16, np.uint8)
    assert measure.psnr(black, grey) == pytest.approx(20 * math.log10(255 / 16))
    assert measure.psnr(grey, grey) == 99


def test_ceilings_and_memory_are_positive_numbers():
    found = measure.measure_ceilings(64)
    assert set(found) == {"flops_per_s", "bytes_per_s"}
    assert min(found.values()) > 0
    assert 50 < measure.host_memory_mib() < 1 << 20
    assert measure.peak_memory_mib() > 50


def shapes(config):
    size = config.image_size
    arguments = (jnp.zeros((1, size, size, 3)), jnp.zeros((1, 2)), frontal_camera()[None])
    return jax.eval_shape(RTGaze(config).init, jax.random.key(0), *arguments)


def test_other_resolutions_keep_the_parameters():
    small = preset("small")
    half = benchmark.at_resolution(small, 256)
    assert dataclasses.replace(half, preset="small_256", eyes=preset("small_256").eyes) == preset("small_256")
    assert half.eyes.patch == preset("small_256").eyes.patch
    assert benchmark.at_resolution(small, None) is small
    assert shapes(benchmark.at_resolution(TINY, 128)) == shapes(TINY)
    for size in (0, 100, -64):
        with pytest.raises(UserError, match=f"not {size}"):
            benchmark.at_resolution(small, size)


def test_random_parameters_have_no_idle_kernels():
    params = benchmark.random_params(SPECK)
    assert all(leaf.any() for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_fixed_inputs_are_fixed():
    first, second = benchmark.fixed_inputs(2, 64), benchmark.fixed_inputs(2, 64)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[0].dtype == np.uint8
    assert first[0].shape == (2, 64, 64, 3)
    assert 30 < first[0].std() < 100


def test_start_of_processes(tmp_path, monkeypatch):
    """Two real processes; the second finds the programs of the first."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    subject = benchmark.Subject(varied_params(SPECK), SPECK, "test")
    found = benchmark.start_times(subject, tmp_path)
    assert set(found) == {"cold_start_s", "second_start_s", "compile_s", "peak_memory_mib", "host_memory_mib"}
    assert min(found.values()) > 0
    assert found["compile_s"] < found["cold_start_s"]
    assert len(list((tmp_path / "rtgaze_jax" / "xla").iterdir())) >= 3
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_failing_process_is_one_line():
    with pytest.raises(FailureError, match=r"failed: ValueError: no luck$"):
        benchmark._first_line([sys.executable, "-c", "raise ValueError('no luck')"], {})


class Painter:
    """Stands in for a network: paints a brightness."""

    def __init__(self, value, dtype="bfloat16"):
        self.value, self.size, self.config = value, 64, dataclasses.replace(TINY, dtype=dtype)

    def redirect_images(self, images, gaze, points):
        if len(images) > 8:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return {"image": np.full(images.shape, self.value, np.uint8)}


def test_quality_is_the_worst_image():
    found = benchmark.measure_quality(Painter(100), Painter(101))
    assert found == {"bfloat16_psnr_db": pytest.approx(20 * math.log10(255)), "images": 2}


@pytest.mark.usefixtures("quick_compile")
def test_bfloat16_is_near_float32():
    subject = benchmark.Subject(varied_params(SPECK), SPECK, "test")
    fast, exact = benchmark._quality_pair(subject, Painter(0, "float32"))
    assert (fast.config.dtype, exact.config.dtype) == ("bfloat16", "float32")
    assert 30 < benchmark.measure_quality(fast, exact)["bfloat16_psnr_db"] < 99


def test_throughput_survives_too_large_a_batch():
    found = benchmark.measure_throughput(Painter(0), (1, 8, 32), budget=0)
    assert found["1"] > 0
    assert found["8"] > 0
    assert found["32"] is None


def encode_flops(unasked=()):
    """Of encoding one crop with the preset tiny, without some of the pose head's answers: XLA's own count."""
    config = preset("tiny")

    def encode(params, image):
        found = RTGaze(config).apply({"params": params}, image.astype(jnp.float32) / 127.5 - 1, method="encode")
        return found | {"pose": {name: value for name, value in found["pose"].items() if name not in unasked}}

    image = np.zeros((1, config.image_size, config.image_size, 3), np.uint8)
    return jax.jit(encode).lower(benchmark.random_params(config), image).cost_analysis()["flops"]


@pytest.mark.usefixtures("quick_compile")
def test_command(tmp_path, capsys, monkeypatch):
    """All figures but those that other tests have: processes, the other precision, larger batches."""
    ceilings = {"flops_per_s": 1e11, "bytes_per_s": 1e10}
    monkeypatch.setattr(measure, "measure_ceilings", lambda: ceilings)
    before = jax.config.values["jax_compilation_cache_dir"]
    command = ["benchmark", "--preset", "tiny", "--seconds", "0.05", "--batch", "1"]
    command += ["--parts", "latency", "sustained", "roofline", "throughput"]
    command += ["--json", f"{tmp_path}/a.json", "--markdown", f"{tmp_path}/a.md"]
    assert cli.main([*command, "--debug"]) == 0
    assert jax.config.values["jax_compilation_cache_dir"] == before
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["preset"] == "tiny"
    assert report["resolution"] == 64
    assert report["jax_version"] == jax.__version__
    assert report["compile_s"] > 0
    for stage in ("encode", "redirect", "render"):
        found = report["stages"][stage]
        assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    for whole in ("end_to_end", "device_only", "staged"):
        assert 0 < report[whole]["p50_ms"] <= report[whole]["p99_ms"]
    assert set(report["throughput"]) == {"1"}
    assert report["sustained"]["new_gaze"]["fps"] > 0
    assert report["sustained"]["new_view"]["p99_over_p50"] >= 1
    parts = sum(report["roofline"][stage]["flops"] for stage in ("encode", "redirect", "render"))
    unasked = encode_flops() - encode_flops(unasked=("rotation", "position", "gaze"))
    assert unasked > 0.05 * parts  # the fused program needs neither the head's pose nor where the source looks
    assert report["roofline"]["fused"]["flops"] == pytest.approx(parts - unasked, rel=0.01)
    printed = capsys.readouterr().out
    assert "speed does not depend on their values" in printed
    page = (tmp_path / "a.md").read_text()
    for what, figure in benchmark_report.lines(report):
        assert f"| {what} | {figure} |" in page
        assert printed.count(figure) >= 1
    row = benchmark_report.comparison([report]).splitlines()[-1]
    assert row.startswith("| tiny | 64 | ")
    assert " - " in row  # not measured


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["weights.safetensors", "--preset", "tiny"], "not both"),
        (["--preset", "huge"], "invalid choice: 'huge'"),
        (["--preset", "tiny", "--resolution", "65"], "multiple of 64"),
        (["--batch", "64"], "from 1 to 32, not 64"),
        (["--seconds", "0"], "above 0"),
        (["--parts", "everything"], "not everything"),
        (["missing.safetensors"], "no weights at missing.safetensors"),
    ],
)
def test_bad_arguments_are_one_line(options, message, capsys):
    assert cli.main(["benchmark", *options]) == 2
    assert message in capsys.readouterr().err


def test_weights_of_another_network(tmp_path, capsys):
    io.save(tmp_path / "a.safetensors", {"a": np.zeros(3)}, {"config": {"unknown": 1}})
    assert cli.main(["benchmark", str(tmp_path / "a.safetensors")]) == 2
    assert "another network" in capsys.readouterr().err


WRITER = """
import json, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
path.write_text(json.dumps({"preset": "a", "resolution": 64, "device": "d"}))
time.sleep(float(sys.argv[2]))
sys.exit(int(sys.argv[3]))
"""


def test_sweep_survives_rows_that_fail_or_take_too_long(tmp_path):
    source = Path(benchmark.__file__).parents[2] / "experiments" / "benchmark_inference.py"
    sweep = runpy.run_path(str(source))
    result = tmp_path / "row.json"
    result.write_text('{"preset": "stale"}')

    def row(seconds, code, limit=None):
        return sweep["measure"]([sys.executable, "-c", WRITER, str(result), seconds, code], result, limit)

    whole = row("0", "0")
    assert whole == {"preset": "a", "resolution": 64, "device": "d"}
    assert row("0", "3") == whole | {"failed": "exit code 3"}
    assert row("60", "0", limit=3.0) == whole | {"failed": "stopped after 3 s"}
    assert sweep["measure"]([sys.executable, "-c", "raise SystemExit(2)"], result, None) == {"failed": "exit code 2"}
    table = benchmark_report.comparison([whole]).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert table[-1].startswith("| a | 64 | - |")
