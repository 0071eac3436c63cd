"""The field (lookup in three planes and decoder) by XLA and by the Pallas kernel, on an NVIDIA GPU.

  python experiments/benchmark_kernels.py --json kernels.json            # about 80 s on an H100
  python experiments/benchmark_kernels.py --presets small --batches 1

First every launch of the kernel at batch 1 in bfloat16, then the fastest ones in float32, in whole renders and at the
other batch sizes. Rows are printed as they come:

  pass      forward (densities and colours), density (alone), gradient (forward and backward, planes and weights), rays
            (the two-pass render of all rays, without super-resolution)
  launch    of the kernel: points per block x warps per program x blocks per program; "atomic": the gradient's kernel
            adds up the planes' gradient itself, otherwise XLA does
  ms        median over --repeats of as many calls as fill 20 ms, queued without waiting and then waited for; inputs
            rotate over several sets; * where the host was hardly faster in queueing, so that the device may have waited
  of xla    time as a multiple of XLA's for the same inputs
  dtype     of the products; "planes16": bfloat16 and so are the planes, converted within the time
  error     |out - ref| / |ref|, the largest of all outputs. ref: XLA in float32 with full-precision products ("ref":
            that against float64 NumPy, a sample of points); for rays and batches XLA's result in the same types
  floor     the larger of: bytes that must pass the card's memory (inputs read once, outputs written once) over the
            bandwidth of a copy, and operations over the rate of a bfloat16 matrix product, both measured in this run

Points lie on cameras' rays, as in use; planes are float32, as the networks make them. A variant that fails prints the
first line of its error. After --limit seconds no more rows are begun.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.geometry.camera import RADIUS, orbit_camera
from rtgaze_jax.models.config import RenderConfig, preset
from rtgaze_jax.rendering import kernels
from rtgaze_jax.rendering.rays import camera_rays
from rtgaze_jax.rendering.triplane import EG3D_AXES, TRUE_AXES
from rtgaze_jax.rendering.volume import render_rays, stratified_depths

GRIDS = {"small": 128, "paper": 256}  # texels per side of a plane
FORWARD = [(64, 4, 1), (32, 2, 1), (64, 8, 1), (128, 8, 1), (128, 4, 1), (64, 2, 1), (128, 8, 4)]
BACKWARD = [(32, 4, 16), (64, 8, 16), (64, 4, 16), (32, 4, 64)]
ATOMIC = [(32, 4, 16), (64, 8, 16)]
SETS = 3  # of inputs: together more than a card's cache
SAMPLE = 4096  # points compared with NumPy


class Setting(NamedTuple):
    """Launches of both kernels, and who adds up the planes' gradient."""

    forward: tuple[int, int, int] = kernels.FORWARD
    backward: tuple[int, int, int] = kernels.BACKWARD
    atomic: bool = kernels.ATOMIC

    def describe(self, name: str) -> str:
        """What of it counts in a pass."""
        forward, backward = ("x".join(map(str, launch)) for launch in self[:2])
        return forward if name != "gradient" else backward + (" atomic" if self.atomic else "")


@dataclasses.dataclass(frozen=True)
class Case:
    """A size of the problem."""

    name: str
    batch: int

    @property
    def config(self) -> RenderConfig:
        """Of the preset."""
        return preset(self.name).render

    @property
    def axes(self) -> Any:
        """Which coordinates index each plane."""
        return TRUE_AXES if self.config.axes == "true" else EG3D_AXES

    @property
    def points(self) -> int:
        """Of one example and one pass."""
        return self.config.resolution**2 * self.config.fine

    def inputs(self, seed: int) -> tuple[Any, ...]:
        """Planes, points, parameters, gradients of densities and colours, rays; float32."""
        c, keys = self.config, jax.random.split(jax.random.key(seed), 8)
        planes = jax.random.normal(keys[0], (self.batch, 3, GRIDS[self.name], GRIDS[self.name], c.plane_channels))
        cameras = jnp.stack([orbit_camera(3.0 * i, 2.0 * i) for i in range(self.batch)])
        start, direction = (x.reshape(self.batch, -1, 3) for x in camera_rays(cameras, c.resolution))
        depths = stratified_depths(RADIUS + c.start, RADIUS + c.end, c.fine, keys[1], start.shape[:-1])
        points = (start[..., None, :] + direction[..., None, :] * depths[..., None]).reshape(self.batch, -1, 3)

        def dense(key: Any, inputs: int, outputs: int) -> dict[str, Any]:
            kernel = jax.random.normal(key, (inputs, outputs)) * inputs**-0.5
            return {"kernel": kernel, "bias": 0.1 * jax.random.normal(key, (outputs,))}

        params = {
            "Dense_0": dense(keys[2], c.plane_channels, c.hidden),
            "out": dense(keys[3], c.hidden, 1 + c.features),
        }
        shape = points.shape[:2]
        gradients = jax.random.normal(keys[4], shape), jax.random.normal(keys[5], (*shape, c.features))
        return planes, points, params, gradients, (start, direction)

    def function(self, name: str, dtype: str, setting: Setting | None) -> Callable:
        """A pass as a function of `inputs`, by the kernels as set, or by XLA (None)."""
        c, low = self.config, dtype == "planes16"
        dtype = "bfloat16" if low else dtype

        def evaluate(planes: Any, points: Any, params: Any, colours: int = c.features) -> Any:
            planes = planes.astype(jnp.bfloat16) if low else planes
            if setting is None:
                function = kernels.field if colours else kernels.density
                return function(planes, points, c.box, self.axes, params, dtype=dtype, implementation="xla")
            plan = kernels.make_plan(self.axes, colours, dtype, *setting)
            return kernels.fused(planes, points * (2 / c.box), params, plan)[: 2 if colours else 1]

        def gradient(planes: Any, points: Any, params: Any, gradients: Any, rays: Any) -> Any:
            values, pull = jax.vjp(lambda p, w: evaluate(p, points, w), planes, params)
            return values, pull(gradients)

        def rays(planes: Any, points: Any, params: Any, gradients: Any, rays: Any) -> Any:
            return render_rays(
                lambda x: evaluate(planes, x, params), *rays, RADIUS + c.start, RADIUS + c.end, c.coarse, c.fine, None,
                merge=c.merge, density_scale=c.density_scale,
                density=lambda x: jax.tree.leaves(evaluate(planes, x, params, 0))[0],
            )[:3]  # fmt: skip

        return {
            "forward": lambda planes, points, params, *_: evaluate(planes, points, params),
            "density": lambda planes, points, params, *_: jax.tree.leaves(evaluate(planes, points, params, 0)),
            "gradient": gradient,
            "rays": rays,
        }[name]

    def floor(self, name: str, bandwidth: float, rate: float) -> float:
        """Milliseconds that a pass (not "rays") cannot beat."""
        c, count = self.config, self.batch * self.points
        outputs = 1 if name == "density" else 1 + c.features
        texels = self.batch * 3 * GRIDS[self.name] ** 2 * c.plane_channels
        numbers = texels + count * (3 + outputs)
        operations = 2 * count * c.hidden * (c.plane_channels + outputs) + 24 * count * c.plane_channels
        if name == "gradient":
            numbers, operations = numbers + texels + count * outputs, 3 * operations
        return 1000 * max(4 * numbers / bandwidth, operations / rate)


def numpy_forward(case: Case, planes: np.ndarray, points: np.ndarray, params: Any) -> tuple[np.ndarray, np.ndarray]:
    """Densities and colours in float64, points [n, 3] of one example."""
    size, total = GRIDS[case.name], np.zeros((len(points), planes.shape[-1]))
    for plane, names in zip(planes, case.axes, strict=True):
        signed = (points[:, "xyz".index(n[-1])] * (-1.0 if n[0] == "-" else 1.0) for n in names)
        column, row = (((1 + x * 2 / case.config.box) * size - 1) / 2 for x in signed)
        for x in (np.floor(column), np.floor(column) + 1):
            for y in (np.floor(row), np.floor(row) + 1):
                inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
                weight = np.where(inside, (1 - np.abs(column - x)) * (1 - np.abs(row - y)), 0) / 3
                total += weight[:, None] * plane[np.where(inside, y, 0).astype(int), np.where(inside, x, 0).astype(int)]
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    hidden = np.logaddexp(total @ w["Dense_0"]["kernel"] + w["Dense_0"]["bias"], 0)
    out = hidden @ w["out"]["kernel"] + w["out"]["bias"]
    return out[:, 0], 1.002 / (1 + np.exp(-out[:, 1:])) - 0.001


@jax.jit
def relative(actual: Any, expected: Any) -> Any:
    """The largest relative error of any array in a tree; NaN if anything is."""

    def error(a: Any, b: Any) -> Any:
        return jnp.linalg.norm(jnp.ravel(a - b)) / jnp.linalg.norm(jnp.ravel(b))

    return jnp.max(jnp.stack(jax.tree.leaves(jax.tree.map(error, actual, expected))))


def milliseconds(function: Callable, sets: list[Any], repeats: int, fill: float = 20.0) -> tuple[float, float]:
    """Of one call, on the device and on the host that queues it: medians over repeats of as many calls as take `fill`
    milliseconds."""

    def several(calls: int) -> tuple[float, float]:
        began = time.perf_counter()
        last: list[Any] = []
        for i in range(calls):  # the outputs of one call are freed when the next has been queued
            last = [function(*sets[i % len(sets)])]
        queued = time.perf_counter()
        jax.block_until_ready(last)
        return 1000 * (time.perf_counter() - began) / calls, 1000 * (queued - began) / calls

    several(len(sets))
    calls = max(1, min(100, round(fill / several(len(sets))[0])))
    device, host = zip(*(several(calls) for _ in range(repeats)), strict=True)
    return statistics.median(device), statistics.median(host)


def ceilings() -> tuple[float, float]:
    """Bytes a second of a copy (read and written), operations a second of a bfloat16 matrix product."""
    array = jax.random.normal(jax.random.key(0), (1 << 28,))
    matrix = jax.random.normal(jax.random.key(1), (8192, 8192), jnp.bfloat16)
    copy, _ = milliseconds(jax.jit(lambda x: -x), [(array,)], 5)
    product, _ = milliseconds(jax.jit(lambda x: x @ x), [(matrix,)], 5)
    return 2000 * array.nbytes / copy, 2000 * 8192**3 / product


class Bench:
    """Compiles on several threads, times on one, prints and collects rows."""

    def __init__(self, repeats: int, limit: float):
        self.repeats, self.rows, self._until = repeats, [], time.monotonic() + limit  # type: ignore[var-annotated]
        self._pool = ThreadPoolExecutor(12)
        self._compiled: dict[tuple, Future] = {}
        self.ceilings = ceilings()

    def compile(self, case: Case, name: str, dtype: str, setting: Setting | None) -> Future:
        """The compiled pass, soon. float32 products are exact."""
        key = (case, name, dtype, setting)

        def work() -> Any:
            if time.monotonic() > self._until:
                raise TimeoutError("left out, the time is up")
            with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
                shapes = jax.eval_shape(lambda: case.inputs(0))
                return jax.jit(case.function(name, dtype, setting)).lower(*shapes).compile()

        if key not in self._compiled:
            self._compiled[key] = self._pool.submit(work)
        return self._compiled[key]

    def wait(self) -> None:
        """Until nothing is being compiled: tracing on other threads would disturb timing."""
        for future in self._compiled.values():
            future.exception()

    def row(
        self, case: Case, name: str, dtype: str, setting: Setting | None, sets: list[Any], reference: Any, xla: Any
    ) -> float | None:
        """Times one variant; its milliseconds, None if it failed. `xla`: XLA's milliseconds."""
        launch = "xla" if setting is None else setting.describe(name)
        row: dict[str, Any] = dict(preset=case.name, batch=case.batch, dtype=dtype, launch=launch) | {"pass": name}
        head = f"{case.name:5} {case.batch:2} {dtype:8} {name:8} {launch:14}"
        try:
            function = self.compile(case, name, dtype, setting).result()
            if time.monotonic() > self._until:
                raise TimeoutError("left out, the time is up")
            row["error"] = None if reference is None else float(relative(function(*sets[0]), reference))
            row["ms"], row["host_ms"] = milliseconds(function, sets, self.repeats)
        except Exception as failure:  # a variant may not fit the card; the others still count
            row["failure"] = f"{type(failure).__name__}: {failure}".splitlines()[0][:160]
            print(head, row["failure"], flush=True)
        else:
            row["of_xla"] = row["ms"] / xla if xla else None
            row["floor_ms"] = None if name == "rays" else case.floor(name, *self.ceilings)
            print(
                f"{head} {row['ms']:8.3f} ms{'*' if row['host_ms'] > 0.8 * row['ms'] else ' '}",
                f"{row['of_xla']:5.2f} of xla" if xla else " " * 12,
                "" if row["error"] is None else f" error {row['error']:.1e}",
                "" if name == "rays" else f" floor {row['floor_ms']:.3f}",
                flush=True,
            )
        self.rows.append(row)
        return row.get("ms")

    def sweep(
        self, case: Case, name: str, dtype: str, settings: list[Setting], sets: list[Any], reference: Any
    ) -> Setting:
        """XLA and some settings of the kernel; the fastest of these."""
        xla = self.row(case, name, dtype, None, sets, reference, None)
        if reference is None and xla is not None:
            reference = self.compile(case, name, dtype, None).result()(*sets[0])
        times = {s: self.row(case, name, dtype, s, sets, reference, xla) for s in settings}
        return min(settings, key=lambda s: times[s] or float("inf"))


def run(bench: Bench, presets: list[str], batches: list[int]) -> None:
    """All rows, in two waves: what is to be chosen, then what is chosen."""
    forwards = [Setting(forward=launch) for launch in FORWARD]
    backwards = [Setting(backward=launch) for launch in BACKWARD]
    backwards += [Setting(backward=launch, atomic=True) for launch in ATOMIC]
    sweeps = [("forward", forwards), ("gradient", backwards)]
    for name in presets:
        bench.compile(Case(name, 1), "gradient", "float32", None)
        for what, settings in sweeps:
            for setting in (None, *settings):
                bench.compile(Case(name, 1), what, "bfloat16", setting)
    bench.wait()
    best, references = {}, {}
    for name in presets:
        case = Case(name, 1)
        sets = [case.inputs(seed) for seed in range(SETS)]
        references[name] = exact = bench.compile(case, "gradient", "float32", None).result()(*sets[0])
        planes, points, params = jax.device_get(sets[0][:3])
        chosen = np.random.default_rng(0).choice(case.points, SAMPLE, replace=False)
        expected = numpy_forward(case, planes[0], points[0, chosen], params)
        error = float(relative(tuple(x[0, chosen] for x in exact[0]), jax.tree.map(np.float32, expected)))
        print(f"{name:5}  1 float32  ref      error {error:.1e} against float64", flush=True)
        forward = bench.sweep(case, "forward", "bfloat16", forwards, sets, exact[0])
        backward = bench.sweep(case, "gradient", "bfloat16", backwards, sets, exact)
        best[name] = backward._replace(forward=forward.forward)
    later = [(Case(name, 1), what, "float32") for name in presets for what in ("forward", "gradient")]
    later += [(Case(name, 1), what, "bfloat16") for name in presets for what in ("density", "rays")]
    later += [(Case(name, 1), what, "planes16") for name in presets for what in ("forward", "rays")]
    later += [
        (Case(name, batch), what, "bfloat16")
        for batch in batches if batch > 1 for name in presets for what in ("forward", "gradient", "rays")
    ]  # fmt: skip
    for case, what, dtype in later:
        for setting in (None, best[case.name]):
            bench.compile(case, what, dtype, setting)
    bench.wait()
    held: Any = (None, [])
    for case, what, dtype in later:
        if held[0] != case:
            held = (None, [])  # frees the last ones first
            held = (case, [case.inputs(seed) for seed in range(SETS if case.batch == 1 else 1)])
        exact = references[case.name]
        reference = (
            {"forward": exact[0], "gradient": exact, "density": [exact[0][0]]}.get(what) if case.batch == 1 else None
        )
        bench.sweep(case, what, dtype, [best[case.name]], held[1], reference)
    print(
        "fastest:",
        {name: f"forward {s.describe('forward')}, backward {s.describe('gradient')}" for name, s in best.items()},
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["paper", "small"], choices=sorted(GRIDS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--limit", type=float, default=75, metavar="SECONDS")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    bench = Bench(args.repeats, args.limit)
    device = jax.devices()[0]
    bandwidth, rate = bench.ceilings
    measured = f"copy {bandwidth / 1e12:.2f} TB/s, product {rate / 1e12:.0f} TFLOP/s"
    print(f"{device.device_kind}, jax {jax.__version__}: {measured}", flush=True)
    if not kernels.on_nvidia():
        print("no NVIDIA GPU: the kernel would be interpreted", file=sys.stderr)
        return 2
    run(bench, args.presets, args.batches)
    if args.json:
        result = {
            "device": device.device_kind,
            "jax": jax.__version__,
            "copy_bytes_s": bandwidth,
            "product_flop_s": rate,
        }
        args.json.write_text(json.dumps(result | {"rows": bench.rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
