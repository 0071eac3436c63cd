"""Redirects the faces of a video file: in constant memory, resumable, sound and time stamps kept.

Stages run side by side, each a few frames ahead of the next: decoding; tracking; deciding, where the network is asked;
pasting, several frames at a time; encoding. The work lies in OUT.parts beside the result until it is joined; each
segment is committed by a small JSON file that also holds the state of all filters, so that a resumed run gives the very
same frames as one that was never stopped.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import time as clock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rtgaze_jax.errors import UserError
from rtgaze_jax.files import write_bytes
from rtgaze_jax.inference.live import Aim, LiveRedirector
from rtgaze_jax.inference.provenance import Edit
from rtgaze_jax.inference.redirector import Redirector
from rtgaze_jax.inference.repaint import Plan
from rtgaze_jax.inference.stages import Stage, ahead, one_core_a_stage, side_by_side
from rtgaze_jax.inference.tracking import Observation, Tracker
from rtgaze_jax.inference.video_files import Frame, Video

SEGMENT = 240  # frames
EDIT = Edit("The gaze direction of a face in this video was changed by AI.")
_PASTING = min(8, os.cpu_count() or 1)  # frames at a time


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where the work stands. total: frames in all, None if unknown. rate: frames per second so far. left: seconds."""

    done: int
    total: int | None
    rate: float

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take."""
        return (self.total - self.done) / self.rate if self.total and self.rate > 0 else None


@dataclasses.dataclass(frozen=True, eq=False)
class _Tracked:
    """A frame with its faces; at the end of a segment also the tracker's state."""

    frame: Frame
    seen: list[Observation]
    state: dict[str, Any] | None


class _Part:
    """The frames of one segment on their way to the encoder: counts them, and keeps the state after the last one."""

    def __init__(self, entries: Iterator["_Redirected"], say: Callable[[int], None]):
        self._entries, self._say = entries, say
        self.frames = 0
        self.state: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[tuple[Frame, list[np.ndarray]]]:
        for entry in self._entries:
            self.frames += 1
            self.state = entry.state
            yield entry.frame, entry.planes
            self._say(self.frames)


@dataclasses.dataclass(frozen=True, eq=False)
class _Planned:
    """A frame and what is to be done to it; at the end of a segment also the state of all filters."""

    frame: Frame
    plan: Plan
    state: dict[str, Any] | None


@dataclasses.dataclass(frozen=True, eq=False)
class _Redirected:
    """A frame with its new planes; at the end of a segment also the state of all filters."""

    frame: Frame
    planes: list[np.ndarray]
    state: dict[str, Any] | None


class VideoJob:
    """One video to redirect.

    faces: the number of a face by size, 1 the largest, or None for all. edit: what the metadata shall say, None for
    nothing. resume: go on with the unfinished work of an earlier run. segment: frames in a segment.
    Raises UserError for files that cannot be read or written, before anything slow begins.
    """

    def __init__(
        self,
        source: Path,
        out: Path,
        aim: Aim,
        faces: int | None = 1,
        edit: Edit | None = EDIT,
        resume: bool = False,
        segment: int = SEGMENT,
    ):
        if faces is not None and faces < 1:
            raise UserError("faces are numbered from 1, the largest")
        self.video, self.out, self.aim, self.faces, self.edit = Video(source), out, aim, faces, edit
        self.video.check_target(out)
        self.folder = out.with_name(f"{out.name}.parts")
        self.segment = segment
        job = self._describe(source)
        self._committed: list[dict[str, Any]] = []
        if resume and (self.folder / "job.json").exists():
            if json.loads((self.folder / "job.json").read_text()) != job:
                raise UserError(f"{self.folder} belongs to another video or other options; leave out --resume")
            self._committed = self._find_committed()
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_bytes(self.folder / "job.json", json.dumps(job, indent=1).encode())

    @property
    def resumed(self) -> int:
        """Frames that an earlier run has done."""
        return sum(entry["frames"] for entry in self._committed)

    def _describe(self, source: Path) -> dict[str, Any]:
        """What makes two runs the same work."""
        with open(source, "rb") as file:
            beginning = hashlib.sha256(file.read(1 << 20)).hexdigest()
        size = source.stat().st_size
        aim = json.loads(json.dumps(dataclasses.asdict(self.aim)))
        return {"size": size, "sha256_of_first_mebibyte": beginning, "aim": aim, "faces": self.faces} | {
            "segment": self.segment
        }

    def _find_committed(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        while (commit := self.folder / f"{len(entries):05d}.json").exists():
            if not commit.with_suffix(".mp4").exists():
                break
            entries.append(json.loads(commit.read_text()))
        return entries

    def run(self, model: Redirector, report: Callable[[Progress], None] = lambda _: None) -> dict[str, int]:
        """Does what is left and writes the result; returns counts (LiveRedirector.counts). `report` hears of every
        frame.
        """
        done = self.resumed
        saved = self._committed[-1]["state"] if self._committed else None
        if not (self._committed and self._committed[-1]["last"]):
            live = LiveRedirector(model, self.aim, saved and saved["live"])
            with one_core_a_stage():
                self._write_rest(live, saved and saved["tracker"], done, report)
        segments = [(self.folder / f"{i:05d}.mp4", entry["start"]) for i, entry in enumerate(self._committed)]
        self.video.join(self.out, segments, self.edit)
        shutil.rmtree(self.folder, ignore_errors=True)
        return self._committed[-1]["state"]["live"]["counts"]

    def _write_rest(
        self, live: LiveRedirector, tracker: dict[str, Any] | None, done: int, report: Callable[[Progress], None]
    ) -> None:
        tracked = ahead(self._tracked(tracker, ahead(self.video.read(done))))
        stream = side_by_side(self._redirected, ahead(self._planned(live, tracked)), _PASTING)
        begun = clock.monotonic()

        def say(count: int) -> None:
            rate = (count - done) / max(clock.monotonic() - begun, 1e-6)
            report(Progress(count, self.video.frames, rate))

        try:
            last = False
            while not last:
                path = self.folder / f"{len(self._committed):05d}.mp4"
                part = _Part(itertools.islice(stream, self.segment), lambda n: say(self.resumed + n))
                start = self.video.write_segment(path, iter(part))
                if start is None:
                    break
                last = part.state is None
                entry: dict[str, Any] = {"start": start, "frames": part.frames, "last": last}
                entry |= {"state": part.state or {"live": live.state()}}
                write_bytes(path.with_suffix(".json"), json.dumps(entry).encode())
                self._committed.append(entry)
        finally:
            stream.close()

    def _tracked(self, state: dict[str, Any] | None, frames: Stage[Frame]) -> Stage[_Tracked]:
        tracker = Tracker(self.faces, state)
        with contextlib.closing(frames):
            for frame in frames:
                seen = tracker.update(frame.pixels, frame.time)
                ends = (frame.index + 1) % self.segment == 0
                yield _Tracked(frame, seen, tracker.state() if ends else None)

    def _planned(self, live: LiveRedirector, tracked: Stage[_Tracked]) -> Stage[_Planned]:
        with contextlib.closing(tracked):
            for item in tracked:
                plan = live.plan(item.frame.pixels, item.frame.time, item.seen)
                state = None if item.state is None else {"tracker": item.state, "live": live.state()}
                yield _Planned(item.frame, plan, state)

    def _redirected(self, item: _Planned) -> _Redirected:
        pixels, windows = item.plan.finish()
        return _Redirected(item.frame, self.video.changed(item.frame, pixels, windows), item.state)
