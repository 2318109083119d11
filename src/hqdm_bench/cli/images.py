"""Verbs for a cell's images: draw a shard, score the set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hqdm_bench.catalogue import Bits, Cell, Protocol
from hqdm_bench.cli.options import Context, add_cell, add_device, add_protocol, device_of
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import require_file

if TYPE_CHECKING:
    import torch

    from hqdm_bench.evaluate.paired import PairedErrors
    from hqdm_bench.evaluate.perceptual import PerceptualDistance

__all__ = ["add_verbs"]

ENGINES = ("fake", "integer", "float", "auto")


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    sample = verbs.add_parser("sample", help="draw one shard of a cell's images")
    add_cell(sample)
    add_protocol(sample)
    add_device(sample)
    sample.add_argument("--shard", type=int, default=0, help="shard to draw (default: 0)")
    sample.add_argument(
        "--images", type=int, help="draw this many instead, in one shard; needs --output"
    )
    sample.add_argument(
        "--output", type=Path, help="folder for shard{k}.npz (default: the suite's results)"
    )
    sample.add_argument(
        "--engine",
        choices=ENGINES,
        help="how a student computes: floating point on quantized values (fake), their integers "
        "in int8 (integer), the same integers in floating point (float), integers where that is "
        "exact and else fake (auto); default: the suite's",
    )
    sample.set_defaults(run=_sample)

    evaluate = verbs.add_parser("evaluate", help="features and metrics of a cell's images")
    add_cell(evaluate)
    add_protocol(evaluate)
    add_device(evaluate)
    evaluate.add_argument(
        "--lpips",
        type=Path,
        metavar="FOLDER",
        help="also LPIPS to full precision, with the weights in a folder (see docs/metrics.md)",
    )
    evaluate.set_defaults(run=_evaluate)


def _sample(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    cell = context.cell(arguments, arguments.protocol)
    protocol = _sampling_protocol(context, cell, arguments)

    from hqdm_bench.methods import load_student
    from hqdm_bench.models import at_precision, load_latent_diffusion
    from hqdm_bench.sample import sample_shard
    from hqdm_bench.sample.engine_record import write_engine

    layout, device = context.layout, device_of(arguments)
    model = load_latent_diffusion(context.model(arguments), layout.teacher(cell.suite, cell.model))
    record: dict[str, Any] | None = None
    if cell.method == "fp":
        if arguments.engine in ("integer", "float"):
            raise BenchError(f"--engine {arguments.engine} is for students, not full precision")
        model = at_precision(model, protocol.teacher_precision)
    else:
        from hqdm_bench.integer.engines import student_engine

        method = context.method(cell)
        student = load_student(layout.student(cell), model.unet, method)
        engine = arguments.engine or context.suite.engine
        ready, record = student_engine(student.to(device), engine, device)
        model = model.with_unet(ready)
    path = layout.shard(cell, arguments.shard)
    if arguments.output:
        path = arguments.output / path.name
    sample_shard(model.to(device).eval(), protocol, arguments.shard, path)
    write_engine(path, record)
    if record is not None:
        sys.stderr.write(f"engine {record['engine']}: {record['why']}\n")


def _sampling_protocol(context: Context, cell: Cell, arguments: argparse.Namespace) -> Protocol:
    protocol = context.catalogue.protocol(cell.protocol)
    if arguments.images is None:
        return protocol
    if arguments.output is None:
        raise BenchError(
            "--images needs --output: another image count is not the suite's protocol, so its "
            "images do not belong among the suite's results"
        )
    return replace(protocol, images=arguments.images, shards=1, trace_images=0)


def _evaluate(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    cell = context.cell(arguments, arguments.protocol)
    protocol = context.catalogue.protocol(cell.protocol)

    from hqdm_bench.evaluate.extractors import load_extractor
    from hqdm_bench.evaluate.features import sample_features, write_features
    from hqdm_bench.evaluate.metrics import measure, require_reference, write_metrics
    from hqdm_bench.evaluate.reference import read_reference
    from hqdm_bench.report.preview import write_preview
    from hqdm_bench.sample.engine_record import read_engine

    layout = context.layout
    shards = [layout.shard(cell, shard) for shard in range(protocol.shards)]
    for path in shards:  # all checks that take no time come first
        require_file(path)
    reference = read_reference(layout.reference(cell.suite, cell.model))
    require_reference(protocol, reference)
    weights = layout.extractor(cell.suite)
    device = device_of(arguments)
    extractor = load_extractor(protocol.extractor, weights, device)
    features = sample_features(shards, protocol, extractor, str(cell))
    perceptual = _perceptual(arguments, device)
    paired = _paired(context, cell, shards, device, perceptual)
    lpips = None if perceptual is None else perceptual.sha256
    report = measure(cell, protocol, features, reference, paired, device, lpips)
    report = replace(report, engine=read_engine(shards))
    write_features(layout.features(cell), features)
    write_metrics(layout.metrics(cell), layout.replicates(cell), report)
    write_preview(layout.preview(cell), shards, protocol.images)


def _perceptual(arguments: argparse.Namespace, device: torch.device) -> PerceptualDistance | None:
    if arguments.lpips is None or arguments.method == "fp":
        return None
    from hqdm_bench.evaluate.perceptual import PerceptualDistance

    return PerceptualDistance(arguments.lpips, device)


def _paired(
    context: Context,
    cell: Cell,
    shards: Sequence[Path],
    device: torch.device,
    perceptual: PerceptualDistance | None,
) -> PairedErrors | None:
    """Errors against the full-precision model's images under the same protocol."""
    if cell.bits.full_precision:
        return None
    from hqdm_bench.evaluate.paired import paired_errors

    other = context.suite.cell(cell.model, "fp", Bits(32, 32), 0, cell.protocol)
    protocol = context.catalogue.protocol(cell.protocol)
    others = [context.layout.shard(other, k) for k in range(len(shards))]
    return paired_errors(shards, others, protocol, device, perceptual)
