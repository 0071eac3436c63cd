"""Photos of every kind come in upright and 8-bit; broken ones are refused with one line; metadata goes out again."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from rtgaze_jax.errors import UserError
from rtgaze_jax.inference import photo as photo_module
from rtgaze_jax.inference.photo import Photo, as_photo, read_photo, writable, write_photo
from rtgaze_jax.inference.provenance import SOURCE_TYPE, Edit, source_type

ASTRONAUT = Path(__file__).parents[2] / "examples" / "astronaut.png"
RGB = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
GREY = np.random.default_rng(1).integers(0, 256, (24, 36), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera maker"
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(photo.pixels, np.asarray(ImageOps.exif_transpose(image)))
    write_photo(tmp_path / "b.png", photo.pixels, photo, None)
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif().get(0x0112) is None
        assert image.getexif()[0x010F] == "Camera maker"
        assert image.size == (photo.pixels.shape[1], photo.pixels.shape[0])


def test_alpha_is_kept(tmp_path):
    alpha = GREY
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, RGB)
    write_photo(tmp_path / "b.png", photo.pixels, photo, None)
    with Image.open(tmp_path / "b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.dstack([RGB, alpha]))
    write_photo(tmp_path / "b.jpg", photo.pixels, photo, None)  # no alpha there
    assert read_photo(tmp_path / "b.jpg").pixels.shape == RGB.shape


def test_grey_stays_grey(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, np.repeat(GREY[..., None], 3, 2))
    write_photo(tmp_path / "b.png", photo.pixels, photo, None)
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), GREY)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_photo(tmp_path / f"a{suffix}").pixels[..., 1], GREY)


def test_float_tiff(tmp_path):
    Image.fromarray(GREY.astype(np.float32) / 255).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels[..., 2], GREY)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK", "YCbCr", "RGBA"])
def test_other_modes_match_pillow(tmp_path, mode):
    image = Image.fromarray(RGB).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path)
    with Image.open(path) as again:
        expected = np.asarray(again.convert("RGB"))
    np.testing.assert_array_equal(read_photo(path).pixels, expected)


def _broken(tmp_path, kind):
    path = tmp_path / f"{kind}.png"
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "JPEG" if kind == "cut jpeg" else "PNG")
    content = whole.getvalue()
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
        return path
    path.write_bytes(
        {
            "empty": b"",
            "text": b"this is not a photo\n" * 50,
            "cut png": content[: len(content) // 2],
            "cut jpeg": content[: len(content) // 2],
            "header only": content[:40],
            "bad checksum": content[:60] + bytes([content[60] ^ 255]) + content[61:],
            "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        }[kind]
    )
    return path


@pytest.mark.parametrize(
    "kind",
    ["missing", "folder", "empty", "text", "cut png", "cut jpeg", "header only", "bad checksum", "svg", "eps"],
)
def test_what_cannot_be_read_is_one_line(tmp_path, kind):
    path = _broken(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        read_photo(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 250 + len(str(path))


def test_too_many_pixels(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(photo_module, "MAX_PIXELS", 500)
    with pytest.raises(UserError, match="million pixels"):
        read_photo(tmp_path / "a.png")
    with pytest.raises(UserError, match="million pixels"):
        as_photo(RGB)


def test_a_bomb_is_refused_without_decoding(tmp_path):
    """A PNG header that promises 10^10 pixels."""
    image = io.BytesIO()
    Image.fromarray(RGB).save(image, "PNG")
    content = bytearray(image.getvalue())
    content[16:24] = (100_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="million pixels"):
            read_photo(tmp_path / "bomb.png")


def test_arrays():
    np.testing.assert_array_equal(as_photo(RGB).pixels, RGB)
    np.testing.assert_array_equal(as_photo(Image.fromarray(RGB)).pixels, RGB)
    assert as_photo(GREY).grey
    np.testing.assert_array_equal(as_photo(np.dstack([RGB, GREY])).alpha, GREY)
    for wrong in (RGB / 255, RGB[..., :2], RGB[None], np.zeros((0, 5, 3), np.uint8), np.zeros(7, np.uint8)):
        with pytest.raises(UserError, match="photo"):
            as_photo(wrong)


def test_jpeg_survives_a_second_compression(tmp_path):
    """With the photo's own quantisation tables, saving the decoded pixels again changes almost nothing."""
    with Image.open(ASTRONAUT) as image:
        image.crop((150, 50, 310, 170)).save(tmp_path / "a.jpg", quality=70)
    photo = read_photo(tmp_path / "a.jpg")
    write_photo(tmp_path / "b.jpg", photo.pixels, photo, Edit())
    again = read_photo(tmp_path / "b.jpg").pixels.astype(int)
    assert np.abs(again - photo.pixels).mean() < 0.35
    write_photo(tmp_path / "c.jpg", photo.pixels, Photo(photo.pixels), None)
    assert np.abs(read_photo(tmp_path / "c.jpg").pixels.astype(int) - photo.pixels).mean() < 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tiff"])
def test_metadata_goes_through(tmp_path, suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "On the beach"
    exif[0x0110] = "Camera model"
    Image.fromarray(RGB).save(tmp_path / "a.jpg", icc_profile=profile, exif=exif)
    photo = read_photo(tmp_path / "a.jpg")
    out = tmp_path / f"b{suffix}"
    write_photo(out, photo.pixels, photo, Edit("Changed by AI."))
    assert source_type(out) == SOURCE_TYPE
    with Image.open(out) as image:
        assert image.info["icc_profile"] == profile
        written = image.getexif()
        assert written[0x010E] == "On the beach [Changed by AI.]"
        assert written[0x0131].startswith("rtgaze-jax")
        assert written[0x0110] == "Camera model"
    write_photo(out, photo.pixels, photo, None)
    assert source_type(out) is None
    with Image.open(out) as image:
        assert image.getexif()[0x010E] == "On the beach"


def test_broken_metadata_does_not_matter(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<not xml")
    Image.fromarray(RGB).save(
        tmp_path / "a.png", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff garbage", pnginfo=text
    )
    photo = read_photo(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, RGB)
    write_photo(tmp_path / "b.png", photo.pixels, photo, Edit())
    assert source_type(tmp_path / "b.png") == SOURCE_TYPE


def test_unknown_ending():
    with pytest.raises(UserError, match=r"must end in \.png"):
        writable("result.gif")


def test_a_tiff_does_not_hand_on_its_layout(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Scanner"
    Image.fromarray(RGB).save(tmp_path / "a.tif", exif=exif, compression="tiff_lzw")
    photo = read_photo(tmp_path / "a.tif")
    write_photo(tmp_path / "b.png", photo.pixels, photo, None)
    with Image.open(tmp_path / "b.png") as image:
        assert dict(image.getexif()) == {0x010F: "Scanner"}
