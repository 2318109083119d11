"""Verbs that only read the catalogues: ``list`` and ``plan``."""

import argparse
from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Suite, load_catalogue

__all__ = ["add_verbs"]

KINDS = ("models", "methods", "protocols", "recipes", "artefacts", "suites")


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    listing = verbs.add_parser("list", help="list what config/ holds")
    listing.add_argument("kind", choices=KINDS)
    listing.add_argument("--root", type=Path, default=Path())
    listing.set_defaults(run=_list)
    plan = verbs.add_parser("plan", help="cells, students, updates and images of a suite")
    plan.add_argument("suite")
    plan.add_argument("--root", type=Path, default=Path())
    plan.set_defaults(run=_plan)


def _list(arguments: argparse.Namespace) -> None:
    entries = getattr(load_catalogue(arguments.root), arguments.kind)
    width = max(map(len, entries), default=0)
    for name, entry in entries.items():
        print(f"{name:<{width}}  {getattr(entry, 'title', '')}".rstrip())


def _plan(arguments: argparse.Namespace) -> None:
    catalogue = load_catalogue(arguments.root)
    suite = catalogue.suite(arguments.suite)
    print(
        f"{'model':<16}{'cells':>7}{'students':>10}{'updates':>10}{'images':>10}{'images GB':>11}"
    )
    for line in _plan_rows(catalogue, suite):
        print(line)


def _plan_rows(catalogue: Catalogue, suite: Suite) -> list[str]:
    rows = []
    for entry in suite.models:
        students = sum(cell.method != "fp" for cell in entry.cells)
        updates = students * catalogue.recipe(entry.recipe).updates
        images = len(entry.cells) * catalogue.protocol(entry.protocol).images
        resolution = catalogue.model(entry.model).first_stage["ddconfig"]["resolution"]
        gigabytes = images * resolution**2 * 3 / 1e9
        rows.append(
            f"{entry.model:<16}{len(entry.cells):>7}{students:>10}{updates:>10}{images:>10}"
            f"{gigabytes:>11.2f}"
        )
    return rows
