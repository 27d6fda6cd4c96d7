"""`facesr train`: beside each network's own flags one for every field of its training's Config."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Callable
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
        hints, meanings = get_type_hints(config), _meanings(config)
        group = self.add_argument_group("every choice of the training")
        for field in fields(config):
            switch: dict[str, Any] = {"nargs": "?", "const": True} if hints[field.name] is bool else {}
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=partial(values.value, hint=hints[field.name]),
                default=field.default,
                metavar=getattr(hints[field.name], "__name__", "value").upper(),
                **switch,
                help=f"{meanings.get(field.name, '')} ({values.text(field.default)})".lstrip().replace("%", "%%"),
            )
        return super().parse_known_args(*args, **kwargs)


def _meanings(config: type) -> dict[str, str]:
    """What stands in the source below each field, or below the last of some; a base's too."""
    found: dict[str, str] = {}
    for one in reversed(config.__mro__[:-1]):
        names: list[str] = []
        (definition,) = ast.parse(inspect.getsource(one)).body
        assert isinstance(definition, ast.ClassDef)
        for part in definition.body:
            if isinstance(part, ast.AnnAssign):
                names.append(ast.unparse(part.target))
            elif isinstance(part, ast.Expr):
                found |= dict.fromkeys(names, " ".join(ast.literal_eval(part.value).split()))
                names = []
    return found


def add(commands: Any) -> None:
    """Add the command and its flags."""
    train = commands.add_parser("train", help="train a network, or go on training it")
    networks = train.add_subparsers(required=True, metavar="NETWORK", parser_class=ConfigParser)

    def network(name: str, train: Train, about: str, *, module: str = "", config: str = "Config") -> Any:
        parser = networks.add_parser(name, help=about)
        parser.module, parser.config = f"facesr_lib.training.{module or name}", config
        parser.set_defaults(run=partial(_train, train, parser.module, config))
        return parser

    prior = network("prior", _prior, "a face prior (StyleGAN2)", module="stylegan2")
    prior.add_argument("--faces", type=values.path, required=True, metavar="DIR", help="folder of aligned faces")
    prior.add_argument("--start", metavar="PRIOR", help="begin with these networks: registry name or checkpoint")
    prior.add_argument("--devices", type=int, default=1, help="processes, one per GPU (%(default)s)")

    flow = network("flow", _flow, "the flow that Gaussianises a prior's codes")
    flow.add_argument("--prior", default="faces-64", help="registry name or checkpoint (%(default)s)")

    about = "ESRGAN's first stage: generator and companion encoder, apart"
    first = network("esrgan-start", _esrgan_start, about, module="esrgan", config="Start")
    second = network("esrgan", _esrgan, "ESRGAN and LSRGAN: the second stage, by --latent and --contextual")
    second.add_argument("--start", type=values.path, required=True, metavar="DIR", help="folder of a first stage")
    for stage in (first, second):
        stage.add_argument("--pictures", default="bsd200", help="registry name or folder (%(default)s)")
        faces = "of faces: crop the pictures square and make them so large first (as they are)"
        stage.add_argument("--side", type=int, metavar="PIXELS", help=faces)

    landmarks = network("landmarks", _landmarks, "a small landmark network, by hints")
    landmarks.add_argument("--teacher", metavar="NETWORK", help="whose heatmaps are the hints (drawn landmarks)")

    progressive = network("progressive", _progressive, "progressive face super-resolution")
    progressive.add_argument("--fan", default="landmarks", metavar="NETWORK", help="landmark network (%(default)s)")

    supervised = network("supervised", _supervised, "what it is compared with: VDSR, URDGN, FSRNet, FSRGAN")
    supervised.add_argument("--network", required=True, metavar="NAME", help="vdsr, urdgn, fsrnet or fsrgan")
    supervised.add_argument("--parsing", metavar="FILE", help="labels of the faces, for FSRNet and FSRGAN (ours)")
    supervised.add_argument("--start", metavar="NETWORK", help="begin with it: registry name or file (random numbers)")

    parsing = network("parsing", _parsing, "a network that parses poor faces and restores them (PSFR-GAN's)")
    labels = "folder of label maps, or .npz (the registry's faces' own, or those of --faces CelebAMask-HQ)"
    parsing.add_argument("--labels", type=values.path, help=labels)

    for parser in (landmarks, progressive, supervised, parsing):
        parser.add_argument("--faces", default="faces-train", help="registry name or folder (%(default)s)")
    for parser in (landmarks, supervised):
        parser.add_argument("--landmarks", metavar="FILE", help="labels of the faces (ours)")
    for parser in (prior, first, second, progressive, supervised, parsing):
        parser.add_argument("--bf16", action="store_true", help="convolutions in bfloat16")
    for parser in (flow, landmarks, first, second, progressive, supervised, parsing):
        parser.add_argument("--device", default="auto")
    for parser in (prior, flow, landmarks, first, second, progressive, supervised, parsing):
        parser.add_argument("--out", type=values.path, required=True, metavar="DIR", help="folder of the run")
        whole = parser in (first, second, progressive, supervised)
        parser.add_argument("--hours", type=float, required=not whole, help="all iterations if not given" * whole)
        parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")


Train = Callable[[argparse.Namespace, Any, Any, dict[str, Any]], tuple[Any, str]]
"""Arguments, the training's module, its Config, and on which device, in which numbers → its trainee, or its report, and
what to say at the end."""


def _train(train: Train, module: str, config: str, arguments: argparse.Namespace) -> int:
    from facesr_lib import devices
    from facesr_lib.training import base, loop

    loop.check_budget(arguments.hours, steps=1)  # before anything is prepared
    training = import_module(module)
    kind = getattr(training, config)
    choices = kind(**{field.name: getattr(arguments, field.name) for field in fields(kind)})
    on = {name: value for name, value in vars(arguments).items() if name in ("bf16", "device")}
    if "device" in on:
        on["device"] = devices.pick_device(on["device"])
    made, result = train(arguments, training, choices, on)
    budget = {"hours": arguments.hours, "resume": arguments.resume}
    report = loop.fit(made, arguments.out, **budget) if isinstance(made, base.Training) else made
    print(f"{'interrupted' if report.interrupted else 'done'} after {report.images_seen} {result}")
    return 130 if report.interrupted else 0  # as after every Ctrl-C: a script can tell, and resume


def _prior(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    from facesr_lib.prior import FacePrior

    start = FacePrior.load(arguments.start) if arguments.start else None
    options = {"start": start, "devices": arguments.devices, "hours": arguments.hours, "resume": arguments.resume}
    report = training.train(arguments.faces, arguments.out, config, **options, **on)
    return report, f"images; {arguments.out / training.PRIOR} is the moving average"


def _flow(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    from facesr_lib.prior import FacePrior

    prior = FacePrior.load(arguments.prior, on["device"])
    return training.FlowTraining(prior, config), f"codes; {arguments.out / training.PRIOR} is the prior with its flow"


def _esrgan_start(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    trainee = training.Pretraining(_pictures(arguments), config, **on)
    print(f"the encoder starts from {trainee.config['encoder']}", flush=True)
    return trainee, f"patches; `facesr train esrgan --start {arguments.out}` goes on from here"


def _esrgan(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    trainee = training.Refinement(_pictures(arguments), config, arguments.start, **on)
    print(f"the {'contextual' if config.contextual else 'perceptual'} loss sees by {trainee.seen_by}", flush=True)
    return trainee, f"patches; {arguments.out / training.GENERATOR} is the moving average"


def _pictures(arguments: argparse.Namespace) -> Any:
    from facesr_lib import assets, data
    from facesr_lib.training.patches import read_pictures

    folder = assets.locate(arguments.pictures)
    return read_pictures(folder, arguments.patch) if arguments.side is None else data.prepared(folder, arguments.side)


def _parsing(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    pixels, masks = training.faces_and_labels(arguments.faces, arguments.labels, config.size)
    trainee = training.ParsingTraining(pixels, masks, config, **on)
    return trainee, f"faces; {arguments.out / training.NETWORK} is the moving average"


def _landmarks(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    from facesr_lib import assets, data
    from facesr_lib.networks import landmarks as networks

    teacher = points = None
    if arguments.teacher:
        teacher = networks.load(assets.locate(arguments.teacher))
    else:
        points = data.landmarks(arguments.faces, data.FACE_SIDE, arguments.landmarks)
    pixels = data.prepared(assets.locate(arguments.faces), data.FACE_SIDE, skip_damaged=False)
    trainee = training.Distillation(pixels, points, config, teacher, **on)
    return trainee, f"faces; {arguments.out / training.NETWORK} is the network"


def _progressive(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    from facesr_lib import assets, data
    from facesr_lib.losses import block_features
    from facesr_lib.networks import landmarks as networks

    side = 2 * training.SIDE if config.unaligned else training.SIDE
    pixels = data.prepared(assets.locate(arguments.faces), side)
    seen_by, features = block_features() if config.feature else ("", None)
    fan = networks.load(assets.locate(arguments.fan)) if config.heatmap or config.attention else None
    trainee = training.ProgressiveTraining(pixels, config, fan=fan, features=features, seen_by=seen_by, **on)
    return trainee, f"faces; {arguments.out / training.NETWORK} is the network"


def _supervised(arguments: argparse.Namespace, training: Any, config: Any, on: dict[str, Any]) -> tuple[Any, str]:
    from facesr_lib import assets, data
    from facesr_lib.networks import supervised as networks

    recipe = training.RECIPES[choose(arguments.network, training.RECIPES, "supervised network")]
    side = data.FACE_SIDE if config.rotation or config.scale or config.shift else training.SIDE
    given: dict[str, Any] = {}
    if recipe.priors:
        given["points"] = data.landmarks(arguments.faces, side, arguments.landmarks)
        given["labels"] = data.parsing(arguments.faces, side, arguments.parsing)
    if arguments.start:
        given["start"] = networks.load(assets.locate(arguments.start))
    pixels = data.prepared(assets.locate(arguments.faces), side, skip_damaged=not recipe.priors)
    trainee = training.SupervisedTraining(arguments.network, pixels, config, **given, **on)
    return trainee, f"faces; {arguments.out / arguments.network}.safetensors is the network"
