"""Verbs for a cell's images: draw a shard, score the set."""

import argparse
from dataclasses import replace
from pathlib import Path

from hqdm_bench.catalogue import Bits, Cell, Protocol
from hqdm_bench.cli.options import Context, add_cell, add_device, device_of
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import require_file

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    sample = verbs.add_parser("sample", help="draw one shard of a cell's images")
    add_cell(sample)
    add_device(sample)
    sample.add_argument("--shard", type=int, default=0, help="shard to draw (default: 0)")
    sample.add_argument(
        "--images", type=int, help="draw this many instead, in one shard; needs --output"
    )
    sample.add_argument(
        "--output", type=Path, help="folder for shard{k}.npz (default: the suite's results)"
    )
    sample.set_defaults(run=_sample)

    evaluate = verbs.add_parser("evaluate", help="features and metrics of a cell's images")
    add_cell(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _sample(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    cell = context.cell(arguments)
    protocol = _sampling_protocol(context, cell, arguments)

    from hqdm_bench.methods import load_student
    from hqdm_bench.models import load_latent_diffusion
    from hqdm_bench.sample import sample_shard

    layout, device = context.layout, device_of(arguments)
    model = load_latent_diffusion(context.model(arguments), layout.teacher(cell.suite, cell.model))
    if cell.method != "fp":
        method = context.catalogue.method(cell.method)
        student = load_student(layout.student(cell), method, model)
        student.freeze()
        model = model.with_unet(student)
    path = layout.shard(cell, arguments.shard)
    if arguments.output:
        path = arguments.output / path.name
    sample_shard(model.to(device).eval(), protocol, arguments.shard, path)


def _sampling_protocol(context: Context, cell: Cell, arguments: argparse.Namespace) -> Protocol:
    protocol = context.catalogue.protocol(cell.protocol)
    if arguments.images is None:
        return protocol
    if arguments.output is None:
        raise BenchError(
            "--images needs --output: another image count is not the suite's protocol, so its "
            "images do not belong among the suite's results"
        )
    return replace(protocol, images=arguments.images, shards=1)


def _evaluate(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    cell = context.cell(arguments)
    protocol = context.catalogue.protocol(cell.protocol)
    baseline = context.suite.cell(cell.model, "fp", Bits(32, 32), 0)

    from hqdm_bench.evaluate.extractors import load_extractor
    from hqdm_bench.evaluate.features import read_features, sample_features, write_features
    from hqdm_bench.evaluate.metrics import measure, write_metrics
    from hqdm_bench.evaluate.paired import paired_errors

    layout = context.layout
    shards = [layout.shard(cell, shard) for shard in range(protocol.shards)]
    for path in shards:  # before anything heavy is loaded
        require_file(path)
    extractor = load_extractor(protocol.extractor, layout.extractor(cell.suite))
    features = sample_features(shards, protocol, extractor, str(cell))
    paired = None
    if cell != baseline:
        others = [layout.shard(baseline, shard) for shard in range(protocol.shards)]
        paired = paired_errors(shards, others)
    reference = read_features(layout.reference(cell.suite, cell.model))
    report = measure(cell, protocol, features, reference, paired)
    write_features(layout.features(cell), features)
    write_metrics(layout.metrics(cell), report)
