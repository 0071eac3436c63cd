"""How fast a network is on this machine: start, latency, frames a second, throughput, memory, and the share of what the
device could do.

Every figure is measured here and now, with fixed inputs: smooth random pictures, so no face is needed. Without a
weights file the parameters are drawn at random; the time that a network takes does not depend on their values.
"""

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import rtgaze_jax
from rtgaze_jax.errors import FailureError, UserError
from rtgaze_jax.geometry.camera import frontal_camera, orbit_camera
from rtgaze_jax.inference import measure
from rtgaze_jax.inference.network import BUCKETS, FUSED, STAGES, Network, read_config, use_compilation_cache
from rtgaze_jax.models.config import ModelConfig, preset, to_dict
from rtgaze_jax.models.layers import initialize
from rtgaze_jax.models.rtgaze import RTGaze
from rtgaze_jax.weights import io

PARTS = ("start", "latency", "sustained", "roofline", "quality", "throughput")
"""What can be measured, in the order in which it is."""
_UNIT = 64  # image sizes are multiples of this many pixels
_QUEUED = 20  # calls in a row for the device's own time
_COMPARED = 2  # images of the quality guard


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured: parameters, their configuration, and where they come from."""

    params: Mapping[str, Any]
    config: ModelConfig
    origin: str


def load_subject(weights: str | os.PathLike | None, name: str | None, resolution: int | None) -> Subject:
    """The network of a weights file, or a preset with random parameters, at a resolution (default: its own).

    Raises UserError for weights of another network or an impossible resolution.
    """
    if name:
        config = at_resolution(preset(name), resolution)
        return Subject(random_params(config), config, "drawn at random (speed does not depend on their values)")
    path = Path(weights or io.DEFAULT)
    params, header = io.load(path)
    return Subject(params, at_resolution(read_config(header), resolution), path.name)


def at_resolution(config: ModelConfig, size: int | None) -> ModelConfig:
    """The same parameters for images of another size: whatever counts pixels grows or shrinks with it."""
    if size is None or size == config.image_size:
        return config
    if size < _UNIT or size % _UNIT:
        raise UserError(f"the resolution must be a multiple of {_UNIT} pixels, not {size}")
    part = size / config.image_size
    rows, columns = config.eyes.patch
    eyes = dataclasses.replace(
        config.eyes, crop=round(config.eyes.crop * part), patch=(round(rows * part), round(columns * part))
    )
    render = dataclasses.replace(config.render, resolution=round(config.render.resolution * part))
    encoder = dataclasses.replace(config.encoder, pool=max(1, round(config.encoder.pool * part)))
    return dataclasses.replace(config, image_size=size, encoder=encoder, render=render, eyes=eyes)


def random_params(config: ModelConfig) -> dict[str, Any]:
    """Parameters drawn as for training; kernels that training starts at zero are small random numbers here."""
    size = config.image_size
    image, gaze, camera = jnp.zeros((1, size, size, 3)), jnp.zeros((1, 2)), frontal_camera()[None]
    params = initialize(RTGaze(config), jax.random.key(0), image, gaze, camera)
    generator = np.random.default_rng(0)

    def filled(leaf: np.ndarray) -> np.ndarray:
        idle = leaf.ndim > 1 and not leaf.any()
        return 0.02 * generator.standard_normal(leaf.shape, np.float32) if idle else leaf

    return jax.tree.map(filled, params)


def fixed_inputs(count: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smooth random crops u8[count, size, size, 3], gazes f32[count, 2] (radians), eye points f32[count, 2, 2]."""
    draw = np.random.default_rng(0)
    coarse = draw.uniform(-1, 1, (count, 16, 16, 3)).astype(np.float32)
    image = jax.image.resize(jnp.asarray(coarse), (count, size, size, 3), "cubic")
    gaze = draw.uniform(-0.3, 0.3, (count, 2)).astype(np.float32)
    points = np.tile(np.array([[0.6, 0.45], [0.4, 0.45]], np.float32), (count, 1, 1))
    return np.asarray(jnp.clip((image + 1) * 127.5, 0, 255).astype(jnp.uint8)), gaze, points


def start_times(subject: Subject, folder: Path) -> dict[str, float]:
    """Seconds from starting a process to its first image: without compiled programs, and once more with those that the
    first process left in `folder`.

    Imports, weights, the face detector and compilation are part of it; the picture is a crop, so finding a face in a
    photo and pasting the eyes back are not. compile_s: of encode and look, which a photo needs, and one run of encode.
    Memory: peaks of the second process, on the device (or the host, where that is all there is) and on the host. Raises
    FailureError if a process fails.
    """
    weights = folder / "weights.safetensors"
    io.save(weights, subject.params, {"config": to_dict(subject.config), "frame": subject.config.frame})
    environment = os.environ | {"XDG_CACHE_HOME": str(folder), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    source = str(Path(rtgaze_jax.__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (source, environment.get("PYTHONPATH"))))
    code = f"from {__name__} import first_image; first_image({str(weights)!r})"
    first, second = (_first_line([sys.executable, "-c", code], environment) for _ in range(2))
    weights.unlink()
    times = {"cold_start_s": first["seconds"], "second_start_s": second["seconds"], "compile_s": first["compile_s"]}
    return times | {key: second[key] for key in ("peak_memory_mib", "host_memory_mib")}


def _first_line(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, float]:
    """The JSON object that a process prints first, with `seconds` since its start."""
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
        if process.wait() != 0 or not line:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise FailureError(f"the process that measures a cold start failed: {last}")
    return json.loads(line) | {"seconds": seconds}


def first_image(weights: str) -> None:
    """Makes one image as a fresh process would, and prints what that took: see start_times."""
    from rtgaze_jax.inference.face import find_faces
    from rtgaze_jax.inference.redirector import load

    network = load(weights).network
    images, gaze, points = fixed_inputs(1, network.size)
    find_faces(images[0])
    began = time.perf_counter()
    features = network.encode(images)
    compile_s = time.perf_counter() - began
    np.asarray(network.look(features, gaze, points))
    memory = {"peak_memory_mib": measure.peak_memory_mib(), "host_memory_mib": measure.host_memory_mib()}
    print(json.dumps({"compile_s": compile_s, **memory}), flush=True)


def measure_latency(network: Network, budget: float) -> dict[str, Any]:
    """One face: each stage with its inputs on the device, the fused program from host to host (`end_to_end`) and on the
    device alone, and the three stages from host to host (`staged`). queued_ms: without waiting between calls."""
    images, gaze, points = fixed_inputs(1, network.size)
    camera = np.asarray(frontal_camera())[None]
    on_device = jax.device_put((images, gaze, points, camera))
    features = network.encode(on_device[0])
    scene = network.redirect(features, *on_device[1:3])

    def staged() -> np.ndarray:
        found = network.encode(images)
        return np.asarray(network.render(found, network.redirect(found, gaze, points), camera)["image"])

    def both(call: measure.Call) -> dict[str, float]:
        found = measure.latency(measure.call_seconds(call, budget, least=5))
        count = min(_QUEUED, max(3, int(budget * 1000 / found["p50_ms"])))
        return found | {"queued_ms": 1000 * measure.queued_seconds(call, count)}

    def host(call: measure.Call) -> dict[str, float]:
        return measure.latency(measure.call_seconds(call, budget, least=5))

    return {
        "stages": {
            "encode": both(lambda: network.encode(on_device[0])),
            "look": both(lambda: network.look(features, *on_device[1:3])),
            "redirect": both(lambda: network.redirect(features, *on_device[1:3])),
            "render": both(lambda: network.render(features, scene, on_device[3])),
        },
        "end_to_end": host(lambda: _to_host(network, images, gaze, points)),
        "device_only": both(lambda: network.redirect_images(on_device[0], gaze, points)),
        "staged": host(staged),
    }


def _to_host(network: Network, *inputs: np.ndarray) -> np.ndarray:
    return np.asarray(network.redirect_images(*inputs)["image"])


def measure_sustained(network: Network, seconds: float) -> dict[str, Any]:
    """Frames of an encoded face, one after the other, each fetched to the host: a new gaze in every frame (redirect and
    render), and a new view in every frame (render alone)."""
    images, _, points = jax.device_put(fixed_inputs(1, network.size))
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False, dtype=np.float32)
    gazes = 0.3 * np.stack([np.sin(angle), np.cos(angle)], -1)[:, None]
    cameras = np.stack([np.asarray(orbit_camera(20 * c, 10 * s)) for s, c in gazes[:, 0] / 0.3])[:, None]
    features = network.encode(images)
    scene = network.redirect(features, gazes[0], points)
    count = 0

    def new_gaze() -> np.ndarray:
        nonlocal count
        count += 1
        moved = network.redirect(features, gazes[count % 64], points)
        return np.asarray(network.render(features, moved, cameras[0])["image"])

    def new_view() -> np.ndarray:
        nonlocal count
        count += 1
        return np.asarray(network.render(features, scene, cameras[count % 64])["image"])

    return {
        name: measure.sustained(measure.call_seconds(call, seconds, least=5, most=1_000_000))
        for name, call in (("new_gaze", new_gaze), ("new_view", new_view))
    }


def measure_throughput(network: Network, batches: Sequence[int], budget: float) -> dict[str, float | None]:
    """Images a second of the fused program from host to host for each batch size; None where memory did not suffice."""
    rates: dict[str, float | None] = {}
    for batch in batches:
        inputs = fixed_inputs(batch, network.size)
        try:
            call = functools.partial(_to_host, network, *inputs)
            times = measure.call_seconds(call, budget, least=3)
            rates[str(batch)] = batch / float(np.median(times))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            rates[str(batch)] = None
    return rates


def measure_roofline(network: Network, seconds: Mapping[str, float]) -> dict[str, Any]:
    """The device's ceilings, and the share of them that each program reaches. `seconds`: of each program, one call."""
    ceilings = measure.measure_ceilings()
    found: dict[str, Any] = {"ceilings": ceilings}
    traced, lowered = network.trace(*seconds), network.lower(*seconds)
    for name, taken in seconds.items():
        found[name] = measure.roofline(*measure.cost(lowered[name], traced[name].jaxpr), ceilings, taken)
    return found


def measure_quality(fast: Network, exact: Network) -> dict[str, Any]:
    """How near the fast network comes to the exact one on fixed inputs: the lowest PSNR in dB."""
    inputs = fixed_inputs(_COMPARED, fast.size)
    values = []
    for i in range(_COMPARED):
        one = [x[i : i + 1] for x in inputs]
        with _full_precision():
            reference = _to_host(exact, *one)
        values.append(measure.psnr(_to_host(fast, *one), reference))
    return {f"{fast.config.dtype}_psnr_db": min(values), "images": _COMPARED}


def _full_precision() -> contextlib.AbstractContextManager:
    """GPUs and TPUs shorten the inputs of float32 matrix products unless told otherwise."""
    return jax.default_matmul_precision("highest")


def device_name() -> str:
    """What the programs run on."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores, {models[0] if models else 'unknown processor'}"


@contextlib.contextmanager
def _own_cache() -> Iterator[Path]:
    """A folder that keeps compiled programs for this run only, so that compilation is really measured."""
    before = jax.config.values.get("jax_compilation_cache_dir")
    with tempfile.TemporaryDirectory() as folder:
        use_compilation_cache(folder)
        compilation_cache.reset_cache()  # it looks for its folder once only
        try:
            yield Path(folder)
        finally:
            jax.config.update("jax_compilation_cache_dir", before)
            compilation_cache.reset_cache()


def run(
    subject: Subject,
    *,
    batches: Sequence[int] = BUCKETS,
    seconds: float | None = None,
    parts: Sequence[str] = PARTS,
    profile: str | os.PathLike | None = None,
    progress: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """Measures the parts and returns the report; `progress` gets it whenever something was added.

    Args:
        batches: of throughput, 1 to 32.
        seconds: of sustained frames; latencies take a fifth of it each, at most 1. Default: 10, or 3 on processors.
        parts: see PARTS.
        profile: folder for a trace of a few frames (xprof, TensorBoard).
    """
    seconds = seconds or (3.0 if jax.default_backend() == "cpu" else 10.0)
    report: dict[str, Any] = {
        "device": device_name(),
        "preset": subject.config.preset,
        "resolution": subject.config.image_size,
        "weights": subject.origin,
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(subject.params)),
        "jax_version": jax.__version__,
        "rtgaze_version": rtgaze_jax.__version__,
    }

    def add(found: Mapping[str, Any]) -> None:
        report.update(found)
        progress(report)

    with _own_cache() as folder:
        if "start" in parts:
            add(start_times(subject, folder))
        network = Network(subject.params, subject.config)
        began = time.perf_counter()
        network.warm_up()
        report.setdefault("compile_s", time.perf_counter() - began)
        add({"dtype": network.config.dtype})
        with ThreadPoolExecutor() as pool:  # everything else, before anything is timed
            waiting = [pool.submit(network.warm_up, FUSED)]
            if "throughput" in parts:
                sizes = {min(b for b in BUCKETS if b >= batch) for batch in batches}
                waiting += [pool.submit(network.warm_up, FUSED, batch=size) for size in sizes - {1}]
            pair = pool.submit(_quality_pair, subject, network) if "quality" in parts else None
        for one in waiting:
            one.result()
        budget = min(seconds / 5, 1.0)
        if {"latency", "roofline"} & set(parts):
            add(measure_latency(network, budget))
        if profile:
            _profile(network, profile)
        if "sustained" in parts:
            add({"sustained": measure_sustained(network, seconds)})
        if "roofline" in parts:
            taken = {name: report["stages"][name]["queued_ms"] / 1000 for name in STAGES}
            add({"roofline": measure_roofline(network, taken | {FUSED: report["device_only"]["queued_ms"] / 1000})})
        if pair:
            add({"quality": measure_quality(*pair.result())})
        if "throughput" in parts:
            add({"throughput": measure_throughput(network, batches, budget)})
    return report


def _quality_pair(subject: Subject, network: Network) -> tuple[Network, Network]:
    """The network in bfloat16, and in float32 with matrix products in full precision; both compiled."""
    same = network.config.dtype == "bfloat16"
    fast = network if same else Network(subject.params, subject.config, "bfloat16")
    exact = Network(subject.params, subject.config, "float32")
    with _full_precision():
        exact.warm_up(FUSED)
    if not same:
        fast.warm_up(FUSED)
    return fast, exact


def _profile(network: Network, folder: str | os.PathLike) -> None:
    images, gaze, points = fixed_inputs(1, network.size)
    camera = np.asarray(frontal_camera())[None]
    with jax.profiler.trace(os.fspath(folder)):
        for _ in range(5):
            features = network.encode(images)
            out = network.render(features, network.redirect(features, gaze, points), camera)
            jax.block_until_ready((out, network.redirect_images(images, gaze, points)))
