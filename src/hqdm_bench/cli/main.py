"""Parsing, dispatch, and the one place where errors become messages."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from hqdm_bench import __version__
from hqdm_bench.cli import (
    archives,
    artefacts,
    baselines,
    claims,
    convert,
    images,
    listing,
    methods,
    models,
    packing,
    page,
    plan,
    references,
    reports,
    students,
)
from hqdm_bench.common.errors import BenchError

__all__ = ["main"]

EXAMPLES = """\
examples:
  hqdm-bench list methods
      what config/ holds: models, methods, protocols, recipes, suites
  hqdm-bench plan mini
      cells, students, updates and images of a suite
  hqdm-bench train --suite mini --model mini-imagenet --method hqdm --bits w4a4 --seed 0
      one student; snakemake makes the files it needs first:
      snakemake --cores 2 results/mini/mini-imagenet/hqdm/w4a4/seed0/student.safetensors
  hqdm-bench sample --suite mini --model mini-imagenet --method hqdm --bits w4a4 --seed 0 \\
      --images 16 --output some/folder
      a few images of a trained student, outside the suite's results

Whole suites are run by snakemake: `snakemake --cores 2 mini` (or `make mini`).
"""

# In the order in which --help lists them, which is that of a run.
VERBS = (
    listing,
    methods,
    plan,
    artefacts,
    convert,
    references,
    models,
    students,
    packing,
    images,
    archives,
    baselines,
    reports,
    claims,
    page,
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="hqdm-bench",
        description="Reproducibility suite for HQ-DM: quantization-aware training of low-bit "
        "latent diffusion models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hqdm-bench {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for group in VERBS:
        group.add_verbs(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status (0 done, 2 the user can solve it, 130 interrupted)."""
    arguments = build_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with contextlib.ExitStack() as arguments.held:  # what a verb keeps while it runs: its GPU
            arguments.run(arguments)
    except BenchError as error:
        sys.stderr.write(f"hqdm-bench {arguments.verb}: error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(
            f"hqdm-bench {arguments.verb}: interrupted; nothing unfinished was kept under its "
            "final name, run the same command again to go on\n"
        )
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Treat a polite kill like Ctrl-C, so that temporary files are removed."""
    raise KeyboardInterrupt
