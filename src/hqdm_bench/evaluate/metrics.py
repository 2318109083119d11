"""The metrics file of a cell: every number with the protocol it was measured under."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hqdm_bench.catalogue import Cell, Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_json
from hqdm_bench.evaluate.features import FeatureSet
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.inception_score import inception_score
from hqdm_bench.evaluate.moments import streaming_moments
from hqdm_bench.evaluate.paired import PairedErrors
from hqdm_bench.evaluate.precision_recall import precision_recall
from hqdm_bench.evaluate.reference import Reference

__all__ = [
    "MetricReport",
    "MetricValues",
    "distribution_metrics",
    "measure",
    "require_reference",
    "write_metrics",
]


@dataclass(frozen=True)
class MetricValues:
    """Distances and scores of an image set.

    Attributes:
        fid: Frechet distance of pooled features.
        sfid: Frechet distance of spatial features.
        inception_score: in file order, over splits of ``protocol.is_split`` images.
        precision: share in [0, 1].
        recall: share in [0, 1].
    """

    fid: float
    sfid: float
    inception_score: float
    precision: float
    recall: float

    def asdict(self) -> dict[str, float]:
        """Under the names of the metrics file."""
        values = asdict(self)
        return {"is" if key == "inception_score" else key: values[key] for key in values}


@dataclass(frozen=True)
class MetricReport:
    """Everything ``metrics.json`` says about a cell.

    Attributes:
        paired: errors against the full-precision model; None for that model itself.
    """

    cell: Cell
    protocol: Protocol
    extractor: str
    extractor_sha256: str
    images: int
    values: MetricValues
    paired: PairedErrors | None
    images_sha256: str

    def asdict(self) -> dict[str, Any]:
        """Content of the metrics file."""
        return {
            "cell": self.cell.asdict(),
            "protocol": self.protocol.asdict(),
            "extractor": {"name": self.extractor, "sha256": self.extractor_sha256},
            "images": self.images,
            "values": self.values.asdict(),
            "paired": None if self.paired is None else asdict(self.paired),
            "images_sha256": self.images_sha256,
        }


def measure(
    cell: Cell,
    protocol: Protocol,
    samples: FeatureSet,
    reference: Reference,
    paired: PairedErrors | None,
    device: torch.device | None = None,
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
    values = distribution_metrics(protocol, samples, reference, device)
    return MetricReport(
        cell,
        protocol,
        samples.extractor,
        samples.extractor_sha256,
        len(samples),
        values,
        paired,
        samples.images_sha256,
    )


def distribution_metrics(
    protocol: Protocol,
    samples: FeatureSet,
    reference: Reference,
    device: torch.device | None = None,
) -> MetricValues:
    """FID, sFID, Inception score, precision and recall of an image set.

    Args:
        protocol: how the images are scored.
        samples: their features.
        reference: what is kept of the reference images.
        device: where the neighbours for precision and recall are searched, in float64; the CPU if
            None. The result is the same: what rounding could decide is measured again exactly.

    Raises:
        BenchError: counts, names or extractors contradict the protocol, or the sets are too small.
    """
    require_reference(protocol, reference)
    _require_samples(protocol, samples, reference)
    sets = (samples.pool.to(device), reference.pr_pool.to(device))
    shares = precision_recall(*sets, protocol.pr_k)
    return MetricValues(
        frechet_distance(streaming_moments([samples.pool]), reference.pool),
        frechet_distance(streaming_moments([samples.spatial]), reference.spatial),
        inception_score(samples.logits, protocol.is_split),
        shares.precision,
        shares.recall,
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


def write_metrics(path: Path, report: MetricReport) -> None:
    """Write a report as JSON, atomically."""
    write_json(path, report.asdict())
