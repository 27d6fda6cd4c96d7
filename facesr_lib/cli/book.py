"""`facesr book`."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Add the command and its flags."""
    book = commands.add_parser("book", help="execute the chapters and build the site")
    book.add_argument("--profile", choices=("smoke", "read", "paper"), default="read")
    book.add_argument("--jobs", type=int, help="chapters executed at once (default: one for each core)")
    book.add_argument("--seed", type=int, help="run with other random numbers (implies --execute-only)")
    book.add_argument("--execute-only", action="store_true", help="run the chapters, build no site")
    book.add_argument("chapters", nargs="*", help="some chapters only (implies --execute-only)")
    book.set_defaults(run=_book)


def _book(arguments: argparse.Namespace) -> None:
    try:
        from facesr_lib import publishing

        if arguments.execute_only or arguments.chapters or arguments.seed is not None:
            publishing.execute(arguments.chapters, arguments.profile, arguments.jobs, seed=arguments.seed or 0)
        else:
            print(publishing.build(profile=arguments.profile, jobs=arguments.jobs))
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is not installed: pip install 'facesr_lib[book]'.") from error
