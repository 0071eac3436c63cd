"""How fast `rtgaze video` is, and where its time goes: JSON.

  python experiments/benchmark_video.py clip.mp4
  python experiments/benchmark_video.py clip.mp4 --weights runs/small/weights.safetensors --skip 60

The programs are compiled first. Then the video is redirected as the command does it, with the same stages side by side,
and the result thrown away. frames_per_second: the steady rate, without the first frames (--skip), which fill the
stages. stages: milliseconds a frame, `wall` by the clock, with all waiting inside (for processors, Python's lock, the
network), `cpu` of the calling thread alone. The stage with the longest `wall` is the one that the others wait for;
`paste` works on several frames at a time. Names with a dot are parts of a stage.
"""

import argparse
import collections
import functools
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import jax

from rtgaze_jax.inference.live import Aim, LiveRedirector
from rtgaze_jax.inference.redirector import load
from rtgaze_jax.inference.repaint import Key, Plan, Step
from rtgaze_jax.inference.tracking import Tracker
from rtgaze_jax.inference.video import VideoJob
from rtgaze_jax.inference.video_files import Video

CALLS = {
    "track": (Tracker, "update"),
    "decide": (LiveRedirector, "plan"),
    "decide.encode_face": (LiveRedirector, "_encode"),
    "decide.look": (LiveRedirector, "_render"),
    "paste": (Plan, "finish"),
    "paste.place": (Key, "matrices"),
    "paste.settle": (Step, "_settle"),
    "paste.planes": (Video, "changed"),
}
"""What is timed: stages by the methods that do their work; decoding and encoding are timed frame by frame."""


class Clock:
    """Seconds by name, from any thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
        self._lock = threading.Lock()

    def add(self, name: str, since: tuple[float, float], sign: int = 1) -> None:
        """Counts the time since `since` (see `now`), or takes it off."""
        with self._lock:
            for i, (end, begin) in enumerate(zip(self.now(), since, strict=True)):
                self.seconds[name][i] += sign * (end - begin)

    @staticmethod
    def now() -> tuple[float, float]:
        """The clock's time and this thread's."""
        return time.perf_counter(), time.thread_time()

    def calls(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its calls timed."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(name, begin)

        return timed

    def items(self, name: str, items: Generator[Any, None, None], sign: int = 1) -> Generator[Any, None, None]:
        """The items, their making timed."""
        try:
            while True:
                begin = self.now()
                item = next(items, None)
                self.add(name, begin, sign)
                if item is None:
                    return
                yield item
        finally:
            items.close()


def watch(clock: Clock) -> None:
    """Has every stage timed from now on."""
    for name, (owner, method) in CALLS.items():
        setattr(owner, method, clock.calls(name, getattr(owner, method)))
    read, write = Video.read, clock.calls("encode", Video.write_segment)

    def timed_read(self: Video, skip: int = 0) -> Generator[Any, None, None]:
        return clock.items("decode", read(self, skip))

    def timed_write(self: Video, path: Path, frames: Iterator[Any]) -> Any:
        # waiting for frames is no encoding
        return write(self, path, clock.items("encode", (frame for frame in frames), -1))

    Video.read, Video.write_segment = timed_read, timed_write  # type: ignore[method-assign,assignment]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--weights", metavar="FILE", help="weights to use instead of those that come with the package")
    parser.add_argument("--skip", type=int, default=60, help="frames before the steady rate (at most half; default 60)")
    args = parser.parse_args()
    model = load(args.weights)
    compiled = model.network.warm_up("encode", "look")
    clock, moments = Clock(), [time.perf_counter()]
    watch(clock)
    with tempfile.TemporaryDirectory(prefix="rtgaze") as folder:
        job = VideoJob(args.video, Path(folder) / "out.mp4", Aim())
        begin = time.process_time()
        counts = job.run(model, lambda _: moments.append(time.perf_counter()))
        cpu, whole = time.process_time() - begin, time.perf_counter() - moments[0]
        size = (Path(folder) / "out.mp4").stat().st_size
    frames = len(moments) - 1
    skip = min(args.skip, frames // 2)
    report = {
        "device": jax.devices()[0].device_kind,
        "processors": os.cpu_count(),
        "size": [job.video.width, job.video.height],
        "bytes": size,
        "compile_seconds": {name: round(seconds, 2) for name, seconds in compiled.items()},
        "counts": counts,
        "seconds": round(whole, 3),
        "frames_per_second": round((frames - skip) / (moments[-1] - moments[skip]), 2),
        "cpu_ms_per_frame_of_all_threads": round(1e3 * cpu / frames, 2),
        "stages": {
            name: {"wall": round(1e3 * wall / frames, 2), "cpu": round(1e3 * own / frames, 2)}
            for name, (wall, own) in sorted(clock.seconds.items())
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
