"""`facesr assets`: what the library reads but does not hold."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command and its flags."""
    assets = commands.add_parser("assets", help="weights and data: list, fetch, verify")
    actions = assets.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="what there is and what is here").set_defaults(run=_list)
    fetch = actions.add_parser("fetch", help="download and check")
    fetch.add_argument("names", nargs="+", metavar="NAME")
    fetch.set_defaults(run=_fetch)
    verify = actions.add_parser("verify", help="compare what is here with the registry")
    verify.add_argument("names", nargs="*", metavar="NAME", help="default: all that is here")
    verify.set_defaults(run=_verify)


def _list(arguments: argparse.Namespace) -> None:
    from facesr_lib import assets

    print(assets.table())


def _fetch(arguments: argparse.Namespace) -> None:
    from facesr_lib import assets

    for name in [assets.entry(name).name for name in arguments.names]:  # all are known, before the first is fetched
        print(f"{name}: {assets.fetch(name)}")


def _verify(arguments: argparse.Namespace) -> int:
    from facesr_lib import assets

    found = {name: assets.verify(name) for name in arguments.names or assets.names()}
    if not arguments.names:
        found = {name: status for name, status in found.items() if status != "missing"}
    for name, status in found.items():
        print(f"{name}: {status}")
    return int(any(status not in ("ok", "unchecked") for status in found.values()))
