"""Reading and writing photos: whatever a camera or an editor wrote comes in as upright uint8 RGB, or as one clear
error.

The result goes out in the format its name says, with the photo's colour profile, EXIF (orientation reset),
transparency and, for an upright JPEG, its own quantisation tables, so that pixels nobody touched survive a second
compression almost unchanged.
"""

import dataclasses
import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin, PngImagePlugin

from rtgaze_jax.errors import UserError
from rtgaze_jax.files import atomic_path
from rtgaze_jax.inference.provenance import Edit, mark_exif, mark_xmp

MAX_PIXELS = 120_000_000
_READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_ORIENTATION, _XMP = 0x0112, 0x02BC  # EXIF tags
# description, make, model, software, date, artist, copyright, and the camera's and GPS's own directories
_DESCRIPTIVE = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825}
WRITABLE = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}


@dataclasses.dataclass(frozen=True)
class Photo:
    """A decoded photo.

    pixels: u8[H, W, 3] RGB, upright. alpha: u8[H, W] or None. grey: it was a greyscale file. exif, icc, xmp: metadata
    as bytes, orientation already applied. jpeg: quantisation tables and chroma subsampling of an upright JPEG, or
    None. name: what to call it in messages.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    jpeg: dict | None = None
    name: str = "the photo"


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey images of more than 8 bits (modes I;16, I, F) as mode L."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not numbers")
    peak = float(values.max(initial=0))
    if peak > 255 or image.mode.startswith("I;16"):
        values = values / 257
    elif image.mode == "F" and peak <= 1:
        values = values * 255
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _metadata(image: Image.Image) -> tuple[bytes, bytes, bytes]:
    """EXIF without orientation, ICC profile and XMP. Metadata too broken to be read is dropped: the pixels are what
    counts.
    """
    exif = b""
    try:
        found = image.getexif()
        found.pop(_ORIENTATION, None)
        if image.format == "TIFF":  # the rest describes how that file stores its pixels
            for tag in set(found) - _DESCRIPTIVE:
                del found[tag]
        exif = found.tobytes() if len(found) else b""
    except Exception:
        exif = b""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    icc = image.info.get("icc_profile") or b""
    return exif, icc if image.mode != "CMYK" else b"", xmp.encode() if isinstance(xmp, str) else bytes(xmp)


def _decode(image: Image.Image) -> Photo:
    image.load()
    try:
        upright = image.getexif().get(_ORIENTATION, 1) in (0, 1)
        image_up = image if upright else ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF cannot say which way is up
        upright, image_up = True, image
    exif, icc, xmp = _metadata(image)
    jpeg = None
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB") and upright:
        jpeg = {"qtables": image.quantization, "subsampling": max(0, JpegImagePlugin.get_sampling(image))}
    if image_up.mode.startswith("I") or image_up.mode == "F":
        image_up = _eight_bits(image_up)
    grey = image_up.mode in ("1", "L", "LA", "La")
    transparent = image_up.has_transparency_data
    rgba = np.asarray(image_up.convert("RGBA" if transparent else "RGB"))
    alpha = np.ascontiguousarray(rgba[..., 3]) if transparent else None
    return Photo(np.ascontiguousarray(rgba[..., :3]), alpha, grey, exif, icc, xmp, jpeg)


def read_photo(path: str | os.PathLike) -> Photo:
    """Reads a photo file of any common format, turned upright. Raises UserError (one line) if that cannot be done."""
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a photo in it")
    if not path.exists():
        raise UserError(f"{path}: no such file")
    return decode_photo(path, str(path))


def decode_photo(file: Path | bytes, name: str, limit: int | None = None) -> Photo:
    """The photo in a file, or in a file's bytes, of at most `limit` (MAX_PIXELS) pixels. `name`: for messages.

    What it is follows from its content, not from its name. Raises UserError (one line).
    """
    limit = MAX_PIXELS if limit is None else limit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit is checked below; odd tags are not the user's business
            with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_READABLE) as image:
                if image.width * image.height > limit:
                    raise Image.DecompressionBombError
                return dataclasses.replace(_decode(image), name=name)
    except Image.DecompressionBombError:
        raise UserError(f"{name} has more than {limit // 10**6} million pixels; make it smaller first") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"{name} is not a photo that can be read here; convert it to PNG or JPEG") from None
    except PermissionError:
        raise UserError(f"{name} cannot be opened: permission denied") from None
    except MemoryError:
        raise UserError(f"{name} does not fit into memory; make it smaller first") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise UserError(f"{name} is damaged or incomplete ({' '.join(str(error).split())[:120]})") from error


def as_photo(photo: object) -> Photo:
    """A Photo from a path, an array u8[H, W, 3] (also [H, W] grey and [H, W, 4] RGBA) or a PIL image. Raises
    UserError.
    """
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, str | os.PathLike):
        return read_photo(photo)
    if isinstance(photo, Image.Image):
        return _decode(photo)
    array = np.asarray(photo)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UserError(
            f"a photo must be a path or a uint8 array [height, width, 3], not {array.dtype} {list(array.shape)}"
        )
    if array.size == 0:
        raise UserError("the photo has no pixels")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise UserError(f"the photo has more than {MAX_PIXELS // 10**6} million pixels; make it smaller first")
    if array.ndim == 2:
        return Photo(np.repeat(array[..., None], 3, 2), grey=True)
    alpha = np.ascontiguousarray(array[..., 3]) if array.shape[2] == 4 else None
    return Photo(np.ascontiguousarray(array[..., :3]), alpha)


def writable(path: str | os.PathLike) -> Path:
    """The path, if its ending names a format that can be written; UserError otherwise."""
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise UserError(f"cannot write {path}: the name must end in {', '.join(WRITABLE)}")
    return path


def write_photo(path: str | os.PathLike, pixels: np.ndarray, source: Photo, edit: Edit | None) -> None:
    """Writes pixels u8[H, W, 3] atomically, with the metadata of `source` (whose alpha is kept if the size is the
    same).

    `edit` says what was done, for the metadata; None leaves the metadata as it was. Raises UserError for an unknown
    ending.
    """
    path = writable(path)
    kind = WRITABLE[path.suffix.lower()]
    image = Image.fromarray(pixels)
    if source.grey:
        image = image.convert("L")
    if source.alpha is not None and source.alpha.shape == pixels.shape[:2] and kind != "JPEG":
        image.putalpha(Image.fromarray(source.alpha))
    exif = mark_exif(source.exif, edit) if edit else source.exif
    xmp = mark_xmp(source.xmp, edit) if edit else source.xmp
    options: dict = {"icc_profile": source.icc} if source.icc else {}
    if kind == "TIFF":
        options["compression"] = "tiff_deflate"
        tags = Image.Exif()  # a TIFF file's own tags are EXIF's, and hold the XMP as well
        if exif:
            tags.load(exif)
        if xmp:
            tags[_XMP] = xmp
        options["exif"] = tags
    elif kind == "PNG":
        text = PngImagePlugin.PngInfo()
        if xmp:
            text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options |= {"pnginfo": text, "compress_level": 4}
    elif kind == "JPEG":
        options |= source.jpeg or {"quality": 95, "subsampling": 0}
    else:
        options |= {"lossless": True, "quality": 60}
    if kind in ("JPEG", "WEBP") and xmp:
        options["xmp"] = xmp
    if exif and kind != "TIFF":
        options["exif"] = exif
    with atomic_path(path) as temporary:
        image.save(temporary, format=kind, **options)
