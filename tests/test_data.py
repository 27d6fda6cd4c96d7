import os

import numpy as np
import pytest
import torch

from facesr_lib import assets, data, images
from facesr_lib.assets import AssetMissing, Entry


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Stand a small face folder and an empty cache in front of this machine's: train has 11 faces, test 2."""
    monkeypatch.setenv("FACESR_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    common = {"purpose": "a test", "licence": "none", "size": 1, "source": "nowhere", "without": "the rest still works"}
    registry = {
        "faces": Entry("faces", "faces", count=13, **common),
        "set5": Entry("set5", "sr/set5", count=2, **common),
    }
    monkeypatch.setattr(assets.registry, "entries", lambda: registry)
    for split, numbers in {"train": range(1, 12), "test": (90, 100)}.items():
        (tmp_path / "home" / "faces" / split).mkdir(parents=True)
        for i in numbers:
            images.write(picture(i), tmp_path / "home" / "faces" / split / f"{i}.png")
    return tmp_path / "home"


def picture(seed: int, height: int = 256, width: int = 256) -> torch.Tensor:
    levels = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


def block_means(x: torch.Tensor, side: int) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(x, x.shape[-1] // side)


@pytest.mark.parametrize("resolution", [256, 64, 16])
def test_faces_are_block_means_in_numerical_order(home, resolution):
    x = data.faces("train", resolution)
    assert x.shape == (11, 3, resolution, resolution)
    assert x.dtype == torch.float32
    for i in range(11):
        torch.testing.assert_close(x[i], block_means(picture(i + 1), resolution), atol=0.5 / 255 + 1e-5, rtol=0)
    torch.testing.assert_close(x * 255, (x * 255).round(), atol=1e-4, rtol=0)


def test_faces_come_from_the_cache_and_follow_the_folder(home, tmp_path, monkeypatch):
    first = data.faces("test", 32)
    (cached,) = (tmp_path / "cache" / "prepared").iterdir()
    assert np.load(cached).shape == (2, 32, 32, 3)
    with monkeypatch.context() as patch:
        patch.setattr(images, "read", lambda _: pytest.fail("was decoded again"))
        torch.testing.assert_close(data.faces("test", 32), first, atol=0, rtol=0)
        torch.testing.assert_close(data.faces("test", 32, count=1), first[:1], atol=0, rtol=0)
    images.write(picture(7), home / "faces" / "test" / "100.png")
    os.utime(home / "faces" / "test" / "100.png", ns=(1, 1))
    assert not torch.equal(data.faces("test", 32)[1], first[1])


def test_a_damaged_cache_is_made_again(home, tmp_path):
    first = data.faces("test", 32)
    (cached,) = (tmp_path / "cache" / "prepared").iterdir()
    cached.write_bytes(cached.read_bytes()[:200])
    torch.testing.assert_close(data.faces("test", 32), first)
    assert np.load(cached).shape == (2, 32, 32, 3)


def test_a_cache_that_cannot_be_written_costs_only_time(home, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert data.faces("test", 32).shape == (2, 3, 32, 32)


def test_faces_refuse(home):
    with pytest.raises(ValueError, match="resolution 48 does not divide 256"):
        data.faces("train", 48)
    with pytest.raises(ValueError, match="unknown split 'validation'"):
        data.faces("validation")
    for count in (0, 3):
        with pytest.raises(ValueError, match=rf"asked for {count} faces.*1 to 2"):
            data.faces("test", 32, count)
    (home / "faces" / "train" / "5.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"5\.png"):
        data.faces("train", 32)
    (home / "faces" / "train" / "5.png").unlink()
    with pytest.raises(AssetMissing, match=r"incomplete.*the rest still works"):
        data.faces("train", 32)


def test_the_prepared_faces_are_read():
    try:
        assets.path("faces")
    except AssetMissing as error:
        pytest.skip(str(error))
    x = data.faces("test", 64)
    assert x.shape == (50, 3, 64, 64)
    assert x.flatten(1).std(1).min() > 0.05
    (first, *_), folder = data.faces("test", 256, 1), assets.path("faces") / "test"
    torch.testing.assert_close(first, images.read(folder / "1263.jpg"), atol=1e-6, rtol=0)


def test_folder_crops_resizes_and_names_what_it_skips(tmp_path):
    images.write(picture(1, 32, 64), tmp_path / "10.png")
    images.write(picture(2, 64, 64), tmp_path / "2.png")
    images.write(picture(3, 48, 48), tmp_path / "3.png")
    images.write(picture(4, 1, 1), tmp_path / "4.png")
    (tmp_path / "5.jpg").write_bytes(b"damaged")
    (tmp_path / "6.png").touch()
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.warns(UserWarning, match=r"skipped 2 of 6 pictures.*5\.jpg.*6\.png"):
        x = data.folder(tmp_path, 32)
    assert x.shape == (4, 3, 32, 32)
    expected = [
        block_means(picture(2, 64, 64), 32),
        images.resize(picture(3, 48, 48)[None], (32, 32))[0].clamp(0, 1),
        picture(4, 1, 1).expand(3, 32, 32),
        picture(1, 32, 64)[:, :, 16:48],
    ]
    torch.testing.assert_close(x, torch.stack(expected), atol=0.51 / 255, rtol=0)  # kept as bytes


def test_folder_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.folder(tmp_path / "nothing", 32)
    with pytest.raises(ValueError, match="no picture in"):
        data.folder(tmp_path, 32)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        data.folder(tmp_path, 0)


def test_benchmark_images_keep_their_sizes(home):
    with pytest.raises(AssetMissing, match=r"'set5'.*put the 2 pictures at"):
        data.benchmark_images("set5")
    (home / "sr" / "set5").mkdir(parents=True)
    images.write(picture(1, 10, 20), home / "sr" / "set5" / "img_001.png")
    images.write(picture(2, 30, 8), home / "sr" / "set5" / "img_002.png")
    first, second = data.benchmark_images("set5")
    torch.testing.assert_close(first, picture(1, 10, 20))
    assert second.shape == (3, 30, 8)
    with pytest.raises(ValueError, match=r"unknown benchmark 'urban100'"):
        data.benchmark_images("urban100")
