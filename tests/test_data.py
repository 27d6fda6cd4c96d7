import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from facesr_lib import assets, data, images
from facesr_lib.assets import AssetMissing, Entry
from facesr_lib.training.patches import read_pictures


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Stand a small face folder and an empty cache in front of this machine's: train has 11 faces, test 2."""
    monkeypatch.setenv("FACESR_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    common = {"purpose": "a test", "licence": "none", "size": 1, "source": "nowhere", "without": "the rest still works"}
    registry = {
        "faces-train": Entry("faces-train", "faces/train", count=11, **common),
        "faces-test": Entry("faces-test", "faces/test", count=2, **common),
        "celeba-hq": Entry("celeba-hq", "celeba-hq", count=2, **common),
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


def test_faces_come_from_the_cache_and_follow_the_folder(home, monkeypatch):
    first = data.faces("test", 32)
    (cached,) = (assets.cache() / "prepared").iterdir()
    assert np.load(cached).shape == (2, 32, 32, 3)
    with monkeypatch.context() as patch:
        patch.setattr(images, "read", lambda _: pytest.fail("was decoded again"))
        torch.testing.assert_close(data.faces("test", 32), first, atol=0, rtol=0)
        torch.testing.assert_close(data.faces("test", 32, count=1), first[:1], atol=0, rtol=0)
    images.write(picture(7), home / "faces" / "test" / "100.png")
    os.utime(home / "faces" / "test" / "100.png", ns=(1, 1))
    assert not torch.equal(data.faces("test", 32)[1], first[1])


def test_a_damaged_cache_is_made_again(home):
    first = data.faces("test", 32)
    (cached,) = (assets.cache() / "prepared").iterdir()
    cached.write_bytes(cached.read_bytes()[:200])
    torch.testing.assert_close(data.faces("test", 32), first)
    assert np.load(cached).shape == (2, 32, 32, 3)


def test_a_cache_that_cannot_be_written_costs_only_time(home, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert data.faces("test", 32).shape == (2, 3, 32, 32)


def test_faces_refuse(home):
    with pytest.raises(ValueError, match=r"resolution must be a whole number, among \[.*64, 128, 256\]; got 48"):
        data.faces("train", 48)
    with pytest.raises(ValueError, match="there is no split 'validation': choose one of train, test"):
        data.faces("validation")
    for count in (0, 3):
        with pytest.raises(ValueError, match=rf"faces of split 'test' .* at least 1, at most 2; got {count}"):
            data.faces("test", 32, count)
    (home / "faces" / "train" / "5.png").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"5\.png"):
        data.faces("train", 32)
    (home / "faces" / "train" / "5.png").unlink()
    with pytest.raises(AssetMissing, match=r"incomplete.*the rest still works"):
        data.faces("train", 32)


def test_the_prepared_faces_are_read():
    try:
        assets.path("faces-test")
    except AssetMissing as error:
        pytest.skip(str(error))
    x = data.faces("test", 64)
    assert x.shape == (50, 3, 64, 64)
    assert x.flatten(1).std(1).min() > 0.05
    (first, *_), folder = data.faces("test", 256, 1), assets.path("faces-test")
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


def test_held_out_faces_say_where_they_come_from(home):
    faces, origin = data.held_out(64, 2)
    assert origin == "held-out faces"
    assert torch.equal(faces, data.faces("test", 64))
    with pytest.raises(ValueError, match="at most 2; got 3"):
        data.held_out(64, 3)
    with pytest.raises(AssetMissing, match="'celeba-hq'"):
        data.held_out(512, 1)
    for folder, i in (("0", 10), ("1", 2)):
        (home / "celeba-hq" / folder).mkdir(parents=True)
        images.write(torch.full((3, 8, 8), i / 255), home / "celeba-hq" / folder / f"{i}.jpg")
    faces, origin = data.held_out(512, 2)
    assert (origin, faces.shape) == ("CelebA-HQ", (2, 3, 512, 512))
    torch.testing.assert_close(faces.mean((1, 2, 3)) * 255, torch.tensor([10.0, 2.0]), atol=0.1, rtol=0)
    (home / "faces" / "test" / "90.png").unlink()
    with pytest.raises(AssetMissing, match="'faces-test' is incomplete"):
        data.held_out(64, 1)


def grey(level: int) -> torch.Tensor:
    return torch.full((3, 8, 8), level / 255)


def levels(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


def test_sub_folders_are_read_in_the_order_of_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places = ["00000/00002.png", "00000/00010.PNG", "01000/00001.png", "odd.png/7.jpg", ".hidden/3.png", "00000/.4.png"]
    for level, place in enumerate(places):
        (tmp_path / "faces" / place).parent.mkdir(parents=True, exist_ok=True)
        images.write(grey(level), tmp_path / "faces" / place)
    images.write(grey(9), tmp_path / "faces" / "2.jpg")
    (tmp_path / "faces" / "2.jpg").rename(tmp_path / "faces" / "2.jfif")
    assert levels(data.folder(tmp_path / "faces", 4)) == [0, 1, 9, 3, 2]
    images.write(grey(77), tmp_path / "faces" / "01000" / "00001.png")
    assert levels(data.folder(tmp_path / "faces", 4))[-1] == 77  # and not what the cache held
    (tmp_path / "faces" / "00000" / "00010.PNG").rename(tmp_path / "faces" / "00000" / "00001.PNG")
    assert levels(data.folder(tmp_path / "faces", 4))[0] == 1


def test_folders_that_are_links_are_read_once_each(tmp_path):
    faces, elsewhere = tmp_path / "faces", tmp_path / "elsewhere"
    for level, place in enumerate((elsewhere / "1.png", elsewhere / "more" / "2.png", faces / "z" / "3.png")):
        place.parent.mkdir(parents=True, exist_ok=True)
        images.write(grey(level), place)
    (faces / "a").mkdir()
    for link, target in {"00000": elsewhere, "00001": elsewhere, "a/z": faces / "z", "z/back": faces}.items():
        (faces / link).symlink_to(target, target_is_directory=True)
    (elsewhere / "circle").symlink_to(elsewhere / "more" / "..", target_is_directory=True)
    found = [path.relative_to(faces).as_posix() for path in data.pictures(faces)]
    assert found == ["00000/1.png", "00000/more/2.png", "z/3.png"]
    assert levels(data.folder(faces, 4)) == [0, 1, 2]
    (tmp_path / "link").symlink_to(faces, target_is_directory=True)
    assert len(data.pictures(tmp_path / "link")) == 3


def test_what_is_no_picture_is_skipped_and_counted_once(tmp_path):
    images.write(grey(5), tmp_path / "1.png")
    (tmp_path / "2.png").mkdir()
    (tmp_path / "3.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "4.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    for i in range(5, 20):
        (tmp_path / f"{i}.jpg").write_text("no picture")
    with pytest.warns(UserWarning, match=r"skipped 17 of 18 pictures: .*3\.png.*4\.heic.*pillow-heif.*7 more") as told:
        assert levels(data.folder(tmp_path, 4)) == [5]
    assert len(told) == 1


def test_folders_that_cannot_be_read_are_named_and_counted(tmp_path, monkeypatch):
    faces, read = tmp_path / "faces", os.scandir
    (faces / "closed.v2").mkdir(parents=True)
    images.write(grey(5), faces / "1.png")
    (faces / "notes").touch()
    (faces / "00000").symlink_to(tmp_path / "gone", target_is_directory=True)
    (faces / "00001").symlink_to(faces / "00001")

    def scandir(place):
        if Path(place).name == "closed.v2":  # to root nothing is closed
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return read(place)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", scandir)
    with pytest.warns(UserWarning, match=r"^skipped 3 of 4 pictures: .*denied.*closed\.v2.*00000: check.*00001: check"):
        assert levels(data.folder(faces, 4)) == [5]
    with pytest.raises(OSError, match=r"Permission denied|no picture at .*00000"):
        data.prepared(faces, 4, skip_damaged=False)
    with pytest.warns(UserWarning, match="^skipped 3 pictures of "):
        assert len(read_pictures(faces, 1)) == 1


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "faces").mkdir()
    images.write(grey(5), tmp_path / "faces" / "1.png")
    assert levels(data.folder("~/faces", 4)) == [5]


def test_what_other_code_has_prepared_is_prepared_anew(tmp_path, monkeypatch):
    images.write(grey(5), tmp_path / "1.png")
    data.folder(tmp_path, 4)
    monkeypatch.setattr(images, "read", lambda path: grey(7))
    assert levels(data.folder(tmp_path, 4)) == [5]
    other = tmp_path / "images.py"
    other.write_text("another way to read")
    monkeypatch.setattr(images, "__file__", str(other))
    assert levels(data.folder(tmp_path, 4)) == [7]


def test_what_is_counted_is_what_is_used(home):
    hidden = home / "faces" / "test" / ".fetch-1" / "a.png"
    hidden.parent.mkdir()
    images.write(picture(5), hidden)  # a download that was shut down
    (home / "faces" / "test" / "100.png").unlink()
    assert assets.verify("faces-test") == "incomplete"
    with pytest.raises(AssetMissing, match="incomplete"):
        data.faces("test", 32)
    images.write(picture(100), home / "faces" / "test" / "b.png")
    (home / "faces" / "test" / "more").mkdir()
    images.write(picture(101), home / "faces" / "test" / "more" / "101.png")
    assert assets.verify("faces-test") == "unchecked"
    assert len(data.faces("test", 32)) == 2


def test_a_relative_data_folder_is_resolved_once(home, monkeypatch, tmp_path):
    monkeypatch.chdir(home.parent)
    monkeypatch.setenv("FACESR_DATA", home.name)
    first = data.faces("test", 32)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert assets.home() == home
    assert torch.equal(data.faces("test", 32), first)


def test_processes_may_prepare_one_folder_at_once(home):
    code = "from facesr_lib import data; print(data.prepared({!r}, 8).sum())".format(str(home / "faces" / "train"))
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    sums = [int(process.communicate()[0]) for process in running]
    assert sums == [int(data.prepared(home / "faces" / "train", 8).sum())] * 2
    assert [p.suffix for p in (assets.cache() / "prepared").iterdir()] == [".npy"]


def test_folder_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.folder(tmp_path / "nothing", 32)
    with pytest.raises(ValueError, match="no picture in"):
        data.folder(tmp_path, 32)
    for odd in (0, 2.5, None):
        with pytest.raises(ValueError, match=f"resolution must be a whole number, at least 1; got {odd}"):
            data.folder(tmp_path, odd)


def test_pictures_of_a_set_keep_their_sizes(home):
    with pytest.raises(AssetMissing, match=r"'set5'.*put the 2 pictures at"):
        data.picture_set("set5")
    (home / "sr" / "set5").mkdir(parents=True)
    images.write(picture(1, 10, 20), home / "sr" / "set5" / "img_001.png")
    images.write(picture(2, 30, 8), home / "sr" / "set5" / "img_002.png")
    first, second = data.picture_set("set5")
    torch.testing.assert_close(first, picture(1, 10, 20))
    assert second.shape == (3, 30, 8)
    with pytest.raises(ValueError, match=r"there is no set of pictures 'set15': did you mean set5 or set14"):
        data.picture_set("set15")


# What is known of the faces


def labelled(path, values, names=("3", "10", "2")):
    np.savez_compressed(path, names=np.array(names), labels=values)
    return path


@pytest.fixture
def three(tmp_path):
    (tmp_path / "three").mkdir()
    for i in (2, 3, 10):
        images.write(picture(i), tmp_path / "three" / f"{i}.png")
    return tmp_path / "three"


def test_landmarks_follow_the_faces_by_name_and_the_pixels_by_size(three, tmp_path):
    points = np.zeros((3, 68, 2), np.float32)
    points[:, :, 0], points[:, :, 1] = np.array([30, 100, 20])[:, None], np.arange(68)
    found = data.landmarks(three, 256, labelled(tmp_path / "l.npz", points))
    assert found.shape == (3, 68, 2)
    assert found[:, 0, 0].tolist() == [20, 30, 100]  # 2, 3, 10
    small = data.landmarks(three, 64, tmp_path / "l.npz")
    torch.testing.assert_close(small[0, :, 1] * 4 + 1.5, torch.arange(68.0))  # of four pixels the middle is their one's


def test_parsing_follows_the_faces_and_is_made_small_by_the_nearest_pixel(three, tmp_path):
    maps = np.zeros((3, 256, 256), np.uint8) + np.array([3, 10, 2], np.uint8)[:, None, None]
    maps[0, 2::4, 2::4] = 255
    found = data.parsing(three, 64, labelled(tmp_path / "l.npz", maps))
    assert (found.shape, found.dtype) == ((3, 64, 64), np.uint8)
    assert [set(np.unique(face)) for face in found] == [{2}, {255}, {10}]


def test_the_shipped_labels_are_of_the_faces_and_agree():
    """A pupil, which is the middle of an eye's six points, lies on an eye, unless that is closed or behind glass."""
    try:
        points, maps = (read("faces-test", 256) for read in (data.landmarks, data.parsing))
    except AssetMissing as missing:
        pytest.skip(str(missing))
    assert (len(points), len(maps)) == (50, 50)
    for first, eye in ((36, 5), (42, 4)):
        x, y = points[:, first : first + 6].mean(1).round().long().T
        seen = maps[np.arange(50), y.numpy(), x.numpy()]
        assert (seen == eye).mean() > 0.9


@pytest.mark.parametrize(
    ("read", "values", "names", "message"),
    [
        (data.landmarks, np.zeros((3, 68, 2)), ("3", "9", "2"), r"no landmarks of 1 of the 3 faces in .*, such as 10:"),
        (data.landmarks, np.zeros((3, 5, 2)), ("3", "10", "2"), r"holds no landmarks: they are \(M, 68, 2\)"),
        (data.landmarks, np.full((3, 68, 2), 900.0), ("3", "10", "2"), r"in pixels of 256²"),
        (data.landmarks, np.full((3, 68, 2), np.nan), ("3", "10", "2"), r"holds no landmarks"),
        (data.landmarks, np.zeros((2, 68, 2)), ("3", "10", "2"), r"holds no labels \(3 names, 2 labels\)"),
        (data.landmarks, np.full((3, 68, 2), "9"), ("3", "10", "2"), r"holds no landmarks"),
        (data.parsing, np.zeros((3, 128, 128), np.uint8), ("3", "10", "2"), r"holds no parsing.*\(3, 128, 128\)"),
        (data.parsing, np.zeros((3, 256, 256)), ("3", "10", "2"), r"uint8; got .*float64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(three, tmp_path, read, values, names, message):
    with pytest.raises(ValueError, match=message):
        read(three, 64, labelled(tmp_path / "l.npz", values, names))


def test_faces_of_ones_own_come_without_labels(three, tmp_path):
    with pytest.raises(ValueError, match="come without landmarks: give them"):
        data.landmarks(three)
    with pytest.raises(FileNotFoundError, match="check the path"):
        data.landmarks(three, labels=tmp_path / "none.npz")
    for content in (b"", b"no such thing"):
        (tmp_path / "l.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"holds no labels.*'names' and 'labels'"):
            data.landmarks(three, labels=tmp_path / "l.npz")
    (tmp_path / "none").mkdir()
    for read in (data.landmarks, data.parsing):
        with pytest.raises(ValueError, match=r"no picture is in .*none: names should end in \.png"):
            read(tmp_path / "none", labels=labelled(tmp_path / "l.npz", np.zeros((3, 68, 2))))
    np.save(tmp_path / "l.npy", np.zeros((3, 68, 2)))
    with pytest.raises(ValueError, match="holds no labels"):
        data.landmarks(three, labels=tmp_path / "l.npy")
    with pytest.raises(ValueError, match=r"among \[.*64, 128, 256\]; got 100"):
        data.parsing("faces-test", 100)
