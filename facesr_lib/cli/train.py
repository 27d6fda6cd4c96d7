"""`facesr train`: beside each network's own flags one for every field of its training's Config."""

from __future__ import annotations

import argparse
import inspect
import re
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import Any, get_type_hints

from facesr_lib.cli import values
from facesr_lib.messages import choose


class ConfigParser(argparse.ArgumentParser):
    """A parser that reads the flags of ``module.config`` as well, once its command is called: torch is slow to load."""

    module, config = "", "Config"

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As every parser; the Config's fields become arguments."""
        config = getattr(import_module(self.module), self.config)
        hints, meanings = get_type_hints(config), _attributes(config)
        group = self.add_argument_group("every choice of the training")
        for field in fields(config):
            switch: dict[str, Any] = {"nargs": "?", "const": True} if hints[field.name] is bool else {}
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=partial(values.value, hint=hints[field.name]),
                default=field.default,
                metavar=getattr(hints[field.name], "__name__", "value").upper(),
                **switch,
                help=f"{meanings[field.name]} ({values.text(field.default)})".lstrip().replace("%", "%%"),
            )
        return super().parse_known_args(*args, **kwargs)


def _attributes(config: type) -> dict[str, str]:
    """What the docstring says of each field, its bases' too."""
    sections = [(inspect.getdoc(one) or "").partition("Attributes\n----------\n")[2] for one in config.__mro__]
    entries = [entry.partition("\n") for section in sections for entry in re.split(r"\n(?=\S)", section)]
    return {
        name: " ".join(text.split()) for head, _, text in entries for name in re.findall(r"\w+", head.split(":")[0])
    }


def add(commands: Any) -> None:
    """Add the command and its flags."""
    train = commands.add_parser("train", help="train a network, or go on training it")
    networks = train.add_subparsers(required=True, metavar="NETWORK", parser_class=ConfigParser)

    prior = networks.add_parser("prior", help="a face prior (StyleGAN2)")
    prior.module = "facesr_lib.training.stylegan2"
    prior.add_argument("--faces", type=values.path, required=True, metavar="DIR", help="folder of aligned faces")
    prior.add_argument("--start", metavar="PRIOR", help="begin with these networks: registry name or checkpoint")
    prior.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    prior.add_argument("--devices", type=int, default=1, help="processes, one per GPU (%(default)s)")
    prior.set_defaults(run=_prior)

    flow = networks.add_parser("flow", help="the flow that Gaussianises a prior's codes")
    flow.module = "facesr_lib.training.flow"
    flow.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")
    flow.add_argument("--device", default="auto")
    flow.set_defaults(run=_flow)

    first = networks.add_parser("esrgan-start", help="ESRGAN's first stage: generator and companion encoder, apart")
    first.config = "Start"
    first.set_defaults(run=_esrgan_start)

    second = networks.add_parser("esrgan", help="ESRGAN and LSRGAN: the second stage, by --latent and --contextual")
    second.add_argument("--start", type=values.path, required=True, metavar="DIR", help="folder of a first stage")
    second.set_defaults(run=_esrgan)

    for stage in (first, second):
        stage.module = "facesr_lib.training.esrgan"
        stage.add_argument("--pictures", default="bsd200", help="registry name or folder (%(default)s)")
        stage.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
        stage.add_argument("--device", default="auto")

    landmarks = networks.add_parser("landmarks", help="a small landmark network, by hints")
    landmarks.add_argument("--teacher", metavar="NETWORK", help="whose heatmaps are the hints (drawn landmarks)")
    landmarks.set_defaults(run=_landmarks)

    progressive = networks.add_parser("progressive", help="progressive face super-resolution")
    progressive.add_argument("--fan", default="landmarks", metavar="NETWORK", help="landmark network (%(default)s)")
    progressive.set_defaults(run=_progressive)

    supervised = networks.add_parser("supervised", help="what it is compared with: VDSR, URDGN, FSRNet, FSRGAN")
    supervised.add_argument("--network", required=True, metavar="NAME", help="vdsr, urdgn, fsrnet or fsrgan")
    supervised.add_argument("--parsing", metavar="FILE", help="labels of the faces, for FSRNet and FSRGAN (ours)")
    supervised.add_argument("--start", metavar="NETWORK", help="begin with it: registry name or file (random numbers)")
    supervised.set_defaults(run=_supervised)

    parsing = networks.add_parser("parsing", help="a network that parses poor faces and restores them (PSFR-GAN's)")
    labels = "folder of label maps, or .npz (the registry's faces' own, or those of --faces CelebAMask-HQ)"
    parsing.add_argument("--labels", type=values.path, help=labels)
    parsing.set_defaults(run=_parsing)

    for network in (landmarks, progressive, supervised, parsing):
        network.module = f"facesr_lib.training.{network.prog.split()[-1]}"
        network.add_argument("--faces", default="faces-train", help="registry name or folder (%(default)s)")
        network.add_argument("--device", default="auto")
    for network in (landmarks, supervised):
        network.add_argument("--landmarks", metavar="FILE", help="labels of the faces (ours)")
    for network in (progressive, supervised, parsing):
        network.add_argument("--bf16", action="store_true", help="networks in bfloat16")

    for network in (prior, flow, landmarks, first, second, progressive, supervised, parsing):
        network.add_argument("--out", type=values.path, required=True, metavar="DIR", help="folder of the run")
        whole = network in (first, second, progressive, supervised)
        network.add_argument("--hours", type=float, required=not whole, help="all iterations if not given" * whole)
        network.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


def _config(config: type, arguments: argparse.Namespace) -> Any:
    return config(**{field.name: getattr(arguments, field.name) for field in fields(config)})


def _prior(arguments: argparse.Namespace) -> None:
    from facesr_lib.prior import FacePrior
    from facesr_lib.training import stylegan2

    report = stylegan2.train(
        arguments.faces,
        arguments.out,
        _config(stylegan2.Config, arguments),
        hours=arguments.hours,
        resume=arguments.resume,
        start=FacePrior.load(arguments.start) if arguments.start else None,
        devices=arguments.devices,
        bf16=arguments.bf16,
    )
    _ended(report, "images", f"{arguments.out / stylegan2.PRIOR} is the moving average")


def _flow(arguments: argparse.Namespace) -> None:
    from facesr_lib.prior import FacePrior
    from facesr_lib.training import flow, loop

    loop.check_budget(arguments.hours, None)
    config = _config(flow.Config, arguments)
    prior = FacePrior.load(arguments.prior, arguments.device)
    report = flow.train(prior, arguments.out, config, hours=arguments.hours, resume=arguments.resume)
    prior.save(arguments.out / "prior.safetensors")
    _ended(report, "codes", f"{arguments.out / 'prior.safetensors'} is the prior with its flow")


def _esrgan_start(arguments: argparse.Namespace) -> None:
    from facesr_lib.training import esrgan

    config = _config(esrgan.Start, arguments)
    report = esrgan.pretrain(_pictures(arguments), arguments.out, config, **_on(arguments))
    _ended(report, "patches", f"`facesr train esrgan --start {arguments.out}` goes on from here")


def _esrgan(arguments: argparse.Namespace) -> None:
    from facesr_lib.training import esrgan

    config = _config(esrgan.Config, arguments)
    report = esrgan.train(_pictures(arguments), arguments.out, config, arguments.start, **_on(arguments))
    _ended(report, "patches", f"{arguments.out / esrgan.GENERATOR} is the moving average")


def _parsing(arguments: argparse.Namespace) -> None:
    from facesr_lib.training import loop, parsing

    loop.check_budget(arguments.hours, None)
    config = _config(parsing.Config, arguments)
    pixels, masks = parsing.faces_and_labels(arguments.faces, arguments.labels, config.size)
    report = parsing.train(pixels, masks, arguments.out, config, **_on(arguments))
    _ended(report, "faces", f"{arguments.out / parsing.NETWORK} is the moving average")


def _pictures(arguments: argparse.Namespace) -> Any:
    from facesr_lib import assets
    from facesr_lib.training.patches import read_pictures

    return read_pictures(assets.locate(arguments.pictures), arguments.patch)


def _on(arguments: argparse.Namespace) -> dict[str, Any]:
    from facesr_lib import devices

    device = devices.pick_device(arguments.device)
    return {"device": device, "bf16": arguments.bf16, "hours": arguments.hours, "resume": arguments.resume}


def _landmarks(arguments: argparse.Namespace) -> None:
    from facesr_lib import assets, data, devices
    from facesr_lib.training import landmarks, loop

    loop.check_budget(arguments.hours, None)
    config, device = _config(landmarks.Config, arguments), devices.pick_device(arguments.device)
    teacher = points = None
    if arguments.teacher:
        teacher = landmarks.hints(assets.locate(arguments.teacher), device)
    else:
        points = data.landmarks(arguments.faces, data.FACE_SIDE, arguments.landmarks)
    pixels = data.prepared(assets.locate(arguments.faces), data.FACE_SIDE, skip_damaged=False)
    budget = {"hours": arguments.hours, "resume": arguments.resume}
    report = landmarks.train(pixels, points, arguments.out, config, teacher=teacher, device=device, **budget)
    _ended(report, "faces", f"{arguments.out / landmarks.NETWORK} is the network")


def _progressive(arguments: argparse.Namespace) -> None:
    from facesr_lib import assets
    from facesr_lib.training import progressive

    config, faces = _config(progressive.Config, arguments), assets.locate(arguments.faces)
    report = progressive.train(faces, arguments.out, config, fan=arguments.fan, **_on(arguments))
    _ended(report, "faces", f"{arguments.out / progressive.NETWORK} is the network")


def _supervised(arguments: argparse.Namespace) -> None:
    from facesr_lib import assets, data
    from facesr_lib.networks import supervised as networks
    from facesr_lib.training import supervised

    config, faces = _config(supervised.Config, arguments), arguments.faces
    recipe = supervised.RECIPES[choose(arguments.network, supervised.RECIPES, "supervised network")]
    side = data.FACE_SIDE if config.rotation or config.scale or config.shift else supervised.SIDE
    given: dict[str, Any] = {}
    if recipe.priors:
        given["points"] = data.landmarks(faces, side, arguments.landmarks)
        given["labels"] = data.parsing(faces, side, arguments.parsing)
    if arguments.start:
        given["start"] = networks.load(assets.locate(arguments.start))
    pixels = data.prepared(assets.locate(faces), side, skip_damaged=not recipe.priors)
    report = supervised.train(arguments.network, pixels, arguments.out, config, **given, **_on(arguments))
    _ended(report, "faces", f"{arguments.out / arguments.network}.safetensors is the network")


def _ended(report: Any, seen: str, result: str) -> None:
    print(f"{'interrupted' if report.interrupted else 'done'} after {report.images_seen} {seen}; {result}")
