"""The words around a table: protocol, coverage, and what its numbers can and cannot show."""

from collections.abc import Mapping, Sequence
from typing import Any

from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.report.footprint import shares_text
from hqdm_bench.report.paper import PAPER_IMAGES
from hqdm_bench.report.quantities import MINI_EXTRACTOR
from hqdm_bench.report.results import CellResult

__all__ = [
    "COMPARISON_NOTES",
    "GUIDANCE_NOTE",
    "LIKE_NOTE",
    "MULTIPLE_NOTE",
    "coverage_line",
    "notes",
    "protocol_line",
    "thousands",
]

SMALL_SAMPLE = 10_000  # below this a Fréchet distance's bias is not negligible

LIKE_NOTE = (
    "-like: in the features of a small classifier of the embedded images instead of Inception's; "
    "precision and recall are measured in the same features."
)
GUIDANCE_NOTE = (
    "Under guidance the noise of quantization can restore diversity, so a student's Fréchet "
    "distance may fall below the full-precision model's; read it with precision and PSNR."
)
MULTIPLE_NOTE = (
    "No correction is made for the number of comparisons: about one in twenty true ties is called "
    "for one side or the other."
)
COMPARISON_NOTES = (
    "Each difference is taken seed by seed, so what the seeds share cancels. A method is ahead "
    "where the 95 % Student t interval of the mean difference excludes zero, in the direction of "
    "the arrow; otherwise, and with a single seed, the comparison is inconclusive.",
    MULTIPLE_NOTE,
)


def protocol_line(protocol: Mapping[str, Any], extractor: Mapping[str, str]) -> str:
    """How our images were drawn and scored, in one line."""
    labels = f"{protocol['labels']} labels, " if protocol["labels"] != "none" else ""
    return (
        f"{protocol['steps']} DDIM steps, eta {protocol['eta']:g}, guidance "
        f"{protocol['guidance']:g}, {labels}{thousands(protocol['images'])} images against "
        f"{_reference(protocol)}, features of "
        f"{extractor['name']} (sha256 {extractor['sha256'][:12]})"
    )


def _reference(protocol: Mapping[str, Any]) -> str:
    if protocol["reference_images"] is None:
        return (
            f"the moments stored in {protocol['reference']} (precision and recall: "
            f"{thousands(protocol['pr_reference_images'])} of its images)"
        )
    return f"{thousands(protocol['reference_images'])} of {protocol['reference']}"


def coverage_line(results: Sequence[CellResult]) -> str:
    """Share of multiply-accumulates at which bits; bit-widths of equal shares share a text."""
    widths: dict[str, dict[str, None]] = {}
    for result in results:
        if result.training is not None:
            text = shares_text(result.cell.bits, result.training["coverage"]["by_bits"])
            widths.setdefault(text, {})[result.cell.bits.label] = None
    return "; ".join(f"{', '.join(labels)}: {text}" for text, labels in widths.items())


def notes(
    spec: ModelSpec, protocol: Mapping[str, Any], extractor: str, comparable: bool
) -> tuple[str, ...]:
    """Footnotes in the order of importance."""
    lines = []
    if not comparable:
        lines.append(
            f"The paper's models, data, {thousands(PAPER_IMAGES)} images and Inception features "
            f"are not ours ({spec.title}): only the order of the methods can be set beside the "
            "paper's."
        )
    if extractor == MINI_EXTRACTOR:
        lines.append(LIKE_NOTE)
    lines.append(
        "± is the half-width of the 95 % Student t interval of the mean over n training seeds; "
        "n = 1 has none. All methods and seeds are sampled from the same noise and labels, so the "
        "interval holds the variation of training, not that of drawing other images."
    )
    if protocol["images"] < SMALL_SAMPLE:
        lines.append(
            f"Fréchet distances of {thousands(protocol['images'])} images are biased upwards, "
            "nearly alike in all rows: read differences, not levels."
        )
    if protocol["guidance"] > 1:
        lines.append(GUIDANCE_NOTE)
    lines.append(
        "Noise error: squared error of the predicted noise over the teacher's energy on held-out "
        "trajectories. PSNR and latent MSE: median over images, against the full-precision image "
        "of the same noise and label."
    )
    lines.append(
        "—: a dash in the paper. Blank: the paper has no such row, or it was not run here."
    )
    return tuple(lines)


def thousands(number: int) -> str:
    """Thin groups from five digits on, as in 50 000."""
    return f"{number:,}".replace(",", " ") if number >= 10_000 else str(number)
