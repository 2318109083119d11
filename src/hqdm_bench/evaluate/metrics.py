"""The metrics file of a cell: every number with the protocol it was measured under."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.catalogue import Cell, Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_json
from hqdm_bench.evaluate.bootstrap import draw_images, write_replicates
from hqdm_bench.evaluate.features import FeatureSet
from hqdm_bench.evaluate.paired import PairedErrors, paired_replicates
from hqdm_bench.evaluate.reference import Reference
from hqdm_bench.evaluate.scores import ReferenceSide, Scores, ScoreSettings, score_images

__all__ = [
    "MetricReport",
    "distribution_metrics",
    "measure",
    "require_reference",
    "write_metrics",
]


@dataclass(frozen=True)
class MetricReport:
    """Everything ``metrics.json`` and the replicates beside it say about a cell.

    Attributes:
        scores: metrics, their bias and replicates.
        paired: errors against the full-precision model; None for that model itself.
        lpips_sha256: digests of LPIPS's weights, where paired errors hold LPIPS.
        engine: how the student computed when it drew (``engine``, ``why``, ``backend``); None for
            full precision.
    """

    cell: Cell
    protocol: Protocol
    extractor: str
    extractor_sha256: str
    images: int
    scores: Scores
    paired: PairedErrors | None
    images_sha256: str
    lpips_sha256: dict[str, str] | None = None
    engine: dict[str, str] | None = None

    def asdict(self) -> dict[str, Any]:
        """Content of the metrics file."""
        lpips = {} if self.lpips_sha256 is None else {"lpips_sha256": self.lpips_sha256}
        return {
            "cell": self.cell.asdict(),
            "protocol": self.protocol.asdict(),
            "extractor": {"name": self.extractor, "sha256": self.extractor_sha256},
            "images": self.images,
            "values": self.scores.values,
            "standard_errors": self.scores.standard_errors,
            "bias": self.scores.bias,
            "paired": None if self.paired is None else self.paired.summary(),
            "images_sha256": self.images_sha256,
            "engine": self.engine,
            **lpips,
        }

    @property
    def replicates(self) -> dict[str, Tensor]:
        """(B,) replicates of every metric and of every mean and median of paired errors."""
        found = dict(self.scores.replicates)
        if self.paired is not None and self.protocol.bootstrap:
            draws = draw_images(self.images, self.protocol.bootstrap).numpy()
            paired = paired_replicates(self.paired, draws)
            found |= {key: torch.from_numpy(value) for key, value in paired.items()}
        return found


def measure(
    cell: Cell,
    protocol: Protocol,
    samples: FeatureSet,
    reference: Reference,
    paired: PairedErrors | None,
    device: torch.device | None = None,
    lpips_sha256: dict[str, str] | None = None,
) -> MetricReport:
    """Assemble a cell's report.

    Args:
        cell: what was sampled.
        protocol: how it was drawn and is scored; must be the cell's.
        samples: features of its images.
        reference: what is kept of the reference images; made under the model's main protocol, so
            a baseline's protocol must agree with that one in everything the reference depends on.
        paired: errors against the full-precision model, None for that model itself.
        device: see `distribution_metrics`.
        lpips_sha256: digests of LPIPS's weights, if it was measured.

    Raises:
        BenchError: counts, names or extractors contradict the protocol, or paired errors are
            missing.
    """
    if cell.protocol != protocol.name:
        raise BenchError(f"{cell} is scored under '{cell.protocol}', not '{protocol.name}'")
    if (paired is None) != cell.bits.full_precision:
        raise BenchError(
            f"{cell}: paired errors are for quantized cells, and every quantized cell has them"
        )
    return MetricReport(
        cell,
        protocol,
        samples.extractor,
        samples.extractor_sha256,
        len(samples),
        distribution_metrics(protocol, samples, reference, device),
        paired,
        samples.images_sha256,
        lpips_sha256,
    )


def distribution_metrics(
    protocol: Protocol,
    samples: FeatureSet,
    reference: Reference,
    device: torch.device | None = None,
) -> Scores:
    """FID, sFID, Inception score, kernel distance, precision and recall of an image set.

    Args:
        protocol: how the images are scored.
        samples: their features.
        reference: what is kept of the reference images.
        device: where pairs of images are compared and replicates are measured; the CPU if None.
            Precision and recall are the same there: what rounding could decide is measured exactly.

    Raises:
        BenchError: counts, names or extractors contradict the protocol, or the sets are too small.
    """
    require_reference(protocol, reference)
    _require_samples(protocol, samples, reference)
    return score_images(
        samples.features,
        ReferenceSide(reference.pool, reference.spatial, reference.pr_pool, reference.clean),
        ScoreSettings(protocol.is_split, protocol.pr_k, replicates=protocol.bootstrap),
        samples.source,
        device,
    )


def require_reference(protocol: Protocol, reference: Reference) -> None:
    """Check that a reference is the one a protocol asks for.

    Raises:
        BenchError: its name, its numbers of images or its extractor are others.
    """
    where = f"protocol '{protocol.name}'"
    if reference.name != protocol.reference:
        raise BenchError(
            f"{where} asks for reference '{protocol.reference}', got '{reference.name}'; "
            "make the reference again"
        )
    counts = (
        ("reference images", protocol.reference_images, reference.images),
        (
            "reference images for precision and recall",
            protocol.pr_reference_images,
            len(reference.pr_pool),
        ),
    )
    if protocol.clean_fid and reference.clean is None:
        raise BenchError(
            f"{where} asks for clean-fid's distance, which reference '{reference.name}' was made "
            "without; make the reference again"
        )
    for name, wanted, found in counts:
        if wanted != found:
            raise BenchError(
                f"{where} asks for {_count(wanted)} {name}, got {_count(found)}; make the "
                "reference again, from the same numbers in every protocol of the model"
            )
    _require_extractor(protocol, reference.name, reference.extractor)


def _require_samples(protocol: Protocol, samples: FeatureSet, reference: Reference) -> None:
    if len(samples) != protocol.images:
        raise BenchError(
            f"protocol '{protocol.name}' asks for {protocol.images} sample images, got "
            f"{len(samples)}; make them again"
        )
    _require_extractor(protocol, samples.source, samples.extractor)
    if samples.extractor_sha256 != reference.extractor_sha256:
        raise BenchError(
            f"features of {samples.source} and {reference.name} come from different weights of "
            f"'{protocol.extractor}'; extract both again"
        )


def _require_extractor(protocol: Protocol, source: str, extractor: str) -> None:
    if extractor != protocol.extractor:
        raise BenchError(
            f"protocol '{protocol.name}' asks for extractor '{protocol.extractor}'; features of "
            f"{source} are from '{extractor}', extract them again"
        )


def _count(images: int | None) -> str:
    return "the publisher's number of" if images is None else str(images)


def write_metrics(path: Path, replicates: Path, report: MetricReport) -> None:
    """Write a report as JSON and its replicates, atomically, the JSON last."""
    write_replicates(replicates, report.replicates, report.images)
    write_json(path, report.asdict())
