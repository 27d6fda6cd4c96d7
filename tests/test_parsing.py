"""The parsing network: parity with the official one, its training, and how its maps are judged."""

import json
from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facesr_lib import assets, cli, data
from facesr_lib.degrade import CameraPipeline
from facesr_lib.evaluation.papers import fpn
from facesr_lib.metrics.parsing import confusion, iou
from facesr_lib.networks.parsing import CLASSES, UNDECIDED, ParsingNetwork, load, save
from facesr_lib.training import celebamask, loop
from facesr_lib.training import parsing as training

ORACLES = ROOT / "tests" / "oracles"
SMALL = {"size": 64, "bottleneck": 4, "width": 8, "max_width": 32, "depth": 2}


@pytest.fixture(scope="module")
def oracle():
    return load_file(ORACLES / "fpn_parsenet.safetensors")


def filled(names, template):
    """Fill every tensor by the rule of the oracles' README, j counting through the names."""
    state = {}
    for j, name in enumerate(names):
        value = template[name]
        i = torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)
        wave = torch.sin(i + j)
        if not value.is_floating_point():
            state[name] = value
        elif name.endswith("running_mean"):
            state[name] = 0.1 * wave
        elif name.endswith("running_var"):
            state[name] = 1 + 0.5 * wave
        elif value.ndim == 1:
            state[name] = name.endswith("weight") + 0.1 * wave
        else:
            noise = torch.sin(12.9898 * (i + 1) + 78.233 * j) * 43758.5453
            state[name] = (2 / value[0].numel()) ** 0.5 * 12**0.5 * (noise - noise.floor() - 0.5)
    return state


@pytest.mark.parametrize(("kind", "sizes"), [("small", SMALL), ("full", {})])
def test_the_network_equals_the_official(kind, sizes, oracle):
    network = ParsingNetwork(**sizes).eval()
    names = json.loads((ORACLES / "fpn_parsenet_keys.json").read_text())[kind]
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == names
    network.load_state_dict(filled(names, network.state_dict()))
    cases = {f"{kind}": oracle["x"]} | ({"small_rect": oracle["x_rect"]} if kind == "small" else {})
    for case, x in cases.items():
        with torch.no_grad():
            logits, image = network((x + 1) / 2)
        for ours, theirs in ((logits, oracle[f"{case}_mask"]), (2 * image - 1, oracle[f"{case}_image"])):
            assert_close(ours / theirs.std(), theirs / theirs.std(), atol=1e-4, rtol=0)


def test_the_network_has_the_papers_number_of_parameters():
    assert sum(p.numel() for p in ParsingNetwork().parameters()) == 21_303_254
    assert len(CLASSES) == 19


def test_a_network_is_read_back_as_it_was_written(tmp_path):
    network = ParsingNetwork(size=32, bottleneck=8, width=4, max_width=8, depth=1)
    network(torch.rand(4, 3, 32, 32))  # the norms see something
    save(network, tmp_path / "small.safetensors", {"images_seen": "4"})
    again, x = load(tmp_path / "small.safetensors"), torch.rand(1, 3, 32, 48)
    assert again.sizes == network.sizes
    with torch.no_grad():
        for ours, theirs in zip(again(x), network.eval()(x), strict=True):
            assert_close(ours, theirs, atol=5e-3, rtol=0)  # half precision


def test_what_half_precision_cannot_hold_is_not_written(tmp_path):
    network = ParsingNetwork(**SMALL)
    network.body[0].conv1.conv2d.weight.data[0] = 1e6
    with pytest.raises(ValueError, match=r"body\.0\.conv1\.conv2d\.weight cannot be kept in half precision"):
        save(network, tmp_path / "large.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_what_is_no_network_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no network at"):
        load(tmp_path / "none.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"....")
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "damaged.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no parsing network"):
        load(tmp_path / "other.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "less.safetensors", {"sizes": json.dumps(SMALL)})
    with pytest.raises(ValueError, match="another architecture or width than this ParsingNetwork"):
        load(tmp_path / "less.safetensors")


@pytest.mark.parametrize("sizes", [{"size": 96}, {"size": 16}, {"width": 0}, {"width": 64, "max_width": 32}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="size"):
        ParsingNetwork(**sizes)


@pytest.mark.parametrize("shape", [(65, 64), (16, 64)])
def test_pictures_that_cannot_be_halved_so_often_are_refused(shape):
    with pytest.raises(ValueError, match=rf"got {shape[1]}×{shape[0]}"):
        ParsingNetwork(**SMALL)(torch.rand(1, 3, *shape))


def test_the_losses_equal_the_official(oracle):
    parse = training.parsing_loss(oracle["loss_logits"], oracle["loss_labels"])
    assert_close(parse.mean()[None], oracle["loss_parse"])
    ours = (oracle["loss_sr"] + 1) / 2, (oracle["loss_hr"] + 1) / 2
    assert_close(training.pixel_loss(*ours).mean()[None], oracle["loss_pix"])
    squared = (oracle["loss_sr"] - oracle["loss_hr"]).square().mean()
    assert_close(training.pixel_loss(*ours, 2).mean(), squared)


def test_undecided_pixels_teach_nothing():
    logits = torch.randn(3, 19, 4, 4, requires_grad=True)
    labels = torch.randint(19, (3, 4, 4), dtype=torch.uint8)
    labels[0], labels[1, :2] = UNDECIDED, UNDECIDED
    loss = training.parsing_loss(logits, labels)
    assert loss[0] == 0
    assert_close(loss[1], training.parsing_loss(logits[1:2, :, 2:], labels[1:2, 2:])[0])
    loss.sum().backward()
    assert logits.grad[0].abs().max() == logits.grad[1, :, :2].abs().max() == 0
    assert logits.grad[1, :, 2:].abs().min() > 0


def made_up(n=12, side=32):
    """Faces that can be parsed by colour: red hair above, below a green eye at the left, a blue one."""
    pixels, masks = np.full((n, side, side, 3), 128, np.uint8), np.ones((n, side, side), np.uint8)
    for name, rows, columns, colour in (
        ("hair", slice(0, side // 4), slice(None), (220, 30, 30)),
        ("r_eye", slice(side // 2, None), slice(0, side // 2), (30, 200, 30)),
        ("l_eye", slice(side // 2, None), slice(side // 2, None), (30, 30, 220)),
    ):
        pixels[:, rows, columns], masks[:, rows, columns] = colour, CLASSES.index(name)
    return pixels, masks


def tiny(**choices):
    return training.Config(
        **({"size": 16, "bottleneck": 8, "width": 8, "max_width": 8, "depth": 1, "batch": 4} | choices)
    )


def test_labels_move_with_the_faces_and_change_sides_in_the_mirror():
    pixels, masks = made_up(40)
    masks[:, :2] = UNDECIDED
    image, labels = training.ParsingTraining(pixels, masks, tiny(batch=40, scale=0.3)).faces()
    assert image.shape == (40, 3, 16, 16)
    assert set(labels.unique().tolist()) == {1, CLASSES.index("l_eye"), CLASSES.index("r_eye"), 13, UNDECIDED}
    green, blue = image[:, 1] > image[:, 2] + 0.5, image[:, 2] > image[:, 1] + 0.5
    left_is_green = (green * torch.arange(16)).sum((1, 2)) / green.sum((1, 2)) < 8
    assert 5 < left_is_green.sum() < 35  # some are mirrored
    decided = labels != UNDECIDED
    for side, l_is_here in ((green, ~left_is_green), (blue, left_is_green)):
        for name, expected in (("l_eye", l_is_here), ("r_eye", ~l_is_here)):
            share = ((labels == CLASSES.index(name)) & side).sum((1, 2)) / (side & decided).sum((1, 2))
            assert (share[expected] > 0.95).all()
            assert (share[~expected] < 0.05).all()


def test_training_learns_and_resumes_exactly(tmp_path):
    pixels, masks = made_up()
    config = tiny(lr=3e-3, ema_images=20)
    whole = training.ParsingTraining(pixels, masks, config)
    loop.fit(whole, tmp_path / "whole", steps=30, progress=False)
    loop.fit(training.ParsingTraining(pixels, masks, config), tmp_path / "parts", steps=12, progress=False)
    parts = training.ParsingTraining(pixels, masks, config)
    loop.fit(parts, tmp_path / "parts", steps=18, resume=True, progress=False)
    for ours, theirs in zip(parts.average.parameters(), whole.average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    kept = load(tmp_path / "whole" / training.NETWORK)
    faces = torch.from_numpy(pixels[:, ::2, ::2]).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(masks[:, ::2, ::2])
    torch.manual_seed(0)

    def score(network, faces):
        with torch.no_grad():
            return iou(confusion(network(faces)[0].argmax(1), labels).sum(0)).nanmean()

    before = score(config.network().eval(), faces)
    assert score(kept, faces) > before + 0.2
    assert score(kept, CameraPipeline(seed=1, grey_p=0)(faces)[0]) > before + 0.2


def test_a_run_is_resumed_with_the_same_faces_labels_and_camera_alone():
    pixels, masks = made_up()
    begun = training.ParsingTraining(pixels, masks, tiny()).config
    others = training.ParsingTraining(pixels // 2, masks.clip(2), tiny(), CameraPipeline(grey_p=0)).config
    assert {key for key in begun if begun[key] != others[key]} == {"faces", "labels", "camera"}


def test_batch_statistics_are_the_averages_own():
    pixels, masks = made_up(40)
    faces = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    trainee = training.ParsingTraining(pixels, masks, tiny(batch=40, lr=0.05, size=pixels.shape[1]))
    for _ in range(4):
        trainee.step()
    kept, (poor, _) = trainee.network(), CameraPipeline(seed=[*range(40)])(faces)
    theirs = deepcopy(kept).train()(poor)[0]  # a batch of its own is what it should know
    assert (kept(poor)[0] - theirs).abs().max() < 0.05 * theirs.std()
    assert (trainee.average(poor)[0] - theirs).abs().max() > theirs.std()


@pytest.mark.parametrize("name", [*fpn.TRAININGS.values(), "parsing-128", "parsing-128-alone"])
def test_shipped_statistics_fit_the_weights(name):
    network = load(assets.path(name))
    try:
        faces = data.faces("train", network.sizes["size"], 24)
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))
    poor, _ = CameraPipeline(seed=[*range(24)])(faces)
    with torch.no_grad():
        logits, theirs = network(poor)[0], deepcopy(network).train()(poor)[0]  # theirs: by this batch's statistics
    assert (logits - theirs).square().mean().sqrt() < 0.1 * theirs.std()


def test_the_twin_learns_from_labels_alone():
    pixels, masks = made_up()
    for pixel in (0, 1, 2):
        trainee = training.ParsingTraining(pixels, masks, tiny(pixel=pixel))
        before = trainee.live.out_img_conv.conv2d.weight.clone()
        losses = trainee.step()
        assert torch.equal(before, trainee.live.out_img_conv.conv2d.weight) == (pixel == 0)
        assert losses.keys() == {"parsing", "pixel"}


def test_bfloat16_changes_little():
    pixels, masks = made_up()
    plain, coarse = (training.ParsingTraining(pixels, masks, tiny(), bf16=bf16).step() for bf16 in (False, True))
    assert plain["parsing"] != coarse["parsing"]
    assert_close(plain["parsing"], coarse["parsing"], rtol=0.05, atol=0)


def test_faces_and_labels_that_do_not_fit_are_refused():
    pixels, masks = made_up()
    with pytest.raises(ValueError, match="multiple of 24"):
        training.ParsingTraining(pixels, masks, tiny(size=24))
    with pytest.raises(ValueError, match=r"need labels \(12, 32, 32\)"):
        training.ParsingTraining(pixels, masks[:, ::2, ::2], tiny())
    masks[3, 4] = 19
    with pytest.raises(ValueError, match="hold 19: classes are 0 to 18"):
        training.ParsingTraining(pixels, masks, tiny())


def test_label_maps_are_read_beside_their_faces(tmp_path):
    pixels, masks = made_up(3)
    for folder in ("faces", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        Image.fromarray(pixels[i]).save(tmp_path / "faces" / f"{i}.png")
        picture = Image.fromarray(masks[i] + i)
        picture.putpalette(range(256))
        picture.save(tmp_path / "masks" / f"{i}.png")
    read, labels = training.labelled_faces(tmp_path / "faces", tmp_path / "masks", 16)
    assert read.shape == (3, 16, 16, 3)
    assert np.array_equal(labels, masks[:, ::2, ::2] + np.arange(3)[:, None, None])
    with pytest.raises(ValueError, match="multiple of 24"):
        training.labelled_faces(tmp_path / "faces", tmp_path / "masks", 24)
    Image.fromarray(masks[0]).convert("RGB").save(tmp_path / "masks" / "1.png")
    with pytest.raises(ValueError, match=r"1\.png is 32×32 \(RGB\)"):
        training.labelled_faces(tmp_path / "faces", tmp_path / "masks", 16)
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 faces have no label map .*1\.png"):
        training.labelled_faces(tmp_path / "faces", tmp_path / "masks", 16)


def test_a_class_that_shrinking_would_hide_is_told(tmp_path):
    pixels, masks = made_up(1)
    masks[0, ::2] = 99  # the nearest pixel of every other row is read
    for folder, picture in (("faces", pixels[0]), ("masks", masks[0])):
        (tmp_path / folder).mkdir()
        Image.fromarray(picture).save(tmp_path / folder / "1.png")
    with pytest.raises(ValueError, match=r"1\.png hold 99: classes are 0 to 18"):
        training.labelled_faces(tmp_path / "faces", tmp_path / "masks", 16)


@cache
def our_labels():
    try:
        return data.parsing("faces-test", 256)
    except assets.AssetMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("side", "kernel"), [(16, "BOX"), (64, "BOX"), (64, "BICUBIC"), (128, "BOX"), (128, "BILINEAR"), (512, "BILINEAR")]
)
def test_label_maps_of_means_are_refused_though_every_number_is_a_class(side, kernel):
    def resized(kernel):
        pictures = [Image.fromarray(one).resize((side, side), Image.Resampling[kernel]) for one in our_labels()[:10]]
        return np.stack([np.asarray(picture) for picture in pictures])

    means, nearest = resized(kernel), resized("NEAREST")
    means[means >= len(CLASSES)] = UNDECIDED
    for maps in (means, *means) if side > 16 else (means,):  # so small, one has few borders
        with pytest.raises(ValueError, match=r"hold means of classes: at \d+ of \d+ borders"):
            training.check_classes(maps, "they")
    for maps in (nearest, *nearest):
        training.check_classes(maps, "they")


def test_label_maps_lie_in_sub_folders_as_their_faces_do(tmp_path):
    pixels, masks = made_up(2)
    for i, folder in enumerate("ab"):
        for kind, picture in (("faces", pixels[i]), ("masks", masks[i] * 0 + i + 1)):
            (tmp_path / kind / folder).mkdir(parents=True)
            Image.fromarray(picture).save(tmp_path / kind / folder / "1.png")
    _, labels = training.labelled_faces(tmp_path / "faces", tmp_path / "masks", 16)
    assert [set(np.unique(each)) for each in labels] == [{1}, {2}]
    whole = (tmp_path / "masks" / "b" / "1.png").read_bytes()
    for damaged in (whole[:60], b"no picture"):
        (tmp_path / "masks" / "b" / "1.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"1\.png is no label map that can be read"):
            training.labelled_faces(tmp_path / "faces", tmp_path / "masks", 16)


@pytest.fixture
def released(tmp_path):
    """CelebAMask-HQ in small: faces 0, 1 and 2000, of which the second is in the test split."""
    (tmp_path / celebamask.FACES).mkdir()
    rows = []
    for number, original in ((0, 119_613), (1, 199_999), (2000, 0)):
        rows.append(f"{number:<10}{original:<12}{original + 1:06d}.jpg")
        shade = Image.new("RGB", (64, 64), (number % 255, 100, 200))
        shade.save(tmp_path / celebamask.FACES / f"{number}.jpg", quality=95)
        masks = tmp_path / celebamask.MASKS / str(number // 2000)
        masks.mkdir(parents=True, exist_ok=True)
        for part, rows_of in {"skin": slice(0, 24), "eye_g": slice(8, 12), "l_eye": slice(10, 14)}.items():
            mask = np.zeros((32, 32), np.uint8)
            mask[rows_of] = 255
            picture = Image.fromarray(mask)
            picture = picture.convert("RGB") if part == "skin" else picture  # both occur
            picture.save(masks / f"{number:05d}_{part}.png")
    text = "\n".join(["idx       orig_idx    orig_file", *rows, ""])
    (tmp_path / celebamask.LIST).write_text(text)
    return tmp_path


def test_celebamask_hq_is_read_as_it_is_released(released):
    pixels, masks = training.faces_and_labels(released, size=16)
    assert (pixels.shape, masks.shape, masks.dtype) == ((2, 16, 16, 3), (2, 16, 16), np.uint8)
    assert pixels[:, 8, 8, 0].astype(int) == pytest.approx(
        [0, 2000 % 255], abs=3
    )  # faces 0 and 2000, the training split's
    column = [CLASSES[label] for label in masks[1, :, 3]]
    assert column == ["skin"] * 4 + ["eyeglass"] + ["l_eye"] * 2 + ["skin"] * 5 + ["background"] * 4  # painted over
    assert len(celebamask.read(released, 32, "test")[0]) == 1
    assert celebamask.read(released, 32, "val")[1].shape == (0, 32, 32)
    assert set(celebamask.PARTS) == {
        *("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip"),
        *("hair", "hat", "ear_r", "neck_l", "neck", "cloth"),
    }
    trainee = training.ParsingTraining(pixels, masks, tiny(batch=2))
    assert trainee.step()["parsing"].isfinite()


def test_celebamask_hq_is_learnt_from_the_shell(released, tmp_path, capsys):
    small = {"size": 16, "bottleneck": 8, "width": 8, "max_width": 8, "depth": 1, "batch": 2}
    flags = [word for name, number in small.items() for word in (f"--{name.replace('_', '-')}", str(number))]
    command = ["train", "parsing", "--faces", str(released), *flags, "--device", "cpu", "--hours", "1e-9"]
    assert cli.main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "done after 2 faces" in capsys.readouterr().out
    assert load(tmp_path / "run" / training.NETWORK).sizes["size"] == 16
    (released / celebamask.LIST).unlink()
    assert cli.main([*command, "--out", str(tmp_path / "other")]) == 1
    assert f"holds no {celebamask.LIST}: give the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda at: (at / celebamask.LIST).unlink(), FileNotFoundError, "holds no CelebA-HQ-to-CelebA-mapping.txt"),
        (lambda at: (at / celebamask.LIST).write_text("idx\n0 x y\n"), ValueError, "is no list of faces"),
        (lambda at: (at / celebamask.FACES / "2000.jpg").unlink(), FileNotFoundError, "such as 2000.jpg"),
        (
            lambda at: [path.unlink() for path in (at / celebamask.MASKS / "1").iterdir()],
            FileNotFoundError,
            "face 2000 has no mask",
        ),
        (
            lambda at: (at / celebamask.MASKS / "0" / "00000_skin.png").write_bytes(b"no picture"),
            ValueError,
            "00000_skin.png is no mask that can be read",
        ),
        (
            lambda at: Image.new("L", (48, 32)).save(at / celebamask.MASKS / "0" / "00000_nose.png"),
            ValueError,
            "00000_nose.png is 48×32",
        ),
        (
            lambda at: Image.linear_gradient("L").resize((32, 32)).save(at / celebamask.MASKS / "0" / "00000_hair.png"),
            ValueError,
            "00000_hair.png is grey in places",
        ),
    ],
)
def test_a_release_with_something_missing_or_resized_is_refused(released, damage, error, message):
    damage(released)
    with pytest.raises(error, match=message):
        celebamask.read(released, 16)


def test_iou_by_hand():
    labels = torch.tensor([[[0, 0, 1, 255]], [[1, 1, 1, 1]]])
    predicted = torch.tensor([[[0, 1, 1, 2]], [[1, 1, 0, 2]]])
    counts = confusion(predicted, labels, classes=3)
    assert counts.sum() == 7
    assert_close(iou(counts), torch.tensor([[1 / 2, 1 / 2, torch.nan], [torch.nan, 1 / 2, torch.nan]]), equal_nan=True)
    assert_close(iou(counts.sum(0)), torch.tensor([1 / 3, 3 / 6, torch.nan]), equal_nan=True)


@given(st.integers(1, 3), st.integers(2, 19))
def test_iou_is_one_where_all_is_right_and_follows_a_renaming(n, classes):
    labels, predicted = torch.randint(classes, (2, n, 6, 6))
    assert (iou(confusion(labels, labels, classes)).nanmean(1) == 1).all()
    renamed = torch.randperm(classes)
    ours = iou(confusion(renamed[predicted], renamed[labels], classes))
    assert_close(ours[:, renamed], iou(confusion(predicted, labels, classes)), equal_nan=True)


def test_iou_refuses_other_shapes_and_classes():
    labels = torch.zeros(1, 2, 2).long()
    for other in (labels.float(), labels.numpy(), None):
        with pytest.raises(ValueError, match="tensors of whole numbers"):
            confusion(labels, other)
    for other in ([1], torch.ones(3), torch.ones(3, 4)):
        with pytest.raises(ValueError, match="`confusion` gives them"):
            iou(other)
    assert confusion(labels[:0], labels[:0]).shape == (0, 19, 19)
    with pytest.raises(ValueError, match="both are"):
        confusion(labels[0], labels[0])
    with pytest.raises(ValueError, match="classes are 0 to 18"):
        confusion(labels + 19, labels)
