"""Measuring a paper's table on the faces: row by row, each kept in two stages.

A row's pictures are kept, and what was measured of them: a new metric needs no new search. `Unit` is one row at one
scale, and `measure` can run it alone, in whatever process.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from facesr_lib import assets, chapter, data, files, metrics, restoration
from facesr_lib.degrade import Chain, Downsample
from facesr_lib.evaluation import measures, unaligned
from facesr_lib.evaluation.papers import TABLES
from facesr_lib.evaluation.records import OF_ALL_FACES, Origin, Record, Results, read, write, written
from facesr_lib.evaluation.tables import PaperTable, Row, here, located
from facesr_lib.messages import check, choose
from facesr_lib.networks import checkpoints
from facesr_lib.prior import FacePrior

LIBRARY = Path(__file__).parents[1]
PICTURES = (
    *(
        "colours.py",
        "degrade",
        "images.py",
        "losses/latent.py",
        "losses/perceptual.py",
        "losses/semantic.py",
        "networks",
        "prior",
    ),
    *("randomness.py", "restoration/methods.py", "restoration/tiles.py", "search"),
    *("data.py", "evaluation/run.py", "evaluation/unaligned.py", "training/augment.py", "colours.py"),
)
VALUES = ("metrics", "evaluation/measures.py", "evaluation/prior.py", "losses/landmarks.py")
"""The sources that can change a row's pictures, and those that can change what is measured of them."""
LABELS = "labels-landmarks", "labels-parsing"
"""What else it is measured by."""


@dataclass(frozen=True)
class Unit:
    """A row at a scale: what a process can measure alone."""

    table: str
    row: Row
    scale: int
    setting: str  # what records call it: the scale, a set of pictures, or what befalls the faces;
    paper: str  # and what the paper does
    measure: measures.Measure
    prior: str  # what a process that has not got it open loads,
    device: str  # where to,
    origin: Origin  # and what it must find
    progress: bool


def run(
    name: str,
    prior: FacePrior,
    *,
    map: Callable[[Callable[[Unit], list[Record]], list[Unit]], Iterable[list[Record]]] = builtins.map,
    **budget: Any,
) -> Results:
    """Measure a table; parameters as in `units`.

    ``map`` applies `measure` to the units and keeps their order; default: one after the other, in this process.
    """
    todo, records = units(name, prior, **budget), list[Record]()
    for number, (unit, found) in enumerate(zip(todo, map(measure, todo), strict=True), start=1):
        if unit.progress:
            print(f"{name} · {unit.setting} · {unit.row.label} ({number} of {len(todo)})", flush=True)
        records += found
    return Results(todo[0].origin, tuple(records))


def units(
    name: str,
    prior: FacePrior,
    *,
    faces: int = 50,
    batch: int = 10,
    effort: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> list[Unit]:
    """Take a table apart, after a check of all that it needs.

    Parameters
    ----------
    faces, batch : int
        How many faces, and how many are searched at once; sets of pictures are always whole, and one by one.
    effort : float
        Multiplies every method's number of steps.
    progress : bool
        Show the searches' progress, and say which rows are done.

    A ``ValueError`` says that there is no such table, a budget is not positive, or the prior lacks what a row needs; an
    ``AssetMissing`` that no row's network is on this machine.
    """
    table = TABLES[choose(name, TABLES, "table")]
    check("faces", faces, int, at_least=1)
    check("batch", batch, int, at_least=1)
    check("effort", effort, above=0)
    check("seed", seed, int, at_least=0)
    if (table.resolution or prior.resolution) <= data.FACE_SIDE and faces > data.TEST_FACES:
        raise ValueError(f"there are {data.TEST_FACES} held-out faces; got faces = {faces}.")
    (rows, left_out), (moved, more) = here(table.rows), here(table.unaligned)
    if not rows + moved:
        raise assets.AssetMissing(f"{name} has no row whose network is here.\n" + "\n".join(left_out + more))
    for missing in left_out + more if progress else ():
        print(f"{name} · left out: {missing}", flush=True)
    for stage in [stage for row in rows + moved for stage in (row, row.start) if stage and stage.method]:
        restoration.check(stage.method, stage.options, prior)
    settings, device = table.settings(prior.resolution), str(prior.device)
    networks = set(table.networks).union(*map(asked, rows + moved))
    origin = _open(table, networks, prior, faces, effort=float(effort), seed=seed, batch=batch)
    named = [(settings[0][0], one, one, rows) for one in table.pictures or table.cameras]
    scaled = [(ours, f"{ours}x", f"{paper}x", rows) for ours, paper in settings]
    placed = [(settings[0][0], unaligned.NAME, unaligned.NAME, moved)]
    return [
        Unit(name, row, scale, setting, paper, table.measure, prior.name, device, origin, progress)
        for scale, setting, paper, measured in [*(named or scaled), *placed]
        for row in measured
    ]


def measure(unit: Unit) -> list[Record]:
    """Measure a row, or read what was measured with the same prior, faces, code, metrics and budget.

    Raises
    ------
    ValueError
        If this process finds another prior, other faces, code or metrics than the unit was made with.
    KeyboardInterrupt
        After Ctrl-C, which leaves nothing of the row but its finished stages.
    """
    prior, truth = _opened(unit)
    restored: Callable[..., Any] = partial(_enlarged if TABLES[unit.table].pictures else _restored, unit, unit.row)
    path = _place(unit, unit.row, unit.measure.__name__, unit.origin.code, unit.origin.metrics).with_suffix(".csv")
    with suppress(OSError, ValueError):  # not there, or damaged
        kept = _whole_row(read(path).records, unit, len(truth))  # perhaps another table's, which has the same row
        return [replace(r, table=unit.table, setting=unit.setting, paper=unit.paper, row=unit.row.label) for r in kept]
    given = {"restored": restored, "truth": truth, "prior": prior, "setting": unit.setting, "seed": unit.origin.seed}
    camera = TABLES[unit.table].cameras.get(unit.setting)
    found = [
        Record(unit.table, unit.setting, unit.paper, unit.row.label, face, metric, float(written(value)))
        for face, metric, value in unit.measure(**given, options=unit.row.options, camera=camera)
    ]
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        write(path, Results(unit.origin, tuple(found)), overwrite=True)
    return found


def _whole_row(records: tuple[Record, ...], unit: Unit, pictures: int) -> tuple[Record, ...]:
    """Return a row's records; a ``ValueError`` unless there are some, and every metric has a value for each face."""
    faces = {metric: {r.face for r in records if r.metric == metric} for metric in {r.metric for r in records}}
    expected = set(range(measures.DRAWS if unit.measure is measures.gaussianity else pictures))
    if not faces or any(found - {OF_ALL_FACES} != expected for found in faces.values()):
        raise ValueError("values are missing")
    return records


def code(sources: Iterable[str] = (*PICTURES, *VALUES), library: Path = LIBRARY) -> str:
    """Return the digest of the library's sources that can change a number, 16 hexadecimal digits."""
    found = [path for name in sources for path in sorted([library / name, *(library / name).rglob("*.py")])]
    return _digest((path.relative_to(library).as_posix(), path.read_text("utf-8")) for path in found if path.is_file())


LETTERS = {"prior": "G", "discriminator": "D", "flow": "F"}
"""What a method needs → the prior's network that it asks."""


def asked(row: Row) -> set[str]:
    """Name the networks that a row asks: letters of a prior's own, registry entries (files, runs) of others."""
    if row.needs:
        return {row.needs}
    found = {network} if (network := row.options.get("network")) else set()
    for stage in (row, row.start):
        if stage and stage.method:
            method = restoration.METHODS[stage.method]
            found |= {LETTERS[need] for need in method.needs & LETTERS.keys()}
            found |= {stage.options["weights"]} if "weights" in stage.options else set(method.weights)
    return found


def weights(networks: Iterable[str], prior: FacePrior) -> dict[str, str]:
    """Return networks' digests, 16 hexadecimal digits each, by their names as `asked` gives them."""
    own = {"G": prior.generator.state_dict(), "F": prior.flow.weights() if prior.flow else {}}
    own["D"] = prior.discriminator.state_dict() if prior.discriminator else {}
    return {
        name: _digest(own[name].items()) if name in own else files.sha256(located(name))[:16]
        for name in sorted(networks)
    }


def _digest(named: Iterable[tuple[str, str | Tensor]]) -> str:
    return files.digest(*(part for pair in sorted(named, key=lambda pair: pair[0]) for part in pair))[:16]


CODE, CODE_OF_PICTURES = code(), code(PICTURES)
"""Read when this is imported: what is changed on disk while it runs has no part in what it measures."""
_here: tuple[Any, Any, dict[str, Any]] = None, None, {}
"""What this process has open: an origin, its prior, and the faces, ``{"": (N, 3, R, R)}``, or set → its pictures."""


def _open(table: PaperTable, networks: Iterable[str], prior: FacePrior, faces: int, **budget: Any) -> Origin:
    """Open a table's faces, or its sets of pictures, each cropped to whole multiples of the scale."""
    global _here
    truth: dict[str, Any] = {}
    if table.pictures:
        (scale,) = table.scales
        for name in table.pictures:
            truth[name] = [
                image[None, :, : image.shape[1] // scale * scale, : image.shape[2] // scale * scale].to(prior.device)
                for image in (table.read or data.picture_set)(name)
            ]
        every = [image for pictures in truth.values() for image in pictures]
        faces, faces_from = len(every), f"pictures of {', '.join(truth)}"
        budget |= {"effort": 1.0, "batch": 1}
    else:
        resolution = table.resolution
        found, faces_from = data.held_out(resolution, faces) if resolution else chapter.faces(prior, faces)
        every = [found.to(prior.device)]  # as they were: machines move faces by other last digits
        truth[""] = every[0]
        if table.unaligned:
            truth[unaligned.NAME] = unaligned.faces(resolution, faces, budget["seed"]).to(prior.device)
    alone = bool(table.pictures or table.resolution)  # networks that need no prior
    origin = Origin(
        prior="none" if alone else Path(prior.name).name,
        weights=weights(networks, prior),
        faces=faces,
        faces_from=faces_from,
        faces_digest=files.digest(*every)[:16],
        code=CODE,
        device=f"{prior.device.type}, {str(torch.float32 if alone else prior.precision).removeprefix('torch.')}",
        metrics=" ".join(name for name, missing in metrics.available().items() if missing is None),
        networks="; ".join(map(_trained, sorted(networks))) if table.resolution else "",
        **budget,
    )
    _here = origin, prior, truth
    return origin


def _trained(name: str) -> str:
    """How wide a network is and how much it has seen, as its file says."""
    _, about = checkpoints.read(located(name))
    width = f"width {float(about['width']):g}, " if "width" in about else ""
    return f"{name}: {width}{int(about['images_seen']):,} images seen" if about else name


def _enlarged(unit: Unit, row: Row, attempt: int) -> dict[str, list[Tensor]]:
    """What a row's method makes of a set's pictures, each (1, 3, H, W) alone; they are made anew every time."""
    operator, method = Downsample(unit.scale), restoration.METHODS[row.method]
    prior, truth = _opened(unit)
    small = ((operator(image).clamp(0, 1) * 255).round() / 255 for image in truth)  # as files would be
    seed = unit.origin.seed + attempt
    return {"image": [method(z, operator, prior=prior, seed=seed, progress=False, **row.options).image for z in small]}


def _opened(unit: Unit) -> tuple[FacePrior, Any]:
    """Return the prior and the faces, or the set's pictures, that a unit was made with."""
    origin = unit.origin
    if _here[0] != origin:
        prior = FacePrior.load(unit.prior, unit.device)
        budget = {name: getattr(origin, name) for name in ("faces", "effort", "seed", "batch")}
        opened = _open(TABLES[unit.table], origin.weights, prior, **budget)
        if differ := [name for name, value in vars(opened).items() if value != getattr(origin, name)]:
            raise ValueError(
                f"this process would not measure what it was asked for: {', '.join(differ)} differ. Give every process "
                "the same checkpoint, faces, packages and version of the library."
            )
    _, prior, truth = _here
    return prior, truth.get(unit.setting, truth.get(""))


def _place(unit: Unit, row: Row, *more: object) -> Path:
    """Say where something of a row is kept: keyed by all that can change it."""
    of, table = unit.origin, TABLES[unit.table]
    budget = of.effort, of.seed, of.batch if unit.measure is measures.seconds else None
    setting = unit.scale, unit.setting, table.cameras.get(unit.setting), table.operator.__name__
    networks = sorted((name, of.weights[name]) for name in asked(row).union(table.networks))
    labels = [files.sha256(assets.path(name)) for name in LABELS]
    key = row, setting, networks, of.faces_digest, of.device, budget, CODE_OF_PICTURES, labels, *more
    return assets.cache() / "results" / files.digest(repr(key))[:32]


def _restored(unit: Unit, row: Row, attempt: int, needed: Sequence[str] = ()) -> dict[str, Tensor]:
    """What a row's method makes of the faces: image, residual, seconds, and latent if it has codes; kept."""
    path = _place(unit, row, attempt).with_suffix(".safetensors")
    prior, truth = _opened(unit)
    with suppress(OSError, SafetensorError, ValueError):  # not there, or damaged
        return _whole_pictures(load_file(path, device=str(prior.device)), truth, needed)
    stage = row.start and replace(row.start, before=row.before, corrupt=row.corrupt)
    start = stage and _restored(unit, stage, attempt, ["latent"])
    operator = TABLES[unit.table].operator(unit.scale)
    befalls = Chain(*filter(None, [row.before, operator, row.corrupt]))
    lowres = befalls(truth)  # all at once: it does not depend on the batches
    method, options = restoration.METHODS[row.method], dict(row.options)
    if "steps" in method.options and unit.origin.effort != 1:
        options["steps"] = max(1, round(unit.origin.effort * options.get("steps", method.options["steps"])))
    parts: list[dict[str, Tensor]] = []
    for first in range(0, len(truth), unit.origin.batch):
        batch = slice(first, first + unit.origin.batch)
        if start:
            options["anchor"] = start["latent"][batch]
        seeds = [(unit.origin.seed + attempt) * 100_000 + first + i for i in range(len(lowres[batch]))]
        begun = time.perf_counter()
        result = method(lowres[batch], operator, prior=prior, seed=seeds, progress=unit.progress, **options)
        seconds = (time.perf_counter() - begun) / len(seeds)
        if result.interrupted:  # a search keeps its best so far; a table must not take it for the end's
            raise KeyboardInterrupt
        found = {name: getattr(result, name, None) for name in ("image", "residual", "latent")}
        found["seconds"] = torch.full_like(result.residual, seconds)
        parts.append({name: value for name, value in found.items() if value is not None})
    whole = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
    if start:
        whole["seconds"] += start["seconds"]
    with suppress(OSError, SafetensorError):  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as temporary:
            save_file(whole, temporary)
    return whole


def _whole_pictures(found: dict[str, Tensor], truth: Tensor, needed: Sequence[str]) -> dict[str, Tensor]:
    """Return what is kept of a row; a ``ValueError`` unless it is there for each face, and finite."""
    there = all(len(value) == len(truth) and value.isfinite().all() for value in found.values())
    if not there or {"image", "residual", "seconds", *needed} - found.keys() or found["image"].shape != truth.shape:
        raise ValueError("pictures are missing, or of another size")
    return found
