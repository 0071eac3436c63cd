"""Makes a test clip: synthetic heads that look around, blink and turn, then a pan over a real photo, with sound.

  python experiments/make_test_video.py test.mp4
  python experiments/make_test_video.py small.mp4 --seconds 2 --height 240 --people 1

The default, 10 s of 720p at 25 frames per second, takes about 5 minutes on two CPU cores and seconds on a GPU.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from rtgaze_jax.data.heads.footage import Moment, render_footage
from rtgaze_jax.data.heads.renderer import Renderer
from rtgaze_jax.files import atomic_path

PHOTO = Path(__file__).parents[1] / "examples" / "astronaut.png"
RATE, SOUND_RATE = 25, 48_000
PHOTO_SHARE = 0.3


def performance(frames: int, seed: int) -> list[Moment]:
    """What an actor does in a take: the head sways, the eyes jump between places, blinks every two seconds."""
    random = np.random.default_rng([seed, 11])
    moments, gaze, until = [], np.zeros(2), 0
    for i in range(frames):
        t = i / RATE
        if i >= until:
            gaze, until = random.uniform((-12, -22), (12, 22)), i + int(random.integers(12, 40))
        yaw, pitch = 14 * np.sin(0.9 * t + seed), 5 * np.sin(1.3 * t)
        blink = min(abs((t + 0.7) % 2.0 - 1.0) / 0.1, 1.0)  # closed for an instant, 0.2 s in all
        shift = 0.02 * np.sin(0.7 * t), 0.012 * np.sin(1.1 * t), 0.0
        moments.append(
            Moment(
                gaze=tuple(np.radians(gaze).tolist()),
                view=(float(np.radians(yaw)), float(np.radians(pitch))),
                opening=float(blink),
                roll=float(np.radians(4 * np.sin(0.8 * t))),
                target=shift,
            )
        )
    return moments


def heads(people: int, frames: int, height: int) -> Iterator[np.ndarray]:
    """Takes with one synthetic person after the other, 16:9, over a blurred copy of themselves."""
    renderer = Renderer(height)
    width = height * 16 // 9 // 2 * 2
    for person in range(people):
        count = frames // people + (person < frames % people)
        for shot in render_footage(renderer, "test", person, performance(count, person), capture=person):
            wide = cv2.resize(cv2.GaussianBlur(shot.image, (0, 0), height / 20), (width, height))
            left = (width - height) // 2
            wide[:, left : left + height] = shot.image
            yield wide


def photo_pan(frames: int, height: int) -> Iterator[np.ndarray]:
    """A slow pan and zoom over the astronaut's face."""
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    size = height * 16 // 9 // 2 * 2, height
    for i in range(frames):
        x = i / max(frames - 1, 1)
        scale = height / (330 - 90 * x)
        angle = np.radians(3 * np.sin(4 * x))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = np.array(size) * (0.42 + 0.16 * x, 0.5) - turn @ (222.0, 120.0)
        matrix = np.concatenate([turn, shift[:, None]], 1)
        yield cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def sound(seconds: float) -> np.ndarray:
    """A quiet melody, int16[1, n]: any dropped or doubled packet can be heard."""
    t = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    notes = np.array([220, 262, 330, 392, 330, 262])[(t * 3).astype(int) % 6]
    phase = 2 * np.pi * np.cumsum(notes) / SOUND_RATE
    return (3000 * np.sin(phase) * np.exp(-3 * (t * 3 % 1))).astype(np.int16)[None]


def write(path: Path, frames: Iterator[np.ndarray], seconds: float, height: int) -> int:
    """Writes frames and sound; returns the number of frames."""
    count = 0
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format=path.suffix[1:]) as container:
        container.metadata["title"] = "RTGaze test clip"
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "14", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = height * 16 // 9 // 2 * 2, height, "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        tone = sound(seconds)
        for start in range(0, tone.shape[1] - 1023, 1024):
            piece = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], format="s16", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
        for count, pixels in enumerate(frames, 1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            if count % 25 == 0:
                print(f"{count} frames", flush=True)
        container.mux(stream.encode(None))
    return count


def main() -> None:
    """Reads the arguments and writes the clip."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--people", type=int, default=3)
    args = parser.parse_args()
    total = round(args.seconds * RATE)
    panned = round(PHOTO_SHARE * total)

    def frames() -> Iterator[np.ndarray]:
        yield from heads(args.people, total - panned, args.height)
        yield from photo_pan(panned, args.height)

    count = write(args.out, frames(), args.seconds, args.height)
    print(f"{args.out}: {count} frames, {args.height * 16 // 9 // 2 * 2}x{args.height}")


if __name__ == "__main__":
    main()
