"""Verb that turns a downloaded checkpoint into a full-precision model."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hqdm_bench.catalogue import ArtefactSpec
from hqdm_bench.cli.options import Context, add_model
from hqdm_bench.common.errors import BenchError

if TYPE_CHECKING:
    from hqdm_bench.models.checkpoint import Conversion

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    convert = verbs.add_parser("convert", help="full-precision model from a CompVis checkpoint")
    add_model(convert)
    convert.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="checkpoint, bare or zipped (default: the fetched artefact)",
    )
    convert.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write (default: into results/)"
    )
    convert.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    spec = context.model(arguments)
    if spec.source != "checkpoint" or spec.artefact is None:
        raise BenchError(
            f"model '{spec.name}' is embedded, it has no checkpoint to convert; "
            f"`hqdm-bench teacher --suite {context.suite.name} --model {spec.name}` makes it"
        )
    source = arguments.source or _verified(context, context.catalogue.artefact(spec.artefact))
    if not source.is_file():
        raise BenchError(f"{source} does not exist; name the checkpoint's file with --from")
    target = arguments.output or context.layout.teacher(context.suite.name, spec.name)

    from hqdm_bench.models.checkpoint import convert_checkpoint

    done = convert_checkpoint(spec, source, target)
    sys.stderr.write(f"{spec.name}: {_summary(done)}; from {source} to {target}\n")


def _verified(context: Context, artefact: ArtefactSpec) -> Path:
    """The fetched file; one that was put there by hand is checked like a download."""
    from hqdm_bench.artefacts import verify_artefact

    path = context.layout.artefact(artefact)
    if not path.is_file():
        raise BenchError(
            f"{path} does not exist; `hqdm-bench fetch {artefact.name}` downloads it, or name a "
            "copy of it with --from"
        )
    return verify_artefact(artefact, context.layout).path


def _summary(done: "Conversion") -> str:
    weights = "averaged weights (model_ema.*)" if done.ema else "raw weights (model.*, no EMA)"
    parameters = ", ".join(f"{name} {count:,}" for name, count in done.parameters.items())
    return f"{weights}; {done.tensors} tensors; parameters: {parameters}"
