"""One record: one image of one person with everything known about it. The one schema of every dataset in this package.

A record is a dict of NumPy arrays. `decode(encode(record))` gives it back: lossless for everything but depth, which
is kept to 0.00005 world units (0.02 mm). Frames: "world" is the head frame of the capture (x to the subject's left,
y up, z out of the face, 1 unit = 370 mm); camera axes are OpenCV's (x right, y down, z forward). Gaze is (pitch,
yaw) in radians with the ETH-XGaze sign; eyes come in the order (subject's left, subject's right).

A *capture* is one person under one light with one background. Its records form a grid of gazes x views, gaze-major:
record `gaze_index * views + view_index` of the capture. In data sets of real people the grid has holes and the
indices are numbers of the original (frame, camera); see `rtgaze_jax.data.index`.

Synthetic records hold all fields. Data sets of real people lack OPTIONAL ones, the same in all of their records
(`storage.Manifest.absent` says which); what is absent is not in the dict.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

SCHEMA_VERSION = 1
DEPTH_SCALE = 10000.0  # stored depth levels per world unit: 0.037 mm each, 6.55 units at most
MILLIMETRES = 370.0  # per world unit

Record = dict[str, Any]


class PARTS(enum.IntEnum):
    """What a pixel shows."""

    background = 0
    skin = 1
    left_eye = 2  # the subject's left eyeball
    right_eye = 3
    brows = 4
    lashes = 5
    hair = 6
    mouth = 7  # teeth, tongue, inside
    clothes = 8
    glasses = 9


class Field(NamedTuple):
    """How one entry of a record looks. Sizes named by letters are the same wherever the letter is the same."""

    dtype: str
    shape: tuple[int | str, ...]
    coding: Literal["image", "labels", "mask", "depth", "array"]
    doc: str


FIELDS: dict[str, Field] = {
    "image": Field("uint8", ("H", "W", 3), "image", "sRGB"),
    "parts": Field("uint8", ("H", "W"), "labels", "PARTS, what each pixel shows"),
    "face_mask": Field("bool", ("H", "W"), "mask", "the head: every part but background and clothes"),
    "eye_mask": Field("bool", ("H", "W"), "mask", "visible eyeballs"),
    "depth": Field("float32", ("H", "W"), "depth", "ray length from the camera, world units; 0 on the background"),
    "cam2world": Field("float32", (4, 4), "array", "camera axes (OpenCV) to world, rigid"),
    "intrinsics": Field("float32", (3, 3), "array", "for image coordinates from (0, 0) top left to (1, 1)"),
    "gaze_head": Field("float32", (2,), "array", "(pitch, yaw), radians, seen by the world's frontal camera"),
    "gaze_camera": Field("float32", (2,), "array", "(pitch, yaw), radians, seen by this camera"),
    "head_pose": Field("float32", (2,), "array", "(pitch, yaw), radians, of the world's z axis seen by this camera"),
    "eye_centers": Field("float32", (2, 3), "array", "centres of the eyeballs (left, right), world units"),
    "landmarks": Field("float32", ("L", 2), "array", "normalised image coordinates (x, y)"),
    "person": Field("int32", (), "array", "number of the person within the split"),
    "capture": Field("int32", (), "array", "number of the capture of this person"),
    "gaze_index": Field("int32", (), "array", "number of the gaze within the capture"),
    "view_index": Field("int32", (), "array", "number of the view within the capture; 0 is the most frontal"),
    "seed": Field("int64", (), "array", "what the random choices were seeded with"),
}


OPTIONAL = ("depth", "gaze_head", "gaze_camera")  # what nobody measured on real people, and what is withheld
GAZE = ("gaze_head", "gaze_camera")


class Grid(NamedTuple):
    """The shape of a set of records: `captures` x `gazes` x `views`, flat index in that order."""

    captures: int
    gazes: int
    views: int

    @property
    def per_capture(self) -> int:
        """Records of one capture."""
        return self.gazes * self.views


def face_mask(parts: np.ndarray) -> np.ndarray:
    """The head's pixels, bool, of a map of PARTS (uint8, any shape)."""
    return (parts != PARTS.background) & (parts != PARTS.clothes)


def eye_mask(parts: np.ndarray) -> np.ndarray:
    """The visible eyeballs' pixels, bool, of a map of PARTS (uint8, any shape)."""
    return (parts == PARTS.left_eye) | (parts == PARTS.right_eye)


def fields(absent: Sequence[str] = ()) -> dict[str, Field]:
    """The schema of a data set without some optional fields. Raises ValueError where one is not optional."""
    if required := [key for key in absent if key not in OPTIONAL]:
        raise ValueError(f"{', '.join(required)} cannot be absent")
    return {key: field for key, field in FIELDS.items() if key not in absent}


def validate(record: Mapping[str, Any], absent: Sequence[str] = ()) -> None:
    """Checks keys, dtypes and shapes of one decoded record; raises ValueError naming the first difference.

    `absent`: the optional fields that this data set does not have.
    """
    schema = fields(absent)
    if missing := [key for key in schema if key not in record]:
        raise ValueError(f"missing {', '.join(missing)}")
    if unknown := [key for key in record if key not in schema]:
        raise ValueError(f"unknown field {', '.join(unknown)}")
    sizes: dict[str, int] = {}
    for key, field in schema.items():
        value = np.asarray(record[key])
        if value.dtype != field.dtype:
            raise ValueError(f"{key} is {value.dtype}, not {field.dtype}")
        expected = tuple(sizes.get(n, n) if isinstance(n, str) else n for n in field.shape)
        matches = len(expected) == value.ndim and all(
            isinstance(e, str) or e == n for e, n in zip(expected, value.shape, strict=True)
        )
        if not matches:
            raise ValueError(f"{key} has shape {value.shape}, not {expected}")
        sizes |= {n: size for n, size in zip(field.shape, value.shape, strict=True) if isinstance(n, str)}


def encode(record: Mapping[str, Any], jpeg_quality: int | None = None, absent: Sequence[str] = ()) -> Record:
    """The record as it is stored: PNG bytes (JPEG for the photo where `jpeg_quality` is given), depth as 16-bit PNG.

    Raises ValueError where the record does not fit the schema without the `absent` fields.
    """
    validate(record, absent)
    return {key: _ENCODERS[field.coding](record[key], jpeg_quality) for key, field in fields(absent).items()}


def decode(encoded: Mapping[str, Any], keys: Sequence[str] | None = None) -> Record:
    """The decoded record, or only its `keys`, without what is absent. Raises ValueError where bytes are damaged."""
    decoded = {}
    for key in FIELDS if keys is None else keys:
        field = FIELDS[key]
        if key in OPTIONAL and key not in encoded:
            continue
        try:
            value = _DECODERS[field.coding](encoded[key])
        except Exception as error:  # whatever a codec says about damaged bytes
            raise ValueError(f"{key} cannot be decoded: {error}") from error
        decoded[key] = np.asarray(value, field.dtype)
    return decoded


def _to_png(array: np.ndarray, *parameters: int) -> bytes:
    import cv2  # here, so that rendering processes need NumPy only

    return cv2.imencode(".png", array, parameters)[1].tobytes()


def _from_png(content: bytes) -> np.ndarray:
    import cv2

    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise ValueError("not a whole image")
    return array


def _encode_image(image: np.ndarray, jpeg_quality: int | None) -> bytes:
    import cv2

    bgr = np.ascontiguousarray(image[..., ::-1])
    if jpeg_quality is None:
        return _to_png(bgr)
    return cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, jpeg_quality))[1].tobytes()


def _encode_depth(depth: np.ndarray, _) -> bytes:
    levels = np.rint(np.asarray(depth, np.float64) * DEPTH_SCALE)
    if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= 65535):
        raise ValueError(f"depth outside 0 to {65535 / DEPTH_SCALE} units")
    return _to_png(levels.astype(np.uint16))


def _encode_mask(mask: np.ndarray, _) -> bytes:
    import cv2

    return _to_png(mask.astype(np.uint8) * 255, cv2.IMWRITE_PNG_BILEVEL, 1)


_ENCODERS = {
    "image": _encode_image,
    "labels": lambda labels, _: _to_png(labels),
    "mask": _encode_mask,
    "depth": _encode_depth,
    "array": lambda array, _: np.asarray(array),
}
_DECODERS = {
    "image": lambda content: np.ascontiguousarray(_from_png(content)[..., ::-1]),
    "labels": _from_png,
    "mask": lambda content: _from_png(content) > 0,
    "depth": lambda content: _from_png(content).astype(np.float32) / np.float32(DEPTH_SCALE),
    "array": lambda array: array,
}
