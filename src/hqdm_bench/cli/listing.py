"""The verb that lists what the catalogues hold."""

import argparse
from pathlib import Path

from hqdm_bench.catalogue import load_catalogue

__all__ = ["add_verbs"]

KINDS = ("models", "methods", "protocols", "recipes", "artefacts", "suites")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    listing = verbs.add_parser("list", help="list what config/ holds")
    listing.add_argument("kind", choices=KINDS)
    listing.add_argument("--root", type=Path, default=Path())
    listing.set_defaults(run=_list)


def _list(arguments: argparse.Namespace) -> None:
    entries = getattr(load_catalogue(arguments.root), arguments.kind)
    width = max(map(len, entries), default=0)
    for name, entry in entries.items():
        print(f"{name:<{width}}  {getattr(entry, 'title', '')}".rstrip())
