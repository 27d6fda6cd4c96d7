import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
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
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + np.array([65535, 0, 32768], ">u2").tobytes()
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    (tmp_path / "w.png").write_bytes(png + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b""))
    x = images.read(tmp_path / "w.png").flatten()
    torch.testing.assert_close(x, torch.tensor([1.0, 0.0, 0.5]), atol=1 / 255, rtol=0)


def test_alpha_is_composited_on_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    x = images.read(save(tmp_path / "a.png", pixels))
    torch.testing.assert_close(x[:, 0].T, torch.tensor([[1.0, 0, 0], [1, 1, 1], [0.8, 0.8, 0.8]]))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "t.png", transparency=255)
    assert images.read(tmp_path / "t.png")[:, 0, 0].tolist() == [1, 1, 1]


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
    monkeypatch.setattr(images, "_rgb", lambda _: pytest.fail("was decoded"))
    with pytest.raises(ValueError, match=r"big\.png has 9000 x 9000 pixels \(81 megapixels\)"):
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
    with pytest.raises(ValueError, match=r"'lanczos'.*bicubic"):
        images.resize(torch.zeros(1, 3, 4, 4), (2, 2), "lanczos")
    with pytest.raises(ValueError, match=r"expected float pictures.*\(3, 4, 4\)"):
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
    with pytest.raises(ValueError, match="at least one"):
        images.grid(x, columns=0)


def test_to_uint8_rounds():
    x = torch.arange(256).div(255).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    pixels = images.to_uint8(x)
    assert pixels.shape == (2, 16, 16, 3)
    assert (pixels[1, ..., 2].ravel() == np.arange(256)).all()
