"""Verb for external files: ``fetch``."""

import argparse
from pathlib import Path

from hqdm_bench.catalogue import ArtefactSpec, Catalogue, Layout, load_catalogue
from hqdm_bench.common.errors import BenchError

__all__ = ["add_verbs"]

EXAMPLES = """\
examples:
  hqdm-bench fetch --suite paper
      everything suite paper needs; what is there already is only checked
  hqdm-bench fetch inception adm-imagenet256
      two files by name; `hqdm-bench list artefacts` lists the names
  hqdm-bench fetch ldm4-imagenet --from downloads/model.ckpt
      a copy you have: checked, then linked (copied from another file system)
  hqdm-bench fetch ldm4-imagenet --from https://example.org/model.ckpt
      another URL instead of the catalogue's
  hqdm-bench fetch --all --offline
      check what is there, say what is missing, open no connection

Files go to artefacts/. An interrupted download goes on where it stopped when the same command is
run again. Each file is checked against the sha256 in config/artefacts.yaml; where none is
published, the first download's is recorded in config/artefacts.lock.json, to be committed.
"""


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    fetch = verbs.add_parser(
        "fetch",
        help="download and check external files: checkpoints, references, weights",
        description="Download and check external files: checkpoints, reference sets, weights.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fetch.add_argument("names", nargs="*", metavar="NAME", help="artefact of config/artefacts.yaml")
    fetch.add_argument("--all", action="store_true", help="every artefact (with --suite: of it)")
    fetch.add_argument("--suite", help="what this suite needs, such as paper")
    fetch.add_argument(
        "--from",
        dest="source",
        metavar="PATH|URL",
        help="take one NAME from here instead of the catalogue's URLs",
    )
    fetch.add_argument("--offline", action="store_true", help="open no connection")
    fetch.add_argument(
        "--root", type=Path, default=Path(), help="project folder (default: the current one)"
    )
    fetch.set_defaults(run=_fetch)


def _fetch(arguments: argparse.Namespace) -> None:
    catalogue = load_catalogue(arguments.root)
    specs, layout = _selected(catalogue, arguments), Layout(arguments.root)
    if not specs:
        print(f"suite '{arguments.suite}' needs no external files")
    failed = []
    for spec in specs:
        try:
            print(_fetch_one(spec, layout, arguments), flush=True)
        except BenchError as error:  # the others may be had all the same
            failed.append(str(error))
    if failed:
        count = f"{len(failed)} of {len(specs)} artefacts failed:\n" if len(failed) > 1 else ""
        raise BenchError(count + "\n".join(failed))


def _selected(catalogue: Catalogue, arguments: argparse.Namespace) -> list[ArtefactSpec]:
    from hqdm_bench.artefacts import suite_artefacts

    names = list(dict.fromkeys(arguments.names))
    if bool(names) == (arguments.all or arguments.suite is not None):
        raise BenchError(
            "name artefacts, or take all of them with --all, or those of a suite with --suite; "
            f"there are {', '.join(catalogue.artefacts)}"
        )
    if arguments.source and len(names) != 1:
        raise BenchError("--from gives one file, so it goes with one NAME")
    if names:
        return [catalogue.artefact(name) for name in names]
    if arguments.suite is None:
        return list(catalogue.artefacts.values())
    return suite_artefacts(catalogue, catalogue.suite(arguments.suite))


def _fetch_one(spec: ArtefactSpec, layout: Layout, arguments: argparse.Namespace) -> str:
    from hqdm_bench.artefacts import fetch_artefact

    done = fetch_artefact(spec, layout, arguments.source, arguments.offline)
    how = "is already there" if done.how == "present" else done.how
    line = f"{spec.name}: {done.path} {how}, {done.bytes} bytes, sha256 {done.sha256}"
    if done.recorded:
        return (
            f"{line}; no digest was known, it is now recorded in {layout.artefact_lock}: commit it"
        )
    return f"{line} verified"
