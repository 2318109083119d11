"""The metrics file of a cell: every number with the protocol it was measured under."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hqdm_bench.catalogue import Cell, Protocol
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import write_json
from hqdm_bench.evaluate.features import FeatureSet
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.inception_score import inception_score
from hqdm_bench.evaluate.moments import Moments
from hqdm_bench.evaluate.paired import PairedErrors
from hqdm_bench.evaluate.precision_recall import precision_recall

__all__ = ["MetricReport", "MetricValues", "distribution_metrics", "measure", "write_metrics"]


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
    reference: FeatureSet,
    paired: PairedErrors | None,
) -> MetricReport:
    """Assemble a cell's report.

    Args:
        cell: what was sampled.
        protocol: how it was drawn and is scored; must be the cell's.
        samples: features of its images.
        reference: features of the reference images.
        paired: errors against the full-precision model, None for that model itself.

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
    values = distribution_metrics(protocol, samples, reference)
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
    protocol: Protocol, samples: FeatureSet, reference: FeatureSet
) -> MetricValues:
    """FID, sFID, Inception score, precision and recall of an image set.

    Precision and recall use the first ``protocol.pr_reference_images`` reference images.

    Raises:
        BenchError: counts, names or extractors contradict the protocol, or the sets are too small.
    """
    _require_protocol(protocol, samples, reference)
    real = reference.pool[: protocol.pr_reference_images]
    shares = precision_recall(samples.pool, real, protocol.pr_k)
    return MetricValues(
        frechet_distance(Moments.of(samples.pool), Moments.of(reference.pool)),
        frechet_distance(Moments.of(samples.spatial), Moments.of(reference.spatial)),
        inception_score(samples.logits, protocol.is_split),
        shares.precision,
        shares.recall,
    )


def _require_protocol(protocol: Protocol, samples: FeatureSet, reference: FeatureSet) -> None:
    where = f"protocol '{protocol.name}'"
    if reference.source != protocol.reference:
        raise BenchError(
            f"{where} asks for reference '{protocol.reference}', got '{reference.source}'; "
            "make the reference features again"
        )
    counts = (
        ("sample images", protocol.images, len(samples)),
        ("reference images", protocol.reference_images, len(reference)),
    )
    for name, wanted, found in counts:
        if wanted != found:
            raise BenchError(f"{where} asks for {wanted} {name}, got {found}; make them again")
    if not 0 < protocol.pr_reference_images <= len(reference):
        raise BenchError(
            f"{where}: pr_reference_images is {protocol.pr_reference_images}; choose 1 to "
            f"{len(reference)}, the number of reference images"
        )
    for part in (samples, reference):
        if part.extractor != protocol.extractor:
            raise BenchError(
                f"{where} asks for extractor '{protocol.extractor}'; features of {part.source} are "
                f"from '{part.extractor}', extract them again"
            )
    if samples.extractor_sha256 != reference.extractor_sha256:
        raise BenchError(
            f"features of {samples.source} and {reference.source} come from different weights of "
            f"'{protocol.extractor}'; extract both again"
        )


def write_metrics(path: Path, report: MetricReport) -> None:
    """Write a report as JSON, atomically."""
    write_json(path, report.asdict())
