"""What the moving figures carry; that they move is tested in a browser (test_widgets_browser.py)."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close
from traitlets import TraitError

from facesr_lib.prior import FacePrior
from facesr_lib.search.engine import History, SearchResult
from facesr_lib.widgets import BeforeAfter, LatentTrajectory, Run


def decode(data: bytes) -> Tensor:
    """WebP bytes -> (3, H, W) in [0, 1]."""
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "WEBP"
    return torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255).permute(2, 0, 1)


def tile(widget: LatentTrajectory, run: int, k: int) -> Tensor:
    """The face of a run's k-th stored step, cut out of the sheet."""
    row, column = divmod(widget.runs[run]["first"] + k, widget.columns)
    size = widget.resolution
    return decode(widget.sheet)[:, row * size : (row + 1) * size, column * size : (column + 1) * size]


def colour(picture: Tensor) -> Tensor:
    """Mean away from the border, where WebP lets neighbouring tiles run into each other."""
    return picture[:, 8:-8, 8:-8].mean((1, 2))


def state_size(widget: BeforeAfter | LatentTrajectory) -> int:
    """Bytes that the widget adds to a page: pictures as base64, the rest as JSON."""
    state = {name: value for name, value in widget.get_state().items() if name != "layout"}
    pictures = [value for value in state.values() if isinstance(value, bytes)]
    rest = {name: value for name, value in state.items() if not isinstance(value, bytes)}
    return sum(map(len, pictures)) * 4 // 3 + len(json.dumps(rest, allow_nan=False))


def run(k: int = 4, size: int = 32, hue: int = 0, steps: list[int] | None = None) -> Run:
    """K steps whose faces get brighter in one channel."""
    faces = torch.full((k, 3, size, size), 0.2)
    faces[:, hue] = torch.linspace(0.2, 0.9, k)[:, None, None]
    steps = steps or list(range(0, 10 * k, 10))
    losses = {"pixel": torch.linspace(5, 1, steps[-1] + 1), "cross": torch.linspace(0, 1, steps[-1] + 1)}
    return Run(steps, torch.rand(k, 2), faces, losses)


def test_wipe_keeps_every_pixel_of_small_pictures() -> None:
    before, after = torch.rand(1, 3, 8, 8), torch.rand(3, 64, 64)
    widget = BeforeAfter(before, after, labels=("8 × 8", "64 × 64"), alt="a face")
    assert_close(decode(widget.before), before[0], atol=0.5 / 255 + 1e-6, rtol=0)
    assert_close(decode(widget.after), after, atol=0.5 / 255 + 1e-6, rtol=0)
    assert (widget.size, widget.labels, widget.position) == ([64, 64], ["8 × 8", "64 × 64"], 0.5)


def test_wipe_accepts_any_two_sizes_of_the_same_proportions_only() -> None:
    BeforeAfter(torch.rand(3, 4, 6), torch.rand(3, 32, 48), alt="a pair")
    with pytest.raises(ValueError, match=r"4 x 4 .* 32 x 48.*proportions"):
        BeforeAfter(torch.rand(3, 4, 4), torch.rand(3, 32, 48), alt="a pair")


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 8, 8), (8, 8), (3, 0, 8)])
def test_wipe_names_the_picture_whose_shape_is_wrong(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="after has shape"):
        BeforeAfter(torch.rand(3, 8, 8), torch.rand(shape), alt="a pair")


def test_nan_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        BeforeAfter(torch.full((3, 8, 8), torch.nan), torch.rand(3, 8, 8), alt="a pair")


def test_position_stays_on_the_picture() -> None:
    widget = BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt="a pair")
    widget.position = 1.0
    with pytest.raises(TraitError):
        widget.position = 1.1


def test_large_pictures_are_packed_small() -> None:
    smooth = torch.linspace(0, 1, 1024).expand(3, 1024, 1024)
    speckled = (smooth + 0.05 * torch.randn(3, 1024, 1024)).clamp(0, 1)
    assert state_size(BeforeAfter(smooth, speckled, alt="a pair")) < 1_500_000  # 4 MB as PNG


def test_text_alternative_is_required_and_reaches_programs_without_widgets() -> None:
    with pytest.raises(ValueError, match="alt is empty"):
        BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt=" ")
    alt = "Left eight by eight squares, right a face. " * 4
    bundle, _ = BeforeAfter(torch.rand(3, 8, 8), torch.rand(3, 8, 8), alt=alt)._repr_mimebundle_()
    assert bundle["text/plain"] == f"BeforeAfter: {alt}"
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_sheet_holds_each_face_where_the_runs_say() -> None:
    runs = {"a": run(5, hue=0), "b": run(3, hue=2)}
    widget = LatentTrajectory(runs, alt="two paths")
    for i, one in enumerate(runs.values()):
        for k, face in enumerate(one.faces):
            assert_close(colour(tile(widget, i, k)), colour(face), atol=0.02, rtol=0)
    assert widget.step == 40


def test_numbers_survive_and_terms_keep_their_order() -> None:
    one = run()
    widget = LatentTrajectory({"a": one}, alt="a path", background=torch.tensor([[1.23456789, -2.0]]))
    assert [term for term, _ in widget.runs[0]["losses"]] == ["pixel", "cross"]
    assert_close(torch.tensor(widget.runs[0]["losses"][0][1]), one.losses["pixel"], rtol=1e-5, atol=0)
    assert_close(torch.tensor(widget.runs[0]["path"]), one.path, rtol=1e-5, atol=0)
    assert widget.background == [[1.23457, -2.0]]


def broken(**changes: object) -> Run:
    return Run(**{**vars(run()), **changes})


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "one to 6 runs, got 0"),
        ({str(i): run() for i in range(7)}, "one to 6 runs, got 7"),
        ({"a": run(size=16), "b": run(size=24)}, "different resolutions"),
        ({"a": broken(path=torch.rand(3, 2))}, r"4 steps but a path of shape \(3, 2\)"),
        ({"a": broken(faces=torch.rand(4, 3, 8, 9))}, r"4 steps but faces of shape \(4, 3, 8, 9\)"),
        ({"a": broken(steps=[0, 20, 10, 30])}, "must increase"),
        ({"a": broken(losses={"pixel": torch.rand(9, 2)})}, r"'pixel' of 'a' has shape \(9, 2\)"),
        ({"a": broken(losses={"pixel": torch.tensor([1.0, torch.nan])})}, "'pixel' of 'a' is NaN.* from entry 1"),
        ({"a": broken(path=torch.full((4, 2), torch.nan))}, "'path' of 'a' is NaN"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs: dict[str, Run], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentTrajectory(runs, alt="a path")


def test_background_must_lie_in_the_plane() -> None:
    with pytest.raises(ValueError, match=r"background.*\(5, 3\)"):
        LatentTrajectory({"a": run()}, alt="a path", background=torch.rand(5, 3))


L, D = 3, 8


def searched(latents: Tensor) -> SearchResult:
    """A search result whose history is ``latents`` (K, N, L, d), recorded every 5 steps."""
    k, n = latents.shape[:2]
    steps = list(range(0, 5 * k, 5))
    losses = {"pixel": torch.arange(5.0 * k)[:, None] + 100 * torch.arange(n)}
    history = History(losses, latents, steps)
    return SearchResult(torch.rand(n, 3, 8, 8), latents[-1], torch.rand(n), torch.zeros(n), history)


# Draws a flat picture whose colour is the first three numbers of the first code.
PAINTER = SimpleNamespace(synthesise=lambda w: w[:, 0, :3, None, None].expand(-1, -1, 32, 32).clamp(0, 1))


def planar(points: Tensor) -> Tensor:
    """Points (K, 2) -> codes (K, L, d) on a tilted plane; distances stay."""
    basis = torch.linalg.qr(torch.randn(L * D, 2, generator=torch.Generator().manual_seed(3))).Q
    return (points @ basis.T + 0.5).view(-1, L, D)


def test_the_plane_keeps_distances_of_a_path_that_lies_in_one() -> None:
    points = torch.randn(9, 2) * torch.tensor([3.0, 1.0])
    cloud = torch.randn(20, 2)
    latents = torch.stack([torch.rand(9, L, D), planar(points)], 1)  # (K, N=2, L, d)
    widget = LatentTrajectory.from_result(searched(latents), PAINTER, image=1, background=planar(cloud), alt="a path")
    shown = torch.tensor(widget.runs[0]["path"] + widget.background)
    assert_close(torch.cdist(shown, shown), torch.cdist(*[torch.cat([points, cloud])] * 2), atol=0.02, rtol=0.01)
    assert "100%" in widget.caption
    assert widget.runs[0]["steps"] == list(range(0, 45, 5))
    assert widget.runs[0]["losses"][0][1][:2] == [100.0, 101.0]  # of image 1, not of its batch-mate
    for k, code in enumerate(latents[:, 1]):
        assert_close(colour(tile(widget, 0, k)), code[0, :3].clamp(0, 1), atol=0.03, rtol=0)


def test_several_methods_share_one_plane() -> None:
    a, b = torch.randn(4, 2), torch.randn(6, 2) + 5
    results = {"PULSE": searched(planar(a)[:, None]), "RLS": searched(planar(b)[:, None])}
    widget = LatentTrajectory.from_result(results, PAINTER, alt="two paths")
    shown = torch.tensor(widget.runs[0]["path"] + widget.runs[1]["path"])
    assert_close(torch.cdist(shown, shown), torch.cdist(*[torch.cat([a, b])] * 2), atol=0.02, rtol=0.01)
    assert [one["name"] for one in widget.runs] == ["PULSE", "RLS"]
    assert widget.step == 25


def test_a_cloud_of_plain_w_stands_for_all_layers() -> None:
    result, w = searched(torch.randn(5, 1, L, D)), torch.randn(7, D)
    narrow = LatentTrajectory.from_result(result, PAINTER, background=w, alt="a path")
    wide = LatentTrajectory.from_result(result, PAINTER, background=w[:, None].expand(-1, L, -1), alt="a path")
    assert narrow.background == wide.background
    with pytest.raises(ValueError, match=r"background has shape \(7, 9\)"):
        LatentTrajectory.from_result(result, PAINTER, background=torch.randn(7, D + 1), alt="a path")


def test_results_that_have_no_path_are_refused() -> None:
    with pytest.raises(ValueError, match="searched 1 images, so image 1"):
        LatentTrajectory.from_result(searched(torch.randn(5, 1, L, D)), PAINTER, image=1, alt="a path")
    with pytest.raises(ValueError, match="record_every"):
        LatentTrajectory.from_result(searched(torch.randn(2, 1, L, D)), PAINTER, alt="a path")
    with pytest.raises(ValueError, match="diverged"):
        LatentTrajectory.from_result(searched(torch.full((5, 1, L, D), torch.nan)), PAINTER, alt="a path")


def test_25_real_faces_stay_under_300_kb_and_look_like_themselves() -> None:
    prior = FacePrior.load("faces-64")
    w = prior.sample_w(2, seed=0)
    latents = torch.stack([torch.lerp(w[:1], w[1:], t) for t in torch.linspace(0, 1, 25).tolist()])  # (25, 1, L, d)
    widget = LatentTrajectory.from_result(searched(latents), prior, background=prior.sample_w(400), alt="a walk")
    assert state_size(widget) < 300_000
    faces = prior.synthesise(latents[:, 0])
    error = torch.stack([(tile(widget, 0, k) - face).square().mean() for k, face in enumerate(faces)])
    assert error.max() < 10 ** (-28 / 10)  # 28 dB
