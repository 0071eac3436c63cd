"""Video files in and out, by PyAV: frames as planes, so that what nobody touched is not converted to RGB and back.

Work is written in segments, each whole or absent. At the end they are joined with the sound and the subtitles of the
original, which are copied as they are.
"""

import contextlib
import dataclasses
import heapq
import itertools
import tempfile
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from rtgaze_jax.errors import FailureError, UserError
from rtgaze_jax.files import atomic_path
from rtgaze_jax.inference.provenance import SOURCE_TYPE, Edit, mark_xmp

try:
    import av
    import av.error
except ImportError as error:  # the one optional package of this part
    raise UserError("video needs PyAV: pip install 'rtgaze-jax[app]'") from error

WRITABLE = (".mp4", ".mov", ".m4v", ".mkv")
MAX_PIXELS = 36_000_000
# before PyAV 19, which has no such argument, metadata that is no UTF-8 made a file unreadable
_READING: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
_XMP_BOX = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # where XMP lives in MP4 (XMP specification, part 3)
# without macroblock trees, whose result is not the same in every run
_ENCODER = {"crf": "17", "preset": "veryfast", "x264-params": "mbtree=0"}
_FULL_RANGE = 2
_UNSPECIFIED, _BT709, _BT601 = 2, 1, 5
_LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_NO_TIME = 1 << 62
_OWN_METADATA = ("encoder", "major_brand", "minor_version", "compatible_brands")  # every writer sets its own


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame, upright. index: from 0. pts: in the stream's time base. time: seconds. planes: u8 arrays Y, U,
    V. pixels: u8[H, W, 3] RGB.
    """

    index: int
    pts: int
    time: float
    planes: list[np.ndarray]
    pixels: UInt8[np.ndarray, "H W 3"]


@dataclasses.dataclass(frozen=True)
class Colour:
    """How YUV relates to RGB: FFmpeg's numbers for the matrix and the range, and those that are only passed on."""

    space: int
    range: int
    primaries: int
    transfer: int

    def weights(self) -> np.ndarray:
        """f32[3, 3]: the shares of red, green and blue in Y, U and V (ITU-T H.273)."""
        red, blue = _LUMA.get(self.space, _LUMA[_BT601])
        y = np.array([red, 1 - red - blue, blue])
        u, v = ((np.eye(3)[i] - y) / (2 * (1 - y[i])) for i in (2, 0))
        scale = (1.0, 1.0) if self.range == _FULL_RANGE else (219 / 255, 224 / 255)
        return np.stack([y * scale[0], u * scale[1], v * scale[1]]).astype(np.float32)


class Video:
    """A video file to read. Raises UserError if it is none.

    width, height: upright, pixels. rate: frames per second. frames: about how many there are, None if unknown.
    """

    def __init__(self, path: Path):
        self.path = path
        self.damaged = 0  # packets that could not be decoded
        with self._open() as container:
            stream = _video_stream(container, path)
            self.time_base: Fraction = stream.time_base or Fraction(1, 90_000)
            self.rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(25)
            context = stream.codec_context
            if not 0 < context.width * context.height <= MAX_PIXELS:
                raise UserError(f"{path} has no picture of a usable size (at most {MAX_PIXELS // 10**6} megapixels)")
            first = next(self._decode(container, stream), None)
            if first is None:
                raise UserError(f"{path} has no picture that can be decoded; it is damaged or incomplete")
            self._quarter_turns = round(first.rotation / 90) % 4
            self._size = first.width, first.height
            even = first.width % 2 == 0 and first.height % 2 == 0
            self.format = "yuv420p" if even else "yuv444p"
            self.width, self.height = self._size[:: -1 if self._quarter_turns % 2 else 1]
            full = first.format.name.startswith("yuvj") or first.color_range == _FULL_RANGE
            space = int(first.colorspace)
            known = space if space not in (0, _UNSPECIFIED) else _BT709 if self.height >= 720 else _BT601
            primaries, transfer = int(context.color_primaries), int(context.color_trc)
            self.colour = Colour(known, _FULL_RANGE if full else 1, primaries, transfer)
            length = stream.duration and float(stream.duration * self.time_base)
            length = length or (container.duration and container.duration / 1e6)
            self.frames: int | None = stream.frames or (round(length * self.rate) if length else None)
            self.aspect = stream.sample_aspect_ratio
            self.copied = [s.index for s in container.streams if s.type in ("audio", "subtitle")]

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        if self.path.is_dir():
            raise UserError(f"{self.path} is a folder; name a video in it")
        if not self.path.exists():
            raise UserError(f"{self.path}: no such file")
        try:
            container = av.open(str(self.path), **_READING)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UserError(
                f"{self.path} is not a video that can be read here, or is damaged ({_reason(error)})"
            ) from error
        with container:
            yield container

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        stream.thread_type = "AUTO"
        self.damaged = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from packet.decode()
            except av.error.EOFError:
                return
            except av.error.FFmpegError:  # a damaged packet costs its frame, as in any player
                self.damaged += 1
                if self.damaged > 10_000:
                    return

    def read(self, skip: int = 0) -> Generator[Frame, None, None]:
        """All frames after the first `skip`, upright, with rising time stamps."""
        with self._open() as container:
            stream = _video_stream(container, self.path)
            step = max(1, round(1 / (self.rate * self.time_base)))
            last = None
            for index, frame in enumerate(self._decode(container, stream)):
                pts = frame.pts if frame.pts is not None else (0 if last is None else last + step)
                if last is not None and pts <= last:
                    pts = last + 1
                last = pts
                if index >= skip:
                    yield self._frame(index, pts, frame)

    def _frame(self, index: int, pts: int, frame: Any) -> Frame:
        if (frame.width, frame.height) != self._size:  # a stream that changes its size: all frames like the first
            frame = frame.reformat(*self._size)
        plain = frame.format.name.replace("yuvj", "yuv") == self.format
        turn = self._quarter_turns
        planar = frame if plain else frame.reformat(format=self.format, **self._colour("dst"))
        planes = [np.ascontiguousarray(np.rot90(p, turn)) for p in _planes(planar)]
        rgb = frame.reformat(format="rgb24", **self._colour("src")) if "rgb" not in frame.format.name else frame
        pixels = np.ascontiguousarray(np.rot90(rgb.to_ndarray(format="rgb24"), turn))
        return Frame(index, pts, float(pts * self.time_base), planes, pixels)

    def _colour(self, side: str) -> dict[str, int]:
        return {f"{side}_colorspace": self.colour.space, f"{side}_color_range": self.colour.range}

    def changed(self, frame: Frame, pixels: np.ndarray, windows: Sequence[tuple[slice, slice]]) -> list[np.ndarray]:
        """The frame's planes with the windows (rows, columns) taken from `pixels` u8[H, W, 3]; the rest stays."""
        planes = [plane.copy() for plane in frame.planes] if windows else frame.planes
        for rows, columns in windows:
            y0, x0 = rows.start // 2 * 2, columns.start // 2 * 2
            y1 = min(rows.stop + rows.stop % 2, self.height)
            x1 = min(columns.stop + columns.stop % 2, self.width)
            # YUV is linear in RGB, so only the difference is converted: what did not change keeps its bits
            change = cv2.subtract(pixels[y0:y1, x0:x1], frame.pixels[y0:y1, x0:x1], dtype=cv2.CV_32F)
            for plane, part in zip(planes, cv2.split(cv2.transform(change, self.colour.weights())), strict=True):
                coarse = self.height // plane.shape[0]
                if coarse > 1:
                    size = (x1 - x0) // coarse, (y1 - y0) // coarse
                    part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
                height, width = part.shape
                target = plane[y0 // coarse : y0 // coarse + height, x0 // coarse : x0 // coarse + width]
                target[:] = np.clip(np.rint(target + part), 0, 255)
        return planes

    def write_segment(self, path: Path, frames: Iterator[tuple[Frame, list[np.ndarray]]]) -> int | None:
        """Writes frames with their new planes as an MP4 without sound, its time starting at 0, whole or not at all.

        Returns the first frame's time stamp; None, and no file, if there are no frames.
        """
        first = next(frames, None)
        if first is None:
            return None
        start = first[0].pts
        try:
            with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
                stream = container.add_stream("libx264", rate=self.rate, options=dict(_ENCODER))
                stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.format
                context = stream.codec_context
                context.time_base = stream.time_base = self.time_base
                context.thread_type = "FRAME"  # slices of a frame, PyAV's choice, are slower and cost bits
                context.max_b_frames = 0  # so that decoding times of segments follow each other without overlap
                context.color_range, context.colorspace = self.colour.range, self.colour.space
                context.color_primaries, context.color_trc = self.colour.primaries, self.colour.transfer
                if self.aspect and not self._quarter_turns % 2:
                    context.sample_aspect_ratio = self.aspect
                for frame, planes in itertools.chain([first], frames):
                    container.mux(stream.encode(self._coded(planes, frame.pts - start)))
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:
            raise FailureError(f"cannot write {path}: {_reason(error)}") from error
        return start

    def _coded(self, planes: list[np.ndarray], pts: int) -> Any:
        frame = av.VideoFrame(self.width, self.height, self.format)
        for target, plane in zip(frame.planes, planes, strict=True):
            rows = np.zeros((plane.shape[0], target.line_size), np.uint8)
            rows[:, : plane.shape[1]] = plane
            target.update(rows.tobytes())
        frame.pts, frame.time_base = pts, self.time_base
        frame.colorspace, frame.color_range = self.colour.space, self.colour.range
        return frame

    def check_target(self, out: Path) -> None:
        """Raises UserError if a file of this name cannot hold the sound and subtitles of this one."""
        if out.suffix.lower() not in WRITABLE:
            raise UserError(f"cannot write {out}: the name must end in {', '.join(WRITABLE)}")
        if out.is_dir():
            raise UserError(f"cannot write {out}: it is a folder")
        if out.exists() and out.samefile(self.path):
            raise UserError(f"{out} is the video itself: choose another name with -o")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix=".rtgaze", dir=out.parent)
        except OSError as error:
            raise FailureError(f"cannot write {out}: {error.strerror}") from error
        with folder, self._open() as original:
            try:
                with av.open(str(Path(folder.name) / out.name), "w") as container:
                    stream = container.add_stream("libx264", rate=self.rate)
                    stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.format
                    for index in self.copied:
                        container.add_stream_from_template(original.streams[index])
                    container.start_encoding()
                    container.mux(stream.encode(None))
            except (av.error.FFmpegError, ValueError) as error:
                raise UserError(
                    f"{out.suffix} files cannot hold the sound or subtitles of {self.path} ({_reason(error)}); use .mkv"
                ) from error

    def join(self, out: Path, segments: Sequence[tuple[Path, int]], edit: Edit | None) -> None:
        """Writes the final file atomically: segments (file, first time stamp), sound, subtitles, chapters, metadata."""
        try:
            with self._open() as original, atomic_path(out) as temporary:
                with av.open(str(temporary), "w") as container, av.open(str(segments[0][0])) as first:
                    container.metadata.update(marked(dict(original.metadata), edit))
                    picture = container.add_stream_from_template(first.streams.video[0])
                    source = _video_stream(original, self.path)
                    picture.metadata.update({k: v for k, v in source.metadata.items() if k in ("language", "title")})
                    streams = {}
                    for index in self.copied:
                        stream = container.add_stream_from_template(original.streams[index])
                        stream.metadata.update(original.streams[index].metadata)
                        streams[index] = stream
                    container.set_chapters(original.chapters())
                    sequences = [_picture_packets(segments, picture, self.time_base)]
                    sequences += [_copied_packets(original, streams)] if streams else []
                    for _, packet in heapq.merge(*sequences, key=lambda pair: pair[0]):
                        container.mux(packet)
                if edit and out.suffix.lower() in (".mp4", ".m4v"):
                    xmp = mark_xmp(b"", edit)
                    with open(temporary, "ab") as file:  # a box after all others; players skip what they do not know
                        file.write((len(xmp) + 24).to_bytes(4, "big") + b"uuid" + _XMP_BOX + xmp)
        except av.error.FFmpegError as error:
            raise FailureError(f"cannot write {out}: {_reason(error)}") from error


def _video_stream(container: Any, path: Path) -> Any:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        raise UserError(f"{path} has no video that can be decoded here")
    return streams[0]


def _planes(frame: Any) -> list[np.ndarray]:
    """Copies of a planar frame's planes, without padding."""
    return [np.array(np.frombuffer(p, np.uint8).reshape(-1, p.line_size)[: p.height, : p.width]) for p in frame.planes]


def _picture_packets(segments: Sequence[tuple[Path, int]], stream: Any, base: Fraction) -> Iterator[tuple[float, Any]]:
    """Packets of all segments, moved to where they belong, with their time in seconds."""
    for path, start in segments:
        with av.open(str(path)) as container:
            video: Any = container.streams.video[0]
            packets: Any = container.demux(video)
            shift = round(start * base / video.time_base)
            for packet in packets:
                if packet.dts is None:
                    continue
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                yield float(packet.dts * video.time_base), packet


def _copied_packets(container: Any, streams: dict[int, Any]) -> Iterator[tuple[float, Any]]:
    """Packets of sound and subtitles, as they are, with their time in seconds."""
    latest = 0.0
    for packet in container.demux([container.streams[index] for index in streams]):
        if packet.dts is None and packet.pts is None:
            continue
        stamp = packet.dts if packet.dts is not None else packet.pts
        latest = max(latest, float(stamp * packet.time_base)) if stamp < _NO_TIME else latest
        packet.stream = streams[packet.stream_index]
        yield latest, packet


def marked(metadata: dict[str, str], edit: Edit | None) -> dict[str, str]:
    """A container's metadata; with an edit, its comment says so after what it said before."""
    metadata = {
        k: v for k, v in metadata.items() if k not in ("encoder", "major_brand", "minor_version", "compatible_brands")
    }
    if edit:
        said = metadata.get("comment", "").strip()
        sentence = f"{edit.sentence} Digital source type: {SOURCE_TYPE}"
        metadata["comment"] = f"{said} [{sentence}]" if said else sentence
    return metadata


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:120]
