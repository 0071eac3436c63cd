"""What the local page can do, without HTTP: sessions that hold a photo, a webcam's faces or a video's progress.

Several people may use it at once. They share one network behind one lock; memory is bounded by the number of sessions,
of which the least recently used ones are forgotten.
"""

import collections
import contextlib
import io
import secrets
import shutil
import tempfile
import threading
import time as clock
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from rtgaze_jax.errors import UserError
from rtgaze_jax.inference import align
from rtgaze_jax.inference.demo import depth_picture
from rtgaze_jax.inference.gating import Schedule
from rtgaze_jax.inference.live import Aim, LiveRedirector
from rtgaze_jax.inference.photo import Photo, decode_photo, write_photo
from rtgaze_jax.inference.provenance import Edit
from rtgaze_jax.inference.redirector import EncodedFace, GazeWarning, Redirected, Redirector
from rtgaze_jax.inference.tracking import Tracker

MAX_SESSIONS = 8
MAX_FACES = 8
PHOTO_BYTES, PHOTO_PIXELS = 32 << 20, 24_000_000
FRAME_BYTES, FRAME_PIXELS = 4 << 20, 2_100_000
VIDEO_BYTES = 1 << 30
_PREVIEW = 1280  # pixels: longer side of what the page shows


class SharedNetwork:
    """A network that several threads may use: one call at a time."""

    def __init__(self, network: Any):
        self._network, self._lock, self.size = network, threading.Lock(), network.size

    def encode(self, image: Any) -> Any:
        """As Network.encode."""
        with self._lock:
            return self._network.encode(image)

    def look(self, features: Any, gaze: Any, eye_points: Any) -> Any:
        """As Network.look."""
        with self._lock:
            return self._network.look(features, gaze, eye_points)

    def redirect(self, features: Any, gaze: Any, eye_points: Any) -> Any:
        """As Network.redirect."""
        with self._lock:
            return self._network.redirect(features, gaze, eye_points)

    def render(self, features: Any, scene: Any, camera: Any) -> Any:
        """As Network.render."""
        with self._lock:
            return self._network.render(features, scene, camera)


def jpeg(pixels: np.ndarray, quality: int = 92) -> bytes:
    """A preview of u8[H, W, 3]: at most _PREVIEW pixels on its longer side."""
    scale = _PREVIEW / max(pixels.shape[:2])
    if scale < 1:
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


class Session:
    """What one visitor has uploaded. Its methods are called one at a time (see `lock`)."""

    def __init__(self, model: Redirector):
        self.lock = threading.Lock()
        self.video = VideoTask(model)
        self._model = model
        self._photo: Photo | None = None
        self._found: list[Any] = []
        self._encoded: dict[int, EncodedFace] = {}
        self._camera: tuple[Tracker, LiveRedirector] | None = None

    def upload(self, content: bytes) -> dict[str, Any]:
        """Takes a photo; tells its size and its faces: centre between the eyes and size, in widths of the photo."""
        photo, found = self._model.find(decode_photo(content, "the upload", PHOTO_PIXELS))
        self._photo, self._found, self._encoded = photo, found[:MAX_FACES], {}
        height, width = photo.pixels.shape[:2]
        faces = []
        for face in self._found:
            x, y = align.corner_midpoints(face).mean(0) / width
            faces.append({"x": float(x), "y": float(y), "size": face.size / width})
        return {"width": width, "height": height, "faces": faces}

    def _face(self, number: int) -> EncodedFace:
        if self._photo is None:
            raise UserError("there is no photo yet: choose one first")
        if not 1 <= number <= len(self._found):
            raise UserError(f"no face {number} in the photo: it has {len(self._found)}")
        if number not in self._encoded:
            self._encoded[number] = self._model.encode_found(self._photo, self._found[number - 1])
        return self._encoded[number]

    def original(self) -> bytes:
        """The photo as it came, as JPEG preview."""
        if self._photo is None:
            raise UserError("there is no photo yet: choose one first")
        return jpeg(self._photo.pixels)

    def redirected(self, face: int, pitch: float, yaw: float, strength: float) -> tuple[bytes, dict[str, Any]]:
        """The redirected photo as JPEG preview, and the gaze that was used (degrees)."""
        result, note = self._redirect(face, pitch, yaw, strength)
        return jpeg(result.image), {"gaze": [round(float(a), 1) for a in result.gaze], "note": note}

    def _redirect(self, face: int, pitch: float, yaw: float, strength: float) -> tuple[Redirected, str]:
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always", GazeWarning)
            result = self._face(face).redirect(pitch, yaw, strength=strength)
        return result, "; ".join(str(n.message) for n in notes if issubclass(n.category, GazeWarning))

    def full(self, face: int, pitch: float, yaw: float, strength: float) -> bytes:
        """The redirected photo in full size as PNG, marked as edited by AI."""
        result, _ = self._redirect(face, pitch, yaw, strength)
        with tempfile.TemporaryDirectory(prefix="rtgaze") as folder:
            path = Path(folder) / "result.png"
            write_photo(path, result.image, result.source.photo, Edit())
            return path.read_bytes()

    def view(self, face: int, pitch: float, yaw: float, up: float, left: float, depth: bool) -> bytes:
        """The face from another viewpoint, or its depth, as JPEG."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GazeWarning)
            view = self._face(face).render(pitch, yaw, view=(up, left))
        return jpeg(depth_picture(view.depth) if depth else view.image)

    def frame(self, content: bytes, pitch: float, yaw: float, strength: float) -> bytes:
        """The next frame of a webcam, redirected, as JPEG."""
        pixels = decode_photo(content, "the frame", FRAME_PIXELS).pixels
        aim = Aim(pitch, yaw, Schedule.constant(strength))
        if self._camera is None:
            self._camera = Tracker(), LiveRedirector(self._model, aim)
        tracker, live = self._camera
        live.aim = aim
        now = clock.monotonic()
        return jpeg(live.apply(pixels, now, tracker.update(pixels, now))[0], quality=85)

    def close(self) -> None:
        """Stops the video and removes its files."""
        self.video.close()


class VideoTask:
    """A video of a session: uploaded, redirected in a thread, ready to be fetched."""

    _turn = threading.Lock()  # one video at a time on this machine

    def __init__(self, model: Redirector):
        self._model = model
        self._folder: Path | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._state: dict[str, Any] = {"state": "none"}

    def status(self) -> dict[str, Any]:
        """{"state": none | waiting | working | done | failed, "done", "total", "left" seconds, "error"}."""
        return dict(self._state)

    def result(self) -> Path:
        """The finished file. Raises UserError if there is none."""
        if self._folder is None or self._state["state"] != "done":
            raise UserError("there is no finished video")
        return self._folder / "redirected.mp4"

    @contextlib.contextmanager
    def upload(self) -> Iterator[Path]:
        """Where to write an uploaded file, in place of an earlier one."""
        self.close()
        self._folder = Path(tempfile.mkdtemp(prefix="rtgaze"))
        yield self._folder / "upload"

    def start(self, pitch: float, yaw: float, strength: float, everyone: bool) -> None:
        """Begins to redirect the uploaded file. Raises UserError if it is no video."""
        from rtgaze_jax.inference.video import VideoJob

        if self._folder is None:
            raise UserError("there is no video yet: choose one first")
        aim = Aim(pitch, yaw, Schedule.constant(strength))
        try:
            job = VideoJob(self._folder / "upload", self._folder / "redirected.mp4", aim, None if everyone else 1)
        except Exception as error:
            text = str(error).replace(f"{self._folder}/", "the ")
            self.close()
            raise UserError(text) from error
        self._stop = stop = threading.Event()
        self._state = {"state": "waiting"}
        self._thread = threading.Thread(target=self._work, args=(job, stop), daemon=True)
        self._thread.start()

    def _work(self, job: Any, stop: threading.Event) -> None:
        def report(progress: Any) -> None:
            if stop.is_set():
                raise UserError("stopped")
            left = None if progress.left is None else round(max(progress.left, 0))
            self._state = {"state": "working", "done": progress.done, "total": progress.total, "left": left}

        try:
            while not self._turn.acquire(timeout=0.2):
                if stop.is_set():
                    return
            try:
                counts = job.run(self._model, report)
            finally:
                self._turn.release()
            self._state = {"state": "done", **counts}
        except Exception as error:  # told to whoever asks for the status
            self._state = {"state": "failed", "error": " ".join(str(error).split())[:300] or type(error).__name__}

    def close(self) -> None:
        """Stops the work and removes the files."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder, self._thread, self._state = None, None, {"state": "none"}


class Studio:
    """All sessions of one server."""

    def __init__(self, model: Redirector):
        self._model = Redirector(SharedNetwork(model.network), model.header)  # type: ignore[arg-type]
        self._sessions: collections.OrderedDict[str, Session] = collections.OrderedDict()
        self._lock = threading.Lock()

    def session(self, key: str | None) -> tuple[str, Session]:
        """The session of a key, or a new one with a new key; the oldest beyond MAX_SESSIONS is closed."""
        forgotten = []
        with self._lock:
            if key is None or key not in self._sessions:
                key = secrets.token_urlsafe(24)
                self._sessions[key] = Session(self._model)
                while len(self._sessions) > MAX_SESSIONS:
                    forgotten.append(self._sessions.popitem(last=False)[1])
            self._sessions.move_to_end(key)
            session = self._sessions[key]
        for old in forgotten:
            old.close()
        return key, session

    def close(self) -> None:
        """Stops all work and removes all files."""
        with self._lock:
            sessions = list(self._sessions.values())
            self._sessions.clear()
        for session in sessions:
            session.close()
