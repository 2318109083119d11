"""Verbs for image archives: join a cell's shards into one, score anybody's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hqdm_bench.cli.options import Context, add_cell, add_device, add_protocol, device_of
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import require_file, write_json

if TYPE_CHECKING:
    import torch

    from hqdm_bench.evaluate.archive_scores import ArchiveScore
    from hqdm_bench.evaluate.feature_types import Extractor

__all__ = ["add_verbs"]

EMBEDDED, INCEPTION = "mini-classifier", "inception"


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    export = verbs.add_parser(
        "export", help="a cell's images in one .npz, as other evaluators read them"
    )
    add_cell(export)
    add_protocol(export)
    export.add_argument(
        "--output", type=Path, required=True, help=".npz to write: arr_0 images, arr_1 labels"
    )
    export.set_defaults(run=_export)

    score = verbs.add_parser("score", help="metrics of anybody's .npz of images")
    score.add_argument("generated", type=Path, help=".npz with arr_0: (n, H, W, 3) uint8 images")
    score.add_argument(
        "reference", type=Path, help=".npz with arr_0, or with stored moments (mu, sigma, ...)"
    )
    score.add_argument("--extractor", choices=(INCEPTION, EMBEDDED), default=INCEPTION)
    score.add_argument(
        "--weights",
        type=Path,
        help="Inception's weights (.pth as published); nothing is downloaded",
    )
    score.add_argument("--sha256", help="digest of the weights (default: of the published ones)")
    score.add_argument("--split-size", type=int, default=5000, help="images per split of IS (5000)")
    score.add_argument("--k", type=int, default=3, help="neighbour of precision and recall (3)")
    score.add_argument("--kid", action="store_true", help="also the kernel distance")
    score.add_argument("--clean-fid", action="store_true", help="also FID on clean-fid's resize")
    score.add_argument(
        "--fid-infinity",
        action="store_true",
        help="also FID extrapolated to infinitely many images",
    )
    score.add_argument(
        "--bootstrap", type=int, default=0, metavar="B", help="replicates for standard errors (0)"
    )
    score.add_argument("--batch", type=int, default=64, help="images at a time (64)")
    score.add_argument("--json", type=Path, metavar="OUT", help="also write everything as JSON")
    add_device(score)
    score.set_defaults(run=_score)


def _export(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    cell = context.cell(arguments, arguments.protocol)
    protocol = context.catalogue.protocol(cell.protocol)
    if arguments.output.suffix != ".npz":
        raise BenchError(f"--output {arguments.output}: name a file that ends in .npz")
    shards = [context.layout.shard(cell, shard) for shard in range(protocol.shards)]
    for path in shards:
        require_file(path)

    from hqdm_bench.sample import export_shards

    export_shards(shards, protocol.images, arguments.output)


def _score(arguments: argparse.Namespace) -> None:
    for name in ("split_size", "k", "batch"):
        if getattr(arguments, name) < 1:
            raise BenchError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; take >= 1")
    if arguments.bootstrap < 0 or arguments.bootstrap == 1:
        raise BenchError("--bootstrap: a standard error needs at least 2 replicates; 0 makes none")

    from hqdm_bench.evaluate.archive_scores import score_archive
    from hqdm_bench.evaluate.scores import ScoreSettings
    from hqdm_bench.sample import open_archive

    generated, reference = (open_archive(p) for p in (arguments.generated, arguments.reference))
    device = device_of(arguments)
    found = score_archive(
        generated,
        reference,
        _extractor(arguments, device),
        ScoreSettings(arguments.split_size, arguments.k, arguments.kid, arguments.bootstrap),
        arguments.batch,
        arguments.fid_infinity,
        arguments.clean_fid,
        device,
    )
    if arguments.json:
        write_json(arguments.json, found.asdict())
    print("\n".join(_page(found)))


def _extractor(arguments: argparse.Namespace, device: torch.device) -> Extractor:
    """Inception from a file, its digest checked; the embedded classifier from the package."""
    from hqdm_bench.evaluate.extractors import MiniExtractor
    from hqdm_bench.evaluate.inception import PUBLISHED_SHA256, InceptionExtractor

    if arguments.extractor == INCEPTION:
        if arguments.weights is None:
            raise BenchError(
                "Inception's weights are not downloaded unasked; `hqdm-bench fetch inception` gets "
                "them into artefacts/, then name the file with --weights, or use --extractor "
                f"{EMBEDDED}"
            )
        sha256 = arguments.sha256 or PUBLISHED_SHA256
        return InceptionExtractor.of_file(arguments.weights, sha256, device)
    from hqdm_bench.artefacts import embedded_weights
    from hqdm_bench.models.mini import ClassifierRecipe

    weights = arguments.weights or embedded_weights(EMBEDDED, ClassifierRecipe().digest)
    return MiniExtractor(weights, device)


def _page(found: ArchiveScore) -> Iterator[str]:
    """The printed result: what was scored, a table, and what to know about it."""
    from hqdm_bench.report.quantities import quantity

    extractor = found.generated.extractor
    stored = "stored moments" if found.stored else "moments of its images"
    held = f"{found.reference_images} images" if found.reference_images else "no images"
    yield f"generated: {found.generated.source}, {len(found.generated)} images"
    yield f"reference: {found.reference}, {stored}, {held}"
    yield f"features: {extractor}, sha256 {found.generated.extractor_sha256}"
    settings = found.settings
    yield f"IS over splits of {settings.split_size}, precision and recall with k = {settings.k}"
    yield ""
    yield from _table(found, extractor)
    if found.extrapolation is not None:
        fit = found.extrapolation
        yield ""
        yield (
            f"{quantity('fid').head_lines(extractor)[0]} of infinitely many images: "
            f"{fit.intercept:.4f} (fit over {len(fit.sizes)} subsets of {fit.sizes[0]} to "
            f"{fit.sizes[-1]} images, slope {fit.slope:.1f})"
        )
    for warning in found.warnings:
        yield ""
        yield f"warning: {warning}"


def _table(found: ArchiveScore, extractor: str) -> Iterator[str]:
    from hqdm_bench.report.quantities import quantity

    scores, intervals = found.scores, found.intervals
    heads = ["metric", "value", "standard error", "95 % interval", "bias at this count"]
    rows = [heads]
    for key, value in scores.values.items():
        entry = quantity(key)
        digits = max(entry.digits(extractor), 4 if entry.scale == 1 else 2)
        error, bias = scores.standard_errors[key], scores.bias.get(key)
        ends = intervals.get(key)
        rows.append(
            [
                entry.head(extractor),
                *(
                    "" if number is None else f"{number * entry.scale:z.{digits}f}"
                    for number in (value, error)
                ),
                "" if ends is None else " to ".join(f"{e * entry.scale:z.{digits}f}" for e in ends),
                "" if bias is None else f"{bias * entry.scale:z.{digits}f}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()
