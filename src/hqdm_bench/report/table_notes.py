"""The words around a table: protocol, coverage, and what its numbers can and cannot show."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hqdm_bench.catalogue import ModelSpec
from hqdm_bench.report.estimates import IMAGES, SEEDS, Estimate
from hqdm_bench.report.footprint import shares_text
from hqdm_bench.report.granularity import GRIDS_NOTE
from hqdm_bench.report.paper import PAPER_IMAGES
from hqdm_bench.report.quantities import MINI_EXTRACTOR, quantity
from hqdm_bench.report.quoted import SOURCES
from hqdm_bench.report.results import CellResult
from hqdm_bench.report.table_model import Row

__all__ = [
    "GUIDANCE_NOTE",
    "LIKE_NOTE",
    "MULTIPLE_NOTE",
    "PAIRED_IMAGES_NOTE",
    "best_notes",
    "comparison_notes",
    "coverage_line",
    "engine_notes",
    "interval_notes",
    "notes",
    "protocol_line",
    "source_notes",
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
PAIRED_NOTE = (
    "Each difference is taken seed by seed, so what the seeds share cancels. A method is ahead "
    "where the 95 % interval of the difference excludes zero, in the direction of the arrow; "
    "otherwise, and where there is no interval, the comparison is inconclusive."
)
SEEDS_NOTE = (
    "± is the half-width of the 95 % Student t interval of the mean over n training seeds. All "
    "methods and seeds are sampled from the same noise and labels, so it holds the variation of "
    "training, not that of drawing other images."
)
IMAGES_NOTE = (
    "Brackets are the 95 % basic bootstrap interval over the images of one training seed, at their "
    "number: it holds what drawing other images would change, not what training again would."
)
PAIRED_IMAGES_NOTE = (
    "Brackets are over the images of one training seed of both methods, resampled alike: a method "
    "ahead there is ahead with these two students, and another seed may turn it."
)
NO_INTERVAL_NOTE = "A number without either comes from one training seed and has no interval."
MEASURED_NOTE = "Measured: by this package, every row under the one protocol above."
BEST_NOTE = (
    "Bold: ahead of every other measured row at the same bits, each paired 95 % interval excluding "
    "zero. Where none is bold, no row is told from all others."
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
    spec: ModelSpec,
    protocol: Mapping[str, Any],
    extractor: str,
    comparable: bool,
    reading: Sequence[str],
    bias: Mapping[str, float],
) -> tuple[str, ...]:
    """Footnotes in the order of importance.

    Args:
        spec: the model.
        protocol: how its images were drawn.
        extractor: name of the extractor.
        comparable: whether the paper's numbers are of the same experiment.
        reading: how to read intervals and bold.
        bias: first-order bias of the Frechet distances at this number of images, by metric.
    """
    lines = []
    if not comparable:
        lines.append(
            f"The paper's models, data, {thousands(PAPER_IMAGES)} images and Inception features "
            f"are not ours ({spec.title}): only the order of the methods can be set beside the "
            "paper's."
        )
    if extractor == MINI_EXTRACTOR:
        lines.append(LIKE_NOTE)
    lines += reading
    lines += _bias_note(protocol["images"], extractor, bias)
    if protocol["guidance"] > 1:
        lines.append(GUIDANCE_NOTE)
    lines.append(
        "Noise error: squared error of the predicted noise over the teacher's energy on held-out "
        "trajectories, whose images its brackets are over. PSNR and latent MSE: median over "
        "images, against the full-precision image of the same noise and label."
    )
    lines.append(
        "—: a dash in the paper. Blank: no paper quoted here has it, or it was not measured."
    )
    return tuple(lines)


def _bias_note(images: int, extractor: str, bias: Mapping[str, float]) -> list[str]:
    """How much of a Frechet distance is owed to the number of images."""
    sizes = [
        f"{bias[key] * kind.scale:.{kind.digits(extractor)}f} of {kind.head_lines(extractor)[0]}"
        for key in ("fid", "sfid", "clean_fid")
        if key in bias
        for kind in (quantity(key),)
    ]
    found = []
    if images < SMALL_SAMPLE:
        found.append(
            f"Fréchet distances of {thousands(images)} images are biased upwards, nearly alike in "
            "all rows: read differences, not levels."
        )
    if sizes:
        found.append(
            f"First-order bias c/N at {thousands(images)} images, what a perfect model would "
            f"score: {', '.join(sizes)}."
        )
    return [" ".join(found)] if found else []


def engine_notes(results: Iterable[CellResult], titles: Mapping[str, str]) -> tuple[str, ...]:
    """Which students drew their images in integers, where some did.

    Args:
        results: of the table.
        titles: of their methods.
    """
    drawn: dict[str, dict[str, list[str]]] = {}
    for result in results:
        record = (result.metrics or {}).get("engine")
        if record is not None:
            widths = drawn.setdefault(record["engine"], {}).setdefault(
                titles[result.cell.method], []
            )
            if result.cell.bits.label not in widths:
                widths.append(result.cell.bits.label)
    if "integer" not in drawn:
        return ()

    def named(engine: str) -> str:
        """Titles, with bit-widths where a method's students differ."""
        others = [title for other, found in drawn.items() if other != engine for title in found]
        return ", ".join(
            f"{title} ({', '.join(widths)})" if title in others else title
            for title, widths in drawn[engine].items()
        )

    text = f"Drawn in int8 integers: {named('integer')}"
    if "fake" in drawn:
        text += f"; fake-quantized in floating point: {named('fake')}"
    return (f"{text}. Codes and sums are the same; float32 around them rounds otherwise.",)


def interval_notes(values: Iterable[Estimate]) -> tuple[str, ...]:
    """What the intervals of a table's numbers are over."""
    sources = {value.source for value in values}
    found = {SEEDS: SEEDS_NOTE, IMAGES: IMAGES_NOTE, None: NO_INTERVAL_NOTE}
    return tuple(text for source, text in found.items() if source in sources)


def comparison_notes(differences: Iterable[Estimate]) -> tuple[str, ...]:
    """The same for paired differences, and how they are judged."""
    sources = {difference.source for difference in differences}
    over_images = (PAIRED_IMAGES_NOTE,) if IMAGES in sources else ()
    return PAIRED_NOTE, *over_images, MULTIPLE_NOTE


def source_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """What is quoted and from where, what is measured, and how the grids are named."""
    held = {row.source for row in rows}
    said = [f"“{entry.label}”: {entry.says}." for name, entry in SOURCES.items() if name in held]
    words = ("Quoted: printed in a paper, not measured here.", *said, MEASURED_NOTE)
    found = (" ".join(words),)
    return (*found, GRIDS_NOTE) if any(row.granularity for row in rows) else found


def best_notes(rows: Iterable[Row]) -> tuple[str, ...]:
    """What bold says, where several measured rows could be."""
    counts = Counter(row.bits for row in rows if row.measured)
    return (BEST_NOTE,) if any(count > 1 for count in counts.values()) else ()


def thousands(number: int) -> str:
    """Thin groups from five digits on, as in 50 000."""
    return f"{number:,}".replace(",", " ") if number >= 10_000 else str(number)
