"""Measuring programs: latency statistics, what a device can do at best, and how near to that a program comes."""

import math
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Call = Callable[[], Any]


def call_seconds(
    call: Call, budget: float, least: int = 10, most: int = 1000, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds of single calls, each waited for, after one that does not count.

    Calls until `budget` seconds have passed, but at least `least` and at most `most` times.
    """
    jax.block_until_ready(call())
    times: list[float] = []
    began = clock()
    while len(times) < least or (len(times) < most and clock() - began < budget):
        start = clock()
        jax.block_until_ready(call())
        times.append(clock() - start)
    return times


def queued_seconds(call: Call, count: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds a call where nobody waits for the one before: the device's own time, if the host can keep up."""
    jax.block_until_ready(call())
    start = clock()
    out = None
    for _ in range(count):
        out = call()
    jax.block_until_ready(out)
    return (clock() - start) / count


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """p50_ms, p95_ms, p99_ms (linear interpolation, as NumPy's percentile) and the number of calls."""
    values = np.percentile(np.asarray(seconds, np.float64) * 1000, (50, 95, 99)).tolist()
    return dict(zip(("p50_ms", "p95_ms", "p99_ms"), values, strict=True)) | {"calls": len(seconds)}


def sustained(seconds: Sequence[float]) -> dict[str, float]:
    """Frames a second over all frames, their latency, and how much longer the slow ones take (p99 over p50)."""
    found = latency(seconds)
    rate = len(seconds) / math.fsum(seconds)
    return {"fps": rate, **found, "p99_over_p50": found["p99_ms"] / found["p50_ms"], "seconds": math.fsum(seconds)}


def roofline(flops: float, moved: float, ceilings: dict[str, float], seconds: float) -> dict[str, Any]:
    """How much of the best possible speed a program reaches.

    Args:
        flops, moved: floating point operations and bytes of memory traffic of one call.
        ceilings: "flops_per_s" and "bytes_per_s" of the device.
        seconds: measured, one call.

    Returns:
        floor_ms: the larger of flops / flops_per_s and moved / bytes_per_s; bound: which of the two, "compute" or
        "memory"; share: floor over measured time. It can exceed 1 where caches spare memory traffic.
    """
    compute, memory = flops / ceilings["flops_per_s"], moved / ceilings["bytes_per_s"]
    floor = max(compute, memory)
    return {
        "flops": flops,
        "bytes": moved,
        "floor_ms": floor * 1000,
        "bound": "compute" if compute >= memory else "memory",
        "share": floor / seconds,
    }


def cost(lowered: jax.stages.Lowered, jaxpr: Any) -> tuple[float, float]:
    """(flops, bytes) of one call.

    Flops are XLA's for the program as written, plus what it leaves out: it counts the body of a loop once and does not
    look into Pallas kernels. Where it tells none (GPUs, jax 0.11) they are those of matrix products and convolutions.
    Bytes are XLA's for the compiled program, 0 where it does not tell; loops count once.
    """
    flops = contraction_flops(jaxpr)
    if seen := (lowered.cost_analysis() or {}).get("flops", 0.0):
        flops += seen - contraction_flops(jaxpr, seen_by_xla=True)
    compiled = lowered.compile().cost_analysis()
    return float(flops), float((compiled or {}).get("bytes accessed", 0.0))


def contraction_flops(jaxpr: Any, *, seen_by_xla: bool = False) -> float:
    """Flops of all matrix products and convolutions of a jaxpr: two for each multiplication and addition.

    seen_by_xla: count a loop's body once and Pallas kernels not at all, as XLA's cost analysis does. Bodies of `while`
    always count once, and of branches the dearest.
    """
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, given = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = given["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            out_features = kernel.shape[given["dimension_numbers"].rhs_spec[0]]
            # zeros inserted between the inputs are not work
            work = kernel.size / out_features / math.prod(given["lhs_dilation"])
            total += 2.0 * equation.outvars[0].aval.size * work
        elif name == "cond":
            total += max(contraction_flops(branch, seen_by_xla=seen_by_xla) for branch in given["branches"])
        else:
            times = 1.0
            if name == "scan" and not seen_by_xla:
                times = given["length"]
            elif name == "pallas_call":
                times = 0.0 if seen_by_xla else math.prod(given["grid_mapping"].grid)
            inner = [given[key] for key in ("jaxpr", "call_jaxpr", "body_jaxpr") if key in given]
            total += times * sum(contraction_flops(one, seen_by_xla=seen_by_xla) for one in inner)
    return total


def measure_ceilings(side: int | None = None) -> dict[str, float]:
    """What this device reaches at best: "flops_per_s" of a square matrix product of random numbers (bfloat16; float32
    on processors) and "bytes_per_s" (read and written) of a copy on the device.

    side: of the matrices, default 8192, or 2048 on processors; the copy is of 4 * side ** 2 numbers of float32.
    """
    slow = jax.default_backend() == "cpu"
    side = side or (2048 if slow else 8192)
    a, b = (jax.random.normal(jax.random.key(i), (side, side), jnp.float32 if slow else jnp.bfloat16) for i in (0, 1))
    product = jax.jit(jnp.matmul)
    numbers = jnp.ones((4 * side**2,), jnp.float32)
    copy = jax.jit(jnp.negative)  # reads and writes all; an identity would be optimised away
    count = 3 if slow else 20
    matmul_s = min(queued_seconds(lambda: product(a, b), count) for _ in range(3))
    copy_s = min(queued_seconds(lambda: copy(numbers), count) for _ in range(3))
    return {"flops_per_s": 2.0 * side**3 / matmul_s, "bytes_per_s": 2.0 * numbers.nbytes / copy_s}


def peak_memory_mib() -> float:
    """The most memory this process has held, MiB: on the device where it tells, else on the host."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else host_memory_mib()


def host_memory_mib() -> float:
    """The most host memory this process has held, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells there is at least the memory of whoever started the process
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 images (or stacks of them) in dB; 99 if they are equal."""
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))
