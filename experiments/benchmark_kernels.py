"""The field (lookup in three planes and decoder) by XLA and by the Pallas kernel, on an NVIDIA GPU.

  python experiments/benchmark_kernels.py --json kernels.json

First some launches of the kernel at batch 1 in bfloat16, then the one in use (kernels.LAUNCH) in float32, for density
alone, in whole renders and at the other batch sizes. Rows are printed as they come:

  pass      forward (densities and colours), density (alone), rays (the two-pass render of all rays, without
            super-resolution)
  launch    of the kernel: points x warps per program
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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rtgaze_jax.geometry.camera import RADIUS, orbit_camera
from rtgaze_jax.models.config import RenderConfig, preset
from rtgaze_jax.rendering import kernels
from rtgaze_jax.rendering.rays import camera_rays
from rtgaze_jax.rendering.triplane import EG3D_AXES, TRUE_AXES
from rtgaze_jax.rendering.volume import render_rays, stratified_depths

PRESETS = ("small", "paper")
LAUNCHES = [kernels.LAUNCH, (64, 4), (128, 4), (64, 2)]
SETS = 3  # of inputs: together more than a card's cache
SAMPLE = 4096  # points compared with NumPy


Launch = tuple[int, int]


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
    def grid(self) -> int:
        """Texels per side of a plane."""
        whole = preset(self.name)
        return whole.image_size // (whole.encoder.pool * whole.encoder.stride)

    @property
    def points(self) -> int:
        """Of one example and one pass."""
        return self.config.resolution**2 * self.config.fine

    def inputs(self, seed: int) -> tuple[Any, ...]:
        """Planes, points, parameters, rays; float32."""
        c, keys = self.config, jax.random.split(jax.random.key(seed), 4)
        planes = jax.random.normal(keys[0], (self.batch, 3, self.grid, self.grid, c.plane_channels))
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
        return planes, points, params, (start, direction)

    def function(self, name: str, dtype: str, launch: Launch | None) -> Callable:
        """A pass as a function of `inputs`, by the kernel as launched, or by XLA (None)."""
        c, low = self.config, dtype == "planes16"
        dtype = "bfloat16" if low else dtype
        options = kernels.Options(c.box, self.axes, dtype=dtype, implementation="xla")

        def evaluate(planes: Any, points: Any, params: Any, colours: int = c.features) -> Any:
            planes = planes.astype(jnp.bfloat16) if low else planes
            if launch is None:
                function = kernels.field if colours else kernels.density
                return function(planes, points, params, options)
            plan = kernels.make_plan(self.axes, colours, dtype, launch)
            densities, found = kernels.fused(planes, points * (2 / c.box), params, plan)
            return (densities, found) if colours else densities

        def rays(planes: Any, points: Any, params: Any, rays: Any) -> Any:
            return render_rays(
                lambda x: evaluate(planes, x, params), *rays, RADIUS + c.start, RADIUS + c.end, c.coarse, c.fine, None,
                merge=c.merge, density_scale=c.density_scale, density=lambda x: evaluate(planes, x, params, 0),
            )[:3]  # fmt: skip

        return {
            "forward": lambda planes, points, params, _: evaluate(planes, points, params),
            "density": lambda planes, points, params, _: evaluate(planes, points, params, 0),
            "rays": rays,
        }[name]

    def floor(self, name: str, bandwidth: float, rate: float) -> float:
        """Milliseconds that a pass (not "rays") cannot beat."""
        c, count = self.config, self.batch * self.points
        outputs = 1 if name == "density" else 1 + c.features
        texels = self.batch * 3 * self.grid**2 * c.plane_channels
        numbers = texels + count * (3 + outputs)
        operations = 2 * count * c.hidden * (c.plane_channels + outputs) + 24 * count * c.plane_channels
        return 1000 * max(4 * numbers / bandwidth, operations / rate)


def numpy_forward(case: Case, planes: np.ndarray, points: np.ndarray, params: Any) -> tuple[np.ndarray, np.ndarray]:
    """Densities and colours in float64, points [n, 3] of one example."""
    size, total = case.grid, np.zeros((len(points), planes.shape[-1]))
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

    def compile(self, case: Case, name: str, dtype: str, launch: Launch | None) -> Future:
        """The compiled pass, soon. float32 products are exact."""
        key = (case, name, dtype, launch)

        def work() -> Any:
            if time.monotonic() > self._until:
                raise TimeoutError("left out, the time is up")
            with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
                shapes = jax.eval_shape(lambda: case.inputs(0))
                return jax.jit(case.function(name, dtype, launch)).lower(*shapes).compile()

        if key not in self._compiled:
            self._compiled[key] = self._pool.submit(work)
        return self._compiled[key]

    def wait(self) -> None:
        """Until nothing is being compiled: tracing on other threads would disturb timing."""
        for future in self._compiled.values():
            future.exception()

    def row(
        self, case: Case, name: str, dtype: str, launch: Launch | None, sets: list[Any], reference: Any, xla: Any
    ) -> float | None:
        """Times one variant; its milliseconds, None if it failed. `xla`: XLA's milliseconds."""
        by = "x".join(map(str, launch)) if launch else "xla"
        row: dict[str, Any] = dict(preset=case.name, batch=case.batch, dtype=dtype, launch=by) | {"pass": name}
        head = f"{case.name:5} {case.batch:2} {dtype:8} {name:8} {by:6}"
        try:
            function = self.compile(case, name, dtype, launch).result()
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

    def sweep(self, case: Case, name: str, dtype: str, launches: list[Launch], sets: list[Any], reference: Any) -> None:
        """XLA and some launches of the kernel."""
        xla = self.row(case, name, dtype, None, sets, reference, None)
        if reference is None and xla is not None:
            reference = self.compile(case, name, dtype, None).result()(*sets[0])
        for launch in launches:
            self.row(case, name, dtype, launch, sets, reference, xla)


def run(bench: Bench, presets: list[str], batches: list[int]) -> None:
    """All rows. Everything is compiled before anything is timed."""
    found = [("forward", "bfloat16", LAUNCHES)]
    found += [
        (what, dtype, [kernels.LAUNCH])
        for what, dtype in (
            ("density", "bfloat16"), ("rays", "bfloat16"), ("forward", "float32"), ("forward", "planes16"),
            ("rays", "planes16"),
        )
    ]  # fmt: skip
    more = [("forward", "bfloat16", [kernels.LAUNCH]), ("rays", "bfloat16", [kernels.LAUNCH])]
    rows = [(Case(name, 1), *row) for name in presets for row in found]
    rows += [(Case(name, batch), *row) for batch in batches if batch > 1 for name in presets for row in more]
    for case, what, dtype, launches in rows:
        for launch in (None, *launches):
            bench.compile(case, what, dtype, launch)
    bench.wait()
    held, sets, exact = None, [], None
    for case, what, dtype, launches in rows:
        if held != case:
            sets, exact = [], None  # frees the last ones first
            held, sets = case, [case.inputs(seed) for seed in range(SETS if case.batch == 1 else 1)]
            if case.batch == 1:
                exact = bench.compile(case, "forward", "float32", None).result()(*sets[0])
                compare(case, sets[0], exact)
        reference = None if exact is None or what == "rays" else exact if what == "forward" else exact[0]
        bench.sweep(case, what, dtype, launches, sets, reference)


def compare(case: Case, inputs: Any, exact: Any) -> None:
    """Prints how near XLA's result in float32 is to float64's, for a sample of points."""
    planes, points, params = jax.device_get(inputs[:3])
    chosen = np.random.default_rng(0).choice(case.points, SAMPLE, replace=False)
    expected = numpy_forward(case, planes[0], points[0, chosen], params)
    error = float(relative(tuple(x[0, chosen] for x in exact), jax.tree.map(np.float32, expected)))
    print(f"{case.name:5}  1 float32  ref      error {error:.1e} against float64", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=PRESETS, choices=PRESETS)
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
    if kernels.make_plan(TRUE_AXES, 0, "float32").interpret:
        print("no NVIDIA GPU of compute capability 8 or more: the kernel would be interpreted", file=sys.stderr)
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
