"""The Python interface: load a network, encode the face of a photo, look somewhere else.

    model = load()
    face = model.encode("me.jpg")
    face.redirect(pitch=10, yaw=-20).image

Angles here are degrees with the sign of ETH-XGaze: +pitch looks up, +yaw towards the left of the image. In the
"camera" frame (0, 0) looks into the lens, in the "head" frame straight ahead. The camera is the virtual one of the
upright face crop.
"""

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from rtgaze_jax.errors import NoFaceError, UserError
from rtgaze_jax.geometry.camera import frontal_camera, orbit_camera
from rtgaze_jax.inference import align
from rtgaze_jax.inference.blend import paste_eyes
from rtgaze_jax.inference.face import Face, find_faces
from rtgaze_jax.inference.network import Network, enlarge, head_to_camera_gaze, use_compilation_cache
from rtgaze_jax.inference.photo import Photo, as_photo
from rtgaze_jax.weights import io

MAX_PITCH, MAX_YAW = 30.0, 45.0
"""Gaze angles beyond these (degrees, either sign) are refused."""
MAX_VIEW = 60.0
"""View angles beyond this (degrees, either sign) are refused."""
_TRAINED = (25.0, 35.0)  # degrees of pitch and yaw, for weights whose header does not say
_EASE = 5.0  # degrees by which a gaze may at most exceed the trained range
BACKGROUND = 128.0  # grey behind a head seen from a new viewpoint
FADE = 0.2  # below this strength the patch fades out as well, so that no strength makes a visible jump from the photo


class GazeWarning(UserWarning):
    """Something about a photo or a gaze that the user should know, though there is a result."""


def check_angles(name: str, pitch: float, yaw: float, limits: tuple[float, float]) -> tuple[float, float]:
    """Both angles as floats; UserError for anything that is not a finite number within the limits."""
    checked = []
    for part, value, limit in (("pitch", pitch, limits[0]), ("yaw", yaw, limits[1])):
        try:
            angle = float(value)
        except (TypeError, ValueError):
            angle = math.nan
        if not abs(angle) <= limit:  # also catches NaN
            raise UserError(f"{name} {part} must be a number of degrees from -{limit:g} to {limit:g}, not {value}")
        checked.append(angle)
    return checked[0], checked[1]


def ease(angle: float, trained: float) -> float:
    """An angle (degrees) that leaves the trained range only slightly: unchanged inside, at most _EASE beyond it."""
    beyond = abs(angle) - trained
    return angle if beyond <= 0 else math.copysign(trained + _EASE * (1 - math.exp(-beyond / _EASE)), angle)


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """A rendered face. image: u8[S, S, 3]. opacity: f32[S, S], the share of each pixel that the head covers; elsewhere
    the image means nothing. depth: f32[S, S], ray length in world units (some 370 mm: one picture does not tell how
    large a head is), 0 where the head is not. gaze: (pitch, yaw) in degrees in the crop's camera frame. camera: 25
    numbers (geometry/camera.py), source frame."""

    image: UInt8[np.ndarray, "S S 3"]
    depth: Float[np.ndarray, "S S"]
    opacity: Float[np.ndarray, "S S"]
    gaze: tuple[float, float]
    camera: Float[np.ndarray, "25"]

    def over(self, background: float = BACKGROUND) -> "View":
        """This view with the head cut out and laid over a grey (0 to 255)."""
        cover = self.opacity[..., None]
        mixed = cover * self.image + (1 - cover) * background
        return dataclasses.replace(self, image=np.round(mixed).astype(np.uint8))


@dataclasses.dataclass(frozen=True, eq=False)
class Redirected:
    """A photo whose face looks elsewhere.

    face: the aligned crop with its new eyes, u8[S, S, 3]. gaze: (pitch, yaw) in degrees in the crop's camera frame.
    source: what it was made from. strength: 0..1. image: the whole photo with the eyes pasted back. depth, camera: as
    in `View`.
    """

    face: UInt8[np.ndarray, "S S 3"]
    gaze: tuple[float, float]
    source: "EncodedFace"
    strength: float

    @property
    def camera(self) -> Float[np.ndarray, "25"]:
        """The crop's camera: the frontal one of the source frame."""
        return np.asarray(frontal_camera())

    @functools.cached_property
    def depth(self) -> Float[np.ndarray, "S S"]:
        """Ray lengths in world units, 0 where the head is not; the head is rendered when they are first asked for."""
        return self.source.view(self.gaze, frontal_camera()).depth

    def paste(self, pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """A copy of `pixels` (of the photo's size) with this face's eyes pasted in."""
        opacity = min(1.0, self.strength / FADE)
        return paste_eyes(pixels, self.source.found, self.face, self.source.matrix, opacity)

    @functools.cached_property
    def image(self) -> UInt8[np.ndarray, "H W 3"]:
        """The whole photo, same size, the eyes pasted back; at strength 0 the photo itself."""
        return self.paste(self.source.photo.pixels)


class EncodedFace:
    """One face of a photo, found, aligned and encoded; every call below reuses that.

    photo: the decoded photo. found: where its face is. matrix: photo pixels to crop pixels. crop: u8[S, S, 3].
    """

    def __init__(self, network: Network, photo: Photo, found: Face, trained: tuple[float, float]):
        self.photo, self.found = photo, found
        self.matrix = align.crop_matrix(found, network.size)
        self.crop = align.crop(photo.pixels, self.matrix, network.size)
        self._network, self._trained = network, trained
        self._points = jnp.asarray(align.eye_points(found, self.matrix, network.size), jnp.float32)[None]
        self._features = network.encode(self.crop[None])
        self._scene: tuple[tuple[float, float] | None, Any] = None, None  # the last gaze and its scene, for more views

    @property
    def gaze(self) -> tuple[float, float]:
        """Where the face looks in the photo, as the network estimates it: (pitch, yaw) in degrees, camera frame."""
        pitch, yaw = np.degrees(np.asarray(self._features["pose"]["gaze"][0], np.float64)).tolist()
        return pitch, yaw

    def _target(self, pitch: float, yaw: float, frame: str) -> tuple[float, float]:
        """The wanted gaze in the camera frame, degrees; warns where it had to be eased."""
        pitch, yaw = check_angles("gaze", pitch, yaw, (MAX_PITCH, MAX_YAW))
        if frame == "head":
            radians = jnp.radians(jnp.array([[pitch, yaw]], jnp.float32))
            pitch, yaw = np.degrees(np.asarray(head_to_camera_gaze(radians, self._features["pose"])[0])).tolist()
        elif frame != "camera":
            raise UserError(f"frame must be 'camera' or 'head', not {frame!r}")
        eased = ease(pitch, self._trained[0]), ease(yaw, self._trained[1])
        if eased != (pitch, yaw):
            warnings.warn(
                f"the network was trained up to {self._trained[0]:g} degrees of pitch and {self._trained[1]:g} of yaw; "
                f"using pitch {eased[0]:.1f}, yaw {eased[1]:.1f} instead of {pitch:.1f}, {yaw:.1f}",
                GazeWarning,
                stacklevel=3,
            )
        return eased

    def view(self, gaze: tuple[float, float], camera: jnp.ndarray) -> View:
        """The head with a gaze (degrees, camera frame, not eased) as a camera of the source frame sees it."""
        last = self._scene
        if gaze != last[0]:
            last = self._scene = gaze, self._network.redirect(self._features, _radians(gaze), self._points)
        out = self._network.render(self._features, last[1], np.asarray(camera)[None])
        image, depth, opacity = (np.asarray(out[name])[0] for name in ("image", "depth", "opacity"))
        depth, opacity = (enlarge(x, self._network.size) for x in (depth, opacity))
        depth = np.where(opacity < 0.5, 0, depth).astype(np.float32)
        return View(image, depth, opacity, gaze, np.asarray(camera))

    def redirect(
        self, pitch: float = 0.0, yaw: float = 0.0, frame: str = "camera", strength: float = 1.0
    ) -> Redirected:
        """The photo with the face looking along (pitch, yaw), degrees, in the "camera" or the "head" frame.

        strength: 0..1 scales the correction from the photo's own gaze (estimated) to the wanted one. Raises UserError
        for angles beyond MAX_PITCH and MAX_YAW; between the trained range and those the gaze is eased, with a
        GazeWarning.
        """
        try:
            strength = float(strength)
        except (TypeError, ValueError):
            strength = math.nan
        if not 0 <= strength <= 1:
            raise UserError("strength must be a number from 0 to 1")
        target = self._target(pitch, yaw, frame)
        # at full strength the estimate must not matter at all
        source = self.gaze if strength < 1 else target
        gaze = source[0] + strength * (target[0] - source[0]), source[1] + strength * (target[1] - source[1])
        face = self._network.look(self._features, _radians(gaze), self._points)
        return Redirected(np.asarray(face)[0], gaze, self, strength)

    def look_at(self, target: str = "camera", strength: float = 1.0) -> Redirected:
        """The photo with the face looking at the "camera"."""
        if target != "camera":
            raise UserError(f"look_at knows 'camera' only, not {target!r}; give angles to redirect()")
        return self.redirect(0.0, 0.0, strength=strength)

    def render(
        self, pitch: float = 0.0, yaw: float = 0.0, view: tuple[float, float] = (0.0, 0.0), frame: str = "camera"
    ) -> View:
        """The head alone, over grey, from a new viewpoint.

        view: (pitch, yaw) of the viewpoint in degrees seen from the face, (0, 0) the photo's own, +pitch above, +yaw
        to the left of the image. pitch, yaw, frame: the gaze, as in `redirect`, so relative to the PHOTO's camera,
        not to the new viewpoint.
        """
        up, left = check_angles("view", *view, limits=(MAX_VIEW, MAX_VIEW))
        return self.view(self._target(pitch, yaw, frame), orbit_camera(left, up)).over()


def _radians(gaze: tuple[float, float]) -> Float[np.ndarray, "1 2"]:
    return np.radians(np.array([gaze], np.float32))


class Redirector:
    """A trained network that finds faces in photos and redirects their gaze. Make one with `load`."""

    def __init__(self, network: Network, header: dict | None = None):
        self.network = network
        self.header = dict(header or {})

    @property
    def trained(self) -> tuple[float, float]:
        """The degrees of pitch and yaw (either sign) that the network was trained on."""
        pitch, yaw = self.header.get("gaze_range_degrees") or _TRAINED
        return float(pitch), float(yaw)

    def encode(self, photo: object, face: int | None = None) -> EncodedFace:
        """Finds, aligns and encodes a face of a photo: a path, an array u8[H, W, 3] or a PIL image.

        face: 1 the largest, 2 the next, ...; None the largest, with a GazeWarning if there are more. Raises
        NoFaceError if there is none, UserError for a photo that cannot be read or a face that is not there.
        """
        photo, faces = self.find(photo)
        if face is None and len(faces) > 1:
            warnings.warn(
                f"{len(faces)} faces in {photo.name}: using the largest; choose with --face N or --face all",
                GazeWarning,
                stacklevel=2,
            )
        number = 1 if face is None else face
        if not 1 <= number <= len(faces):
            raise UserError(f"no face {number} in {photo.name}: it has {len(faces)}, numbered from 1 by size")
        return self.encode_found(photo, faces[number - 1])

    def encode_all(self, photo: object) -> Iterator[EncodedFace]:
        """Every face of a photo, largest first, encoded one at a time. Raises NoFaceError if there is none."""
        photo, faces = self.find(photo)
        for found in faces:
            yield self.encode_found(photo, found)

    def find(self, photo: object) -> tuple[Photo, list[Face]]:
        """The decoded photo and its faces, largest first, at least one. Raises NoFaceError."""
        photo = as_photo(photo)
        faces = find_faces(photo.pixels)
        if not faces:
            raise NoFaceError(f"no face found in {photo.name}; it must be visible, upright within 60 degrees, not tiny")
        return photo, faces

    def encode_found(self, photo: Photo, found: Face) -> EncodedFace:
        """Aligns and encodes one of the faces that `find` found in a photo."""
        return EncodedFace(self.network, photo, found, self.trained)


def load(path: str | os.PathLike | None = None) -> Redirector:
    """A Redirector from a weights file (.safetensors); without a path, the weights that come with the package.

    Compiled programs are kept in the user's cache folder. Raises UserError if the file is missing, damaged or of
    another kind.
    """
    use_compilation_cache()
    params, header = io.load(path or io.DEFAULT)
    return Redirector(Network.from_weights(params, header), header)
