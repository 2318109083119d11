"""What both studies print alike: numbers with intervals, costs, and the words around them."""

from collections.abc import Iterable, Sequence

from hqdm_bench.report.effects import Effect, Span
from hqdm_bench.report.footprint import Footprint
from hqdm_bench.report.quantities import MINI_EXTRACTOR, Quantity, quantity
from hqdm_bench.report.results import common_protocol
from hqdm_bench.report.study import Group
from hqdm_bench.report.table_notes import (
    GUIDANCE_NOTE,
    LIKE_NOTE,
    MULTIPLE_NOTE,
    protocol_line,
    thousands,
)
from hqdm_bench.report.table_text import Column, number, signed

__all__ = [
    "COST_COLUMNS",
    "TIMES",
    "change_text",
    "cost_cells",
    "level_text",
    "limits",
    "protocol_remark",
    "reading_notes",
    "seed_counts",
]

RATIO_DIGITS = 3
TIMES = "\N{MULTIPLICATION SIGN}"
COST_COLUMNS = (
    Column("Low-bit MACs (%)", "", ("low-bit", "MACs (%)"), numeric=True),
    Column("Low-bit weights (%)", "", ("low-bit", "weights (%)"), numeric=True),
    Column("Size (MB)", "", ("size", "(MB)"), numeric=True),
    Column("BOPs (G)", "", ("BOPs", "(G)"), numeric=True),
)


def cost_cells(found: Footprint | None) -> tuple[str, ...]:
    """Cells under `COST_COLUMNS`."""
    if found is None:
        return ("",) * len(COST_COLUMNS)
    shares = f"{100 * found.mac_share:.1f}", f"{100 * found.weight_share:.1f}"
    return *shares, f"{found.packed_bytes / 1e6:.2f}", f"{found.bops / 1e9:.2f}"


def level_text(found: Span, kind: Quantity, extractor: str) -> str:
    """A mean with its interval, uneven for a geometric one."""
    digits = kind.digits(extractor)
    if kind.ratio:
        ends = ", ".join(number(end, digits) for end in (found.low, found.high))
        return f"{number(found.mean, digits)} [{ends}]"
    return f"{number(found.mean, digits)} ± {found.high - found.mean:.{digits}f}"


def change_text(effect: Effect, kind: Quantity, extractor: str) -> str:
    """A difference with its sign and interval, or a ratio with the ends of its own."""
    found = effect.change
    if kind.ratio:
        ends = f"{found.low:.{RATIO_DIGITS}f}, {found.high:.{RATIO_DIGITS}f}"
        return f"{TIMES}{found.mean:.{RATIO_DIGITS}f} [{ends}]"
    digits = kind.digits(extractor)
    return f"{signed(found.mean, digits)} ± {found.high - found.mean:.{digits}f}"


def seed_counts(effects: Iterable[Effect]) -> str:
    """Number of shared seeds, or from the fewest to the most."""
    counts = sorted({len(effect.seeds) for effect in effects})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def limits(groups: Sequence[Group], n: str) -> str:
    """What results of these models can and cannot show, in one sentence."""
    if all(group.model.source == "embedded" for group in groups):
        return (
            f"The models are small and their images synthetic, with n = {n} training seeds: a "
            "verdict says what a choice does to these models under this recipe, not what it does "
            "to the paper's; no difference seen is not evidence of none."
        )
    return f"With n = {n} training seeds, no difference seen is not evidence of none."


def protocol_remark(group: Group) -> str:
    """How a group's images were drawn and scored; empty without images."""
    if group.baseline.results[0].metrics is None:
        return ""
    return f"Images: {protocol_line(*common_protocol(group.results))}."


def reading_notes(groups: Sequence[Group], extractor: str) -> tuple[str, ...]:
    """How the numbers are read, in the order of importance."""
    keys = {key for group in groups for key in group.keys}
    lines = [
        "Every change is taken seed by seed, so what the seeds share cancels. Intervals are 95 % "
        "Student t intervals over training seeds; better and worse are said where the interval of "
        "the change excludes zero (of a ratio: one), in the direction of the arrow, and no "
        "difference seen otherwise."
    ]
    if any(quantity(key).ratio for key in keys):
        lines.append(
            "Noise error, the squared error of the predicted noise over the teacher's energy on "
            "held-out trajectories, is positive and skewed: its means are geometric, its change "
            f"is a ratio ({TIMES}, below 1 is better), and its intervals are taken on logarithms."
        )
    lines += _image_notes(groups, extractor)
    lines.append(
        "Low-bit: at the bits of the row; multiply-accumulates (MACs) of convolutions and linear "
        "layers. Size: codes packed without gaps, float32 elsewhere, step sizes and zero-points. "
        f"BOPs: MACs {TIMES} weight bits {TIMES} activation bits of one pass for one image."
    )
    return (*lines, MULTIPLE_NOTE)


def _image_notes(groups: Sequence[Group], extractor: str) -> list[str]:
    scored = [group for group in groups if group.baseline.results[0].metrics is not None]
    if not scored:
        return []
    protocols = [common_protocol(group.results)[0] for group in scored]
    images = " or ".join(map(thousands, dict.fromkeys(one["images"] for one in protocols)))
    lines = [
        f"Image metrics: all methods and seeds are drawn from the same noise and labels ({images} "
        "images each), so the interval is over training seeds only and does not hold the "
        "variation of drawing other images. PSNR: median over images, against the full-precision "
        "image of the same noise and label."
    ]
    if any(one["guidance"] > 1 for one in protocols):
        lines.append(GUIDANCE_NOTE)
    return [*lines, LIKE_NOTE] if extractor == MINI_EXTRACTOR else lines
