import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin, features
from safetensors.torch import load_file

from facesr_lib import images

GRADIENT = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3  # (H, W, 3)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


# reading


def test_reads_rgb_exactly(tmp_path):
    x = images.read(save(tmp_path / "a.png", GRADIENT))
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, as_tensor(GRADIENT))


def test_grey_and_palette_become_rgb(tmp_path):
    grey = images.read(save(tmp_path / "g.png", GRADIENT[..., 0]))
    torch.testing.assert_close(grey, as_tensor(GRADIENT[..., :1].repeat(3, 2)))
    Image.fromarray(GRADIENT).quantize(256).save(tmp_path / "p.png")
    expected = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    torch.testing.assert_close(images.read(tmp_path / "p.png"), as_tensor(expected))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_levels(tmp_path, suffix):
    levels = np.array([[0, 1, 257], [32768, 65534, 65535]], np.uint16)
    x = images.read(save(tmp_path / f"g.{suffix}", levels))
    torch.testing.assert_close(x, torch.from_numpy(levels / np.float32(65535)).float().expand(3, 2, 3))


def test_16_bit_rgb_png_is_read(tmp_path):
    (tmp_path / "w.png").write_bytes(png(np.array([[[65535, 0, 32768]]]), depth=16, colour=2))
    x = images.read(tmp_path / "w.png").flatten()
    torch.testing.assert_close(x, torch.tensor([1.0, 0.0, 0.5]), atol=1 / 255, rtol=0)


def png(levels: np.ndarray, depth: int, colour: int, key: tuple[int, ...] = ()) -> bytes:
    """Write a PNG by hand: levels (H, W, channels) of ``depth`` bits, grey (0) or RGB (2), perhaps one transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = levels.shape
    bits = levels.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + transparent + body + chunk(b"IEND", b"")


def on_white(path):
    """A picture of which something is transparent, which is told."""
    with pytest.warns(UserWarning, match=r"what is transparent is laid on white\."):
        return images.read(path)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_white(tmp_path, depth):
    most = 2**depth - 1
    levels = np.array([[[0], [most // 2], [most]]])
    for key in {0, most // 2}:
        (tmp_path / "key.png").write_bytes(png(levels, depth, 0, (key,)))
        expected = np.where(levels == key, 1, levels / most)[..., 0]
        np.testing.assert_allclose(on_white(tmp_path / "key.png")[0], expected, atol=1e-6)


@pytest.mark.parametrize(("depth", "key"), [(8, (0, 255, 0)), (8, (1, 2, 3)), (16, (0, 65535, 0)), (16, (0, 300, 0))])
def test_a_transparent_colour_is_white(tmp_path, depth, key):
    most = 2**depth - 1
    (tmp_path / "key.png").write_bytes(png(np.array([[key, (most, 0, 0), (0, 0, most)]]), depth, 2, key))
    x = on_white(tmp_path / "key.png")
    assert x[:, 0].T.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("most", [1, 100, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_a_pgm_or_ppm_is_read_by_its_own_maximum(tmp_path, kind, most):
    levels = np.array([0, most // 2, most])
    body = levels.astype(">u2" if most > 255 else "u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"{kind} {3 if kind == 'P5' else 1} 1 {most}\n".encode() + body)
    x = images.read(tmp_path / "a.pgm")
    x = x[0, 0] if kind == "P5" else x[:, 0, 0]
    np.testing.assert_allclose(x, levels / most, atol=1e-5 if kind == "P5" and most > 255 else 0.51 / 255)


def tiff(levels: list[int], bits: int, tags: dict[int, int]) -> bytes:
    """Write one row of a grey TIFF by hand: white is the largest level, unless tag 262 says that it is zero."""
    binary = np.array(levels)[:, None] >> np.arange(bits - 1, -1, -1) & 1
    packed = (np.array(levels, "<u2") if bits == 16 else np.packbits(binary.astype(np.uint8))).tobytes()
    packed += b"\0" * (len(packed) % 2)
    required = {256: len(levels), 257: 1, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    entries = sorted((required | tags).items())
    directory = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    start = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    return start + packed + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("levels", "bits", "tags", "expected"),
    [
        ([0, 4660, 65535], 16, {}, [0, 4660 / 65535, 1]),
        ([0, 2048, 4095], 12, {}, [0, 2048 / 4095, 1]),
        ([0, 512, 1023], 16, {281: 1023}, [0, 512 / 1023, 1]),  # ten bits in sixteen
        ([0, 512, 65535], 16, {281: 1023}, [0, 512 / 65535, 1]),  # said so wrongly
        ([0, 512, 1024], 16, {281: 1024}, [0, 512 / 65535, 1024 / 65535]),  # just its brightest pixel
        ([0, 4660, 65535], 16, {262: 0}, [1, 1 - 4660 / 65535, 0]),
    ],
)
def test_a_tiff_is_read_by_its_own_white(tmp_path, levels, bits, tags, expected):
    (tmp_path / "a.tif").write_bytes(tiff(levels, bits, tags))
    np.testing.assert_allclose(images.read(tmp_path / "a.tif")[1, 0], expected, atol=1e-6)


def test_whole_numbers_whose_white_is_not_known_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif has pixels of 32 .* white is not known"):
        images.read(tmp_path / "deep.tif")


@pytest.mark.parametrize("bits", [32, 12])
def test_a_tiff_that_cannot_be_read_is_not_told_to_become_a_tiff(tmp_path, bits):
    (tmp_path / "odd.tif").write_bytes(tiff([0, 1, 2, 3], bits, {262: 0}))
    with pytest.raises(
        ValueError, match=r"odd\.tif is no picture that can be read here: a TIFF has to hold 8 or 16 bits"
    ):
        images.read(tmp_path / "odd.tif")


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1}])
def test_a_raw_file_is_not_read_as_its_preview(tmp_path, tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
        info.tagtype[tag] = 1 if isinstance(value, bytes) else 4
    Image.new("RGB", (32, 24)).save(tmp_path / "raw.dng", "TIFF", tiffinfo=info)
    with pytest.raises(ValueError, match=r"raw\.dng is a camera's raw file.*develop it first"):
        images.read(tmp_path / "raw.dng")


# colour profiles

D50 = np.array([0.9642, 1.0, 0.8249])
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])  # RGB to XYZ at D50
DISPLAY_P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
ADOBE_RGB = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])


def profile(space: str, gamma: float, to_xyz: np.ndarray | None = None) -> bytes:
    """Write a colour profile of version 2 by hand: primaries (none: grey) and one exponent."""

    def xyz(values: np.ndarray) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * v) for v in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)
    name = f"a {space.strip().lower()} space".encode() + b"\0"
    text = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78 + -(12 + len(name) + 78) % 4)
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"free", b"wtpt": xyz(D50)}
    if to_xyz is None:
        tags[b"kTRC"] = curve
    else:
        for i, letter in enumerate((b"r", b"g", b"b")):
            tags |= {letter + b"XYZ": xyz(to_xyz[:, i]), letter + b"TRC": curve}
    table, body = b"", b""
    for key, value in tags.items():
        table += struct.pack(">4sII", key, 132 + 12 * len(tags) + len(body), len(value))
        body += value
    size = 132 + len(table) + len(body)
    header = struct.pack(">I4xI4s4s4s", size, 0x02400000, b"mntr", space.encode(), b"XYZ ") + bytes(12) + b"acsp"
    return (
        header.ljust(68, b"\0")
        + struct.pack(">3i", *(round(65536 * v) for v in D50)).ljust(60, b"\0")
        + (struct.pack(">I", len(tags)) + table + body)
    )


def to_srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


COLOURS = np.array([[[200, 120, 90], [60, 90, 60], [128, 128, 128], [255, 255, 255]]], np.uint8)  # within sRGB


@pytest.mark.parametrize("to_xyz", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_a_colour_profile_is_converted_to_srgb(tmp_path, suffix, to_xyz):
    flat = np.repeat(np.repeat(COLOURS, 16, 0), 16, 1)  # blocks, which JPEG keeps
    options = {"quality": 100} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"p.{suffix}", flat, icc_profile=profile("RGB ", 2.2, to_xyz), **options)
    expected = to_srgb((COLOURS[0] / 255) ** 2.2 @ to_xyz.T @ np.linalg.inv(SRGB).T)
    assert np.abs(expected[0] - COLOURS[0, 0] / 255).max() > 0.03
    np.testing.assert_allclose(images.read(path)[:, 8, 8::16].T, expected, atol=2.5 / 255)


def test_transparency_survives_a_colour_profile(tmp_path):
    alpha = np.array([[[255], [0], [51], [255]]], np.uint8)
    icc = profile("RGB ", 2.2, DISPLAY_P3)
    clear = on_white(save(tmp_path / "a.png", np.concatenate([COLOURS, alpha], 2), icc_profile=icc))
    solid = images.read(save(tmp_path / "b.png", COLOURS, icc_profile=icc))
    opacity = torch.from_numpy(alpha[..., 0] / np.float32(255))
    torch.testing.assert_close(clear, solid * opacity + 1 - opacity)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_profile_is_converted_too(tmp_path, dtype):
    levels = (np.array([[0.0, 0.1, 0.5, 1.0]]) * np.iinfo(dtype).max).astype(dtype)
    x = images.read(save(tmp_path / "g.png", levels, icc_profile=profile("GRAY", 1.0)))  # linear light
    np.testing.assert_allclose(x[0], to_srgb(levels / np.iinfo(dtype).max), atol=2 / 255)


def test_an_srgb_profile_changes_nothing(tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert torch.equal(images.read(save(tmp_path / "s.png", GRADIENT, icc_profile=icc)), as_tensor(GRADIENT))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_what_came_of_a_photograph_is_written_in_its_colours(tmp_path, suffix):
    options = {"quality": 100} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    flat, icc = np.repeat(np.repeat(COLOURS, 16, 0), 16, 1), profile("RGB ", 2.2, DISPLAY_P3)
    original = save(tmp_path / f"p.{suffix}", flat, icc_profile=icc, **options)
    images.write(images.read(original), tmp_path / f"again.{suffix}", like=original)
    with Image.open(tmp_path / f"again.{suffix}") as written:
        assert written.info["icc_profile"] == icc
        np.testing.assert_allclose(np.asarray(written)[8, 8::16].astype(int), COLOURS[0].astype(int), atol=3)


def test_what_came_of_a_grey_photograph_is_written_as_srgb(tmp_path):
    """Its profile is none of RGB pictures."""
    levels = np.repeat((np.array([[0.0, 0.1, 0.5, 1.0]]) * 255).astype(np.uint8), 4, 0)
    original = save(tmp_path / "g.png", levels, icc_profile=profile("GRAY", 1.0))
    images.write(images.read(original), tmp_path / "again.png", like=original)
    with Image.open(tmp_path / "again.png") as written:
        assert "icc_profile" not in written.info
    torch.testing.assert_close(images.read(tmp_path / "again.png"), images.read(original), atol=1 / 255, rtol=0)


def adobe(path: Path, pixels: np.ndarray, index: str = "R03", **options: object) -> Path:
    """Save a picture as a camera does that is set to Adobe RGB: EXIF alone says so."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera's"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 65535
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {ExifTags.Interop.InteropIndex: index}
    return save(path, pixels, exif=exif, **options)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_adobe_rgb_that_exif_alone_tells_is_converted_and_is_told_no_longer(tmp_path, suffix):
    options = {"quality": 100} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    flat = np.repeat(np.repeat(COLOURS, 600, 0), 16, 1)  # in several bands
    x = images.read(adobe(tmp_path / f"a.{suffix}", flat, **options))
    by_profile = images.read(save(tmp_path / "p.png", COLOURS, icc_profile=profile("RGB ", 563 / 256, ADOBE_RGB)))
    for row in (8, -8):
        np.testing.assert_allclose(x[:, row, 8::16], by_profile[:, 0], atol=2.5 / 255)
    images.write(x, tmp_path / f"again.{suffix}", like=tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"again.{suffix}") as written:
        exif = written.getexif()
        assert exif[ExifTags.Base.Make] == "a camera's"
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] == 1
        assert exif.get_ifd(ExifTags.IFD.Interop)[ExifTags.Interop.InteropIndex] == "R98"
    np.testing.assert_allclose(images.read(tmp_path / f"again.{suffix}")[:, 8, 8::16], x[:, 8, 8::16], atol=2.5 / 255)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_exif_says_nothing_of_how_the_original_was_stored(tmp_path, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a scanner's"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 16
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    original = save(tmp_path / "scan.tif", GRADIENT, exif=exif, icc_profile=profile, compression="tiff_lzw")
    images.write(images.read(original), tmp_path / f"again.{suffix}", like=original)
    with Image.open(tmp_path / f"again.{suffix}") as written:
        assert {*written.getexif()} - {ExifTags.IFD.Exif} == {ExifTags.Base.Make}
        assert not written.getexif().get_ifd(ExifTags.IFD.Exif)
        assert written.info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, and that the data are left out
@given(changes=st.lists(st.tuples(st.integers(6, 150), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_exif_costs_the_exif_alone(tmp_path_factory, suffix, changes):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera's"
    own = exif.get_ifd(ExifTags.IFD.Exif)
    own |= {ExifTags.Base.ColorSpace: 65535, ExifTags.IFD.Interop: {ExifTags.Interop.InteropIndex: "R03"}}
    damaged = bytearray(exif.tobytes())
    for place, byte in changes:
        damaged[place % (len(damaged) - 6) + 6] = byte
    folder = tmp_path_factory.mktemp("damaged")
    original = save(folder / f"a.{suffix}", GRADIENT, exif=bytes(damaged))
    x = images.read(original)
    assert x.shape == (3, *GRADIENT.shape[:2])
    images.write(x, folder / f"again.{suffix}", like=original)


def test_a_profile_says_more_than_exif_and_other_spaces_are_srgb(tmp_path):
    icc = profile("RGB ", 2.2, DISPLAY_P3)
    both = images.read(adobe(tmp_path / "both.png", COLOURS, icc_profile=icc))
    assert torch.equal(both, images.read(save(tmp_path / "profile.png", COLOURS, icc_profile=icc)))
    assert torch.equal(images.read(adobe(tmp_path / "other.png", COLOURS, index="R98")), as_tensor(COLOURS))


@pytest.mark.parametrize("damage", [lambda icc: b"no profile", lambda icc: icc[:200], lambda icc: icc[:-24]])
def test_a_damaged_profile_is_ignored_and_named(tmp_path, damage):
    path = save(tmp_path / "p.png", GRADIENT, icc_profile=damage(profile("RGB ", 2.2, DISPLAY_P3)))
    with pytest.warns(UserWarning, match=r"p\.png: the colour profile is damaged"):
        x = images.read(path)
    torch.testing.assert_close(x, as_tensor(GRADIENT))


# what telephones make


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read(tmp_path):
    Image.fromarray(np.repeat(COLOURS, 32, 0).repeat(32, 1)).save(tmp_path / "a.avif", quality=100)
    np.testing.assert_allclose(images.read(tmp_path / "a.avif")[:, 16, 16::32].T, COLOURS[0] / 255, atol=4 / 255)


def test_heic_is_read_by_an_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    picture = Image.fromarray(np.repeat(COLOURS, 32, 0).repeat(32, 1))
    heif.from_pillow(picture).save(tmp_path / "a.HEIC", quality=100)
    np.testing.assert_allclose(images.read(tmp_path / "a.HEIC")[:, 16, 16::32].T, COLOURS[0] / 255, atol=4 / 255)


def test_without_the_extra_heic_is_named(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(ValueError, match=r"IMG_1\.HEIC.*pip install pillow-heif"):
        images.read(tmp_path / "IMG_1.HEIC")


def test_alpha_is_composited_on_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    x = on_white(save(tmp_path / "a.png", pixels))
    torch.testing.assert_close(x[:, 0].T, torch.tensor([[1.0, 0, 0], [1, 1, 1], [0.8, 0.8, 0.8]]))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "t.png", transparency=255)
    assert on_white(tmp_path / "t.png")[:, 0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_pictures_the_first_is_taken_and_it_is_told(tmp_path, name):
    black, white = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")
    black.save(tmp_path / name, save_all=True, append_images=[white])
    with pytest.warns(UserWarning, match=rf"{name}: it holds several pictures, and only the first is taken\."):
        assert images.read(tmp_path / name).max() < 0.1


def test_what_loses_nothing_is_read_without_a_word(tmp_path, recwarn):
    picture = Image.new("RGB", (8, 8), "red")
    picture.save(tmp_path / "preview.jpg", "MPO", save_all=True, append_images=[picture.resize((4, 4))])
    picture.convert("RGBA").save(tmp_path / "opaque.png")
    for path in tmp_path.iterdir():
        assert images.read(path).shape == (3, 8, 8)
    assert not recwarn


def test_cmyk_is_read(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    x = images.read(tmp_path / "c.jpg")
    assert x.shape == (3, 8, 8)
    assert x[0].min() > 0.9
    assert x[1:].max() < 0.1


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    x = images.read(save(tmp_path / "e.png", GRADIENT, exif=exif))
    torch.testing.assert_close(x, as_tensor(np.rot90(GRADIENT, -1).copy()))


def test_one_pixel(tmp_path):
    assert images.read(save(tmp_path / "1.png", GRADIENT[:1, :1])).shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"not a picture at all", "no picture"), (b"%!PS-Adobe-3.0 EPSF", "no picture")],
)
def test_what_is_no_picture_is_refused(tmp_path, content, message):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.png.*{message}"):
        images.read(tmp_path / "x.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"t.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"t\.{suffix} is"):
        images.read(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        images.read(tmp_path / "nothing.png")


def test_too_large_pictures_are_refused_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "big.png"
    Image.new("1", (9000, 9000)).save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("was decoded"))
    with pytest.raises(ValueError, match=r"big\.png .*9000×9000 pixels \(81 megapixels\).*in Python, pass"):
        images.read(path)
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20000, 20000)).save(bomb)
    with pytest.raises(ValueError, match=r"bomb\.png is too large"):
        images.read(bomb, max_megapixels=1e6)


def test_forty_megapixels_are_read(tmp_path):
    Image.new("L", (8000, 5000), 51).save(tmp_path / "40.png", compress_level=1)
    x = images.read(tmp_path / "40.png")
    assert x.shape == (3, 5000, 8000)
    assert x[0, -1, -1].item() == pytest.approx(0.2)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damaged_bytes_never_raise_anything_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "x.png"
    Image.fromarray(GRADIENT).save(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        assert images.read(path).shape[0] == 3
    except ValueError as error:
        assert "x.png" in str(error)  # noqa: PT017


# writing


@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("webp", 0), ("jpg", 3), ("JPEG", 3)])
def test_write_then_read(tmp_path, suffix, tolerance):
    x = as_tensor(np.asarray(Image.fromarray(GRADIENT).resize((64, 64), Image.Resampling.BICUBIC)))
    images.write(x[None], tmp_path / f"a.{suffix}")
    torch.testing.assert_close(images.read(tmp_path / f"a.{suffix}"), x, atol=tolerance / 255 + 1e-6, rtol=0)


def test_write_clamps_and_rounds(tmp_path):
    x = torch.tensor([-1.0, 2.0, 0.7 / 255]).view(3, 1, 1)
    images.write(x, tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).ravel().tolist() == [0, 255, 1]


def test_floating_point_pixels_are_refused_for_what_they_are(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="floating-point pixels"):
        images.read(tmp_path / "float.tiff")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_write_refuses_nan(tmp_path, value):
    with pytest.raises(ValueError, match="3 of 12 pixel values are NaN"):
        images.write(torch.cat([torch.full((3, 1, 1), value), torch.zeros(3, 1, 3)], dim=2), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_write_refuses_shapes_suffixes_and_folders(tmp_path):
    with pytest.raises(ValueError, match=r"'a\.bmp'.*\.png"):
        images.write(torch.zeros(3, 2, 2), tmp_path / "a.bmp")
    for shape in [(2, 3, 2, 2), (3, 3), (1, 2, 2)]:
        with pytest.raises(ValueError, match="expected"):
            images.write(torch.zeros(shape), tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="make it first"):
        images.write(torch.zeros(3, 2, 2), tmp_path / "no" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_unless_told_otherwise(tmp_path):
    images.write(torch.zeros(3, 2, 2), tmp_path / "a.png")
    images.write(torch.ones(3, 2, 2), tmp_path / "a.png")
    with pytest.raises(FileExistsError, match=r"a\.png exists: .* --overwrite"):
        images.write(torch.zeros(3, 2, 2), tmp_path / "a.png", overwrite=False)
    assert images.read(tmp_path / "a.png").min() == 1
    assert os.listdir(tmp_path) == ["a.png"]
    images.write(torch.zeros(3, 2, 2), tmp_path / "b.png", overwrite=False)
    assert images.read(tmp_path / "b.png").max() == 0


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    images.write(torch.ones(3, 2, 2), "~/a.png")
    assert images.read("~/a.png").shape == images.read(tmp_path / "a.png").shape == (3, 2, 2)


@pytest.mark.parametrize("given", [np.zeros((1, 3, 4, 4), np.float32), [[0.0]], None, 1.0])
def test_what_is_no_tensor_is_told_how_to_become_one(tmp_path, given):
    for use in (
        lambda x: images.write(x, tmp_path / "a.png"),
        lambda x: images.resize(x, (2, 2)),
        images.grid,
        images.to_uint8,
    ):
        with pytest.raises(TypeError, match=rf"got {type(given).__name__}: torch.as_tensor makes one"):
            use(given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch, error):
    images.write(torch.ones(3, 2, 2), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def fail(self, path, *_, **__):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(type(error)):
        images.write(torch.zeros(3, 2, 2), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


# resizing


def test_resize_equals_matlab():
    folder = os.environ.get("FACESR_ORACLES")
    if not folder or not Path(folder, "metrics.safetensors").is_file():
        pytest.skip("metrics.safetensors is missing: set FACESR_ORACLES to the folder that holds it")
    oracle = load_file(Path(folder, "metrics.safetensors"))
    for j in range(2):
        face = oracle[f"image{j}"].permute(2, 0, 1)[None].float() / 255
        for scale in (4, 8, 16):
            small = images.resize(face, (256 // scale, 256 // scale))
            torch.testing.assert_close(small[0], oracle[f"matlab_down{scale}_{j}"], atol=1e-5, rtol=0)
        large = images.resize(oracle[f"matlab_down8_{j}"][None], (256, 256))
        torch.testing.assert_close(large[0], oracle[f"matlab_up8_{j}"], atol=1e-5, rtol=0)


def test_resize_equals_torch_inside():
    x = torch.rand(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = images.resize(x, (16, 24))
    theirs = torch.nn.functional.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True)
    torch.testing.assert_close(ours[..., 3:-3, 3:-3], theirs[..., 3:-3, 3:-3])
    assert (ours - theirs).abs().max() > 1e-4  # the border differs: symmetric here, renormalised there


def test_box_is_the_mean_of_blocks_and_repeats_pixels():
    x = torch.rand(1, 3, 12, 18, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(images.resize(x, (4, 6), "box"), torch.nn.functional.avg_pool2d(x, 3))
    torch.testing.assert_close(images.resize(x, (24, 36), "box"), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_bilinear_is_a_triangle_wide_as_the_scale():
    row = images.resize_matrix(12, 3, "bilinear", torch.float64)[1]
    triangle = (1 - (torch.arange(12.0, dtype=torch.float64) - 5.5).abs() / 4).clamp(min=0)
    torch.testing.assert_close(row, triangle / triangle.sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["bicubic", "bilinear", "box"]))
def test_rows_sum_to_one_and_mirror(n_in, n_out, kernel):
    matrix = images.resize_matrix(n_in, n_out, kernel, torch.float64)
    assert matrix.shape == (n_out, n_in)
    torch.testing.assert_close(matrix.sum(1), torch.ones(n_out, dtype=torch.float64))
    if kernel != "box":  # a box whose edge falls on a pixel centre takes one side
        torch.testing.assert_close(matrix, matrix.flip(0, 1))
    if n_in == n_out:
        torch.testing.assert_close(matrix, torch.eye(n_in, dtype=torch.float64))


def test_resize_is_differentiable_even_after_inference_mode():
    images.resize_matrix.cache_clear()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        images.resize(x, (4, 4))
    assert torch.autograd.gradcheck(lambda t: images.resize(t, (4, 4)), x.requires_grad_())


def test_resize_refuses():
    with pytest.raises(ValueError, match="at least 1 pixel"):
        images.resize(torch.zeros(1, 3, 4, 4), (0, 4))
    with pytest.raises(ValueError, match=r"in whole numbers, got 4 → 2\.5"):
        images.resize(torch.zeros(1, 3, 4, 4), (2.5, 4))
    for size in (8, (8,), (8, 8, 3)):
        with pytest.raises(ValueError, match=r"the size is \(h, w\), two whole numbers"):
            images.resize(torch.zeros(1, 3, 4, 4), size)
    with pytest.raises(ValueError, match=r"'lanczos'.*bicubic"):
        images.resize(torch.zeros(1, 3, 4, 4), (2, 2), "lanczos")
    with pytest.raises(ValueError, match=r"expected pictures as a float tensor.*\(3, 4, 4\)"):
        images.resize(torch.zeros(3, 4, 4), (2, 2))


# tiling


def test_grid_places_every_picture():
    x = torch.linspace(0, 0.5, 5).view(5, 1, 1, 1).expand(5, 3, 4, 6)
    tiled = images.grid(x, columns=2, pad=1)
    assert tiled.shape == (3, 3 * 5 - 1, 2 * 7 - 1)
    for i in range(5):
        top, left = 5 * (i // 2), 7 * (i % 2)
        torch.testing.assert_close(tiled[:, top : top + 4, left : left + 6], x[i])
    assert (tiled[:, 4] == 1).all()
    assert (tiled[:, 10:, 7:] == 1).all()  # the empty place
    assert images.grid(x).shape == (3, 2 * 6 - 2, 3 * 8 - 2)
    for odd in ({"columns": 0}, {"columns": 1.5}, {"pad": -1}, {"pad": None}):
        with pytest.raises(ValueError, match="at least one"):
            images.grid(x, **odd)


def test_to_uint8_rounds():
    x = torch.arange(256).div(255).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    pixels = images.to_uint8(x)
    assert pixels.shape == (2, 16, 16, 3)
    assert (pixels[1, ..., 2].ravel() == np.arange(256)).all()
