"""Reports of the benchmark (benchmark.py) as text. Needs no JAX; whatever was not measured is left out."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtgaze_jax.files import write_bytes

Report = Mapping[str, Any]


def write(report: Report, as_json: str | os.PathLike | None, as_markdown: str | os.PathLike | None) -> None:
    """Writes the files that are named. Raises FailureError where one cannot be written."""
    if as_json:
        write_bytes(as_json, (json.dumps(report, indent=1) + "\n").encode())
    if as_markdown:
        write_bytes(as_markdown, markdown(report).encode())


def lines(report: Report) -> Iterator[tuple[str, str]]:
    """(what, figure) for everything in a report, in the order in which it is measured."""
    for key, text in (("cold_start_s", "cold start to first image"), ("second_start_s", "second start")):
        if key in report:
            yield text, f"{report[key]:.1f} s"
    if "compile_s" in report:
        yield "compilation", f"{report['compile_s']:.1f} s"
    if "peak_memory_mib" in report:
        yield (
            "peak memory of a process, device; host",
            f"{report['peak_memory_mib']:.0f} MiB; {report['host_memory_mib']:.0f} MiB",
        )
    roofline = report.get("roofline", {})
    for name, found in report.get("stages", {}).items():
        yield name, _latency(found)
    if "end_to_end" in report:
        yield "end to end, fused, host to host", _latency(report["end_to_end"])
        yield "end to end, three stages, host to host", _latency(report["staged"])
        yield "fused, device only", _latency(report["device_only"])
    for key, text in (("new_gaze", "a new gaze each frame"), ("new_view", "a new view each frame")):
        if found := report.get("sustained", {}).get(key):
            yield (
                f"sustained, {text}",
                f"{found['fps']:.1f} frames/s over {found['seconds']:.0f} s, p99/p50 {found['p99_over_p50']:.2f}",
            )
    for batch, rate in report.get("throughput", {}).items():
        yield f"throughput, batch {batch}", "out of memory" if rate is None else f"{rate:.1f} images/s"
    if ceilings := roofline.get("ceilings"):
        yield "ceiling, matrix product", f"{ceilings['flops_per_s'] / 1e12:.2f} TFLOP/s"
        yield "ceiling, copy", f"{ceilings['bytes_per_s'] / 1e9:.0f} GB/s"
    for name in ("encode", "redirect", "render", "fused"):
        if found := roofline.get(name):
            yield (
                f"roofline, {name}",
                f"{found['share']:.0%} ({found['flops'] / 1e9:.3g} GFLOP, {found['bytes'] / 2**20:.3g} MiB: at best "
                f"{found['floor_ms']:.3g} ms, bound by {found['bound']})",
            )
    if "quality" in report:
        yield "bfloat16 against float32", f"PSNR {report['quality']['bfloat16_psnr_db']:.1f} dB"


def heading(report: Report) -> str:
    """What was measured, in one line."""
    return (
        f"{report['preset']}, {report['resolution']} x {report['resolution']}, {report['parameters'] / 1e6:.1f} M "
        f"parameters, {report['weights']}, on {report['device']}, jax {report['jax_version']}"
    )


def markdown(report: Report) -> str:
    """One report as a Markdown page."""
    rows = "".join(f"| {what} | {figure} |\n" for what, figure in lines(report))
    return f"# Inference benchmark\n\n{heading(report)}\n\n| what | measured |\n|---|---|\n{rows}"


def comparison(reports: Sequence[Report]) -> str:
    """Several reports as a Markdown table: a row each, milliseconds are medians."""
    columns = {
        "preset": lambda r: r["preset"],
        "pixels": lambda r: str(r["resolution"]),
        "encode, ms": lambda r: f"{r['stages']['encode']['p50_ms']:.2f}",
        "redirect, ms": lambda r: f"{r['stages']['redirect']['p50_ms']:.2f}",
        "render, ms": lambda r: f"{r['stages']['render']['p50_ms']:.2f}",
        "end to end, ms (p99)": lambda r: f"{r['end_to_end']['p50_ms']:.2f} ({r['end_to_end']['p99_ms']:.2f})",
        "device only, ms": lambda r: f"{r['device_only']['queued_ms']:.2f}",
        "share of roofline": lambda r: f"{r['roofline']['fused']['share']:.0%}",
        "new gaze, frames/s (p99/p50)": lambda r: _frames(r["sustained"]["new_gaze"]),
        "new view, frames/s (p99/p50)": lambda r: _frames(r["sustained"]["new_view"]),
        "images/s by batch": lambda r: ", ".join(f"{b}: {v:.0f}" for b, v in r["throughput"].items() if v),
        "memory, MiB": lambda r: f"{r['peak_memory_mib']:.0f}",
        "cold / second start, s": lambda r: f"{r['cold_start_s']:.1f} / {r['second_start_s']:.1f}",
        "bfloat16, dB": lambda r: f"{r['quality']['bfloat16_psnr_db']:.1f}",
    }

    def cell(report: Report, make: Any) -> str:
        try:
            return make(report)
        except KeyError:  # not measured
            return "-"

    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return head + "".join(f"| {' | '.join(cell(r, make) for make in columns.values())} |\n" for r in reports)


def _latency(found: Mapping[str, float]) -> str:
    text = f"{found['p50_ms']:.2f} ms (p95 {found['p95_ms']:.2f}, p99 {found['p99_ms']:.2f})"
    return text + (f", queued {found['queued_ms']:.2f}" if "queued_ms" in found else "")


def _frames(found: Mapping[str, float]) -> str:
    return f"{found['fps']:.1f} ({found['p99_over_p50']:.2f})"
