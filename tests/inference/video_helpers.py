"""What the tests of video share: a network whose eyes are discs, a moving photo with sound, and a reader."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import jax.numpy as jnp
import numpy as np
from PIL import Image

from rtgaze_jax.inference.redirector import Redirector

ASTRONAUT = Path(__file__).parents[2] / "examples" / "astronaut.png"


class DiscNetwork:
    """Stands in for `Network`: paints each eye as a white disc with a dark one, shifted by the gaze. Red, so that it is
    easily told from any photo.
    """

    size = 128

    def __init__(self, gaze=(0.0, 0.0)):
        self.gaze = gaze  # what it says about every photo, degrees
        self.encoded, self.rendered = 0, 0

    def encode(self, image):
        self.encoded += 1
        return {"image": np.asarray(image[0]), "pose": {"gaze": jnp.radians(jnp.array([self.gaze], jnp.float32))}}

    def redirect(self, features, gaze, eye_points):
        pitch, yaw = np.asarray(gaze[0])
        image = features["image"].copy()
        for point in np.asarray(eye_points[0]) * self.size:
            for colour, radius, shift in (((255, 60, 60), 9, 0), ((40, 0, 0), 4, 8)):
                x, y = point + shift * np.array([-np.sin(yaw), -np.sin(pitch)])
                centre = round(x * 16 - 8), round(y * 16 - 8)
                cv2.circle(image, centre, radius * 16, colour, -1, cv2.LINE_AA, 4)
        return {"image": image}

    def look(self, features, gaze, eye_points):
        self.rendered += 1
        return self.redirect(features, gaze, eye_points)["image"][None]

    def render(self, features, scene, camera):
        flat = np.ones((1, self.size, self.size), np.float32)
        return {"image": scene["image"][None], "depth": flat, "opacity": flat}


def disc_model(gaze=(0.0, 0.0)):
    return Redirector(DiscNetwork(gaze), {"gaze_range_degrees": [25, 35]})


def astronaut():
    return np.array(Image.open(ASTRONAUT).convert("RGB"))


def moving(index, size=(320, 240), speed=1.0, zoom=0.75):
    """A frame of the astronaut's face drifting through the picture, and the 2x3 matrix that made it."""
    angle, shift = 0.02 * np.sin(0.3 * index * speed), 6 * np.sin(0.2 * index * speed)
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    centre = np.array([222.0, 110.0])  # the face in the photo
    turn = np.array([[c, -s], [s, c]])
    matrix = np.concatenate([turn, (np.array(size) / 2 + (shift, 0.5 * shift) - turn @ centre)[:, None]], 1)
    frame = cv2.warpAffine(astronaut(), matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return frame, matrix


def write_video(path, frames, rate=25, sound=True, metadata=None, times=None, codec="libx264"):
    """A video of u8[H, W, 3] frames; `times` in units of 1/(4 rate) seconds where they are uneven."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        options = {"crf": "10", "x264-params": "mbtree=0"} if codec == "libx264" else {}  # the same bits in every run
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p" if stream.height % 2 == stream.width % 2 == 0 else "yuv444p"
        base = Fraction(1, 4 * rate)
        stream.codec_context.time_base = base
        if sound:
            audio = container.add_stream("aac", rate=48000, layout="mono")
            tone = (8000 * np.sin(np.arange(48000 * len(frames) // rate) * 0.06)).astype(np.int16)
            for start in range(0, len(tone) - 1023, 1024):
                piece = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="s16", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 48000, start, Fraction(1, 48000)
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (4 * i if times is None else times[i]), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path):
    """(frames u8[N, H, W, 3], times in seconds, audio packets as bytes, metadata)."""
    frames, times, sound = [], [], []
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.time)
        metadata = dict(container.metadata)
    with av.open(str(path)) as container:
        if container.streams.audio:
            sound = [bytes(p) for p in container.demux(container.streams.audio[0]) if p.size]
    return np.stack(frames), times, sound, metadata
