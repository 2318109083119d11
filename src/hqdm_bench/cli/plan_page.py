"""A plan as a page of text, and as JSON."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hqdm_bench.catalogue.costs import Costs, Range
from hqdm_bench.catalogue.jobs import MAKE_TARGETS, TARGETS
from hqdm_bench.catalogue.plan import STAGES, Plan, Timing

__all__ = ["Download", "plan_json", "plan_page"]

HOUR, MINUTE = 3600, 60
INDENT = "  "
WIDTH = 110


@dataclass(frozen=True)
class Download:
    """A file from outside.

    Attributes:
        bytes: published size, or about.
        exact: whether it is published.
        state: verified, present, partial or missing.
        path: where it belongs.
    """

    name: str
    title: str
    bytes: int
    exact: bool
    state: str
    path: str

    @property
    def to_fetch(self) -> bool:
        """Whether a run would download it."""
        return self.state in ("partial", "missing")


def plan_page(
    plan: Plan, costs: Costs, timings: Sequence[Timing], downloads: Sequence[Download], free: int
) -> str:
    """The page.

    Args:
        plan: of the suite.
        costs: what the estimates assume.
        timings: of the plan, those to show.
        downloads: files from outside and their states.
        free: bytes free on the disk of the project folder.
    """
    sections = [
        _grid(plan),
        _jobs(plan),
        _time(plan, costs, timings),
        _disk(plan, free),
        _downloads(downloads),
        _missing(downloads),
        _run(plan, downloads),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def plan_json(
    plan: Plan, costs: Costs, timings: Sequence[Timing], downloads: Sequence[Download], free: int
) -> dict[str, Any]:
    """The same, in seconds and bytes."""
    return {
        "suite": plan.suite.name,
        "grid": [asdict(row) for row in plan.grid],
        "jobs": plan.jobs.by_rule(),
        "macs": {
            stage: sum(part.macs(costs) for part in parts) for stage, parts in plan.work.items()
        },
        "time": [{**asdict(timing), "total": timing.total} for timing in timings],
        "disk": {**plan.disk, "total": sum(plan.disk.values()), "beside": plan.beside},
        "disk_free": free,
        "downloads": [asdict(one) for one in downloads],
        "missing": [one.name for one in downloads if one.to_fetch],
        "command": _command(plan),
    }


def _grid(plan: Plan) -> list[str]:
    rows = [
        [row.model, row.cells, row.students, row.updates, row.image_sets, row.images]
        for row in plan.grid
    ]
    total = ["total", *(sum(column) for column in list(zip(*rows, strict=True))[1:])]
    head = ["model", "cells", "students", "updates", "image sets", "images"]
    body = [head, *([_counts(row) for row in rows]), _counts(total)]
    note = "An image set is a cell's images, or those of a full-precision baseline."
    return [f"Suite {plan.suite.name}, from nothing to its last table", "", *_aligned(body), note]


def _counts(row: Sequence[Any]) -> list[str]:
    return [row[0], *(f"{value:,}".replace(",", " ") for value in row[1:])]


def _jobs(plan: Plan) -> list[str]:
    counts = plan.jobs.by_rule()
    width = max(map(len, counts))
    lines = [f"{INDENT}{rule:<{width}}{count:>6}" for rule, count in counts.items()]
    target = ", and the target itself" if plan.suite.name in TARGETS else ""
    return [f"Jobs: {sum(counts.values())}{target}", *lines]


def _time(plan: Plan, costs: Costs, timings: Sequence[Timing]) -> list[str]:
    if not timings:
        return ["Time", f"{INDENT}no device was measured for these models"]
    unit, name = (HOUR, "hours") if plan.checkpoints else (MINUTE, "minutes")
    work = [_amount(sum(part.macs(costs) for part in plan.work[stage])) for stage in STAGES]
    total = sum(part.macs(costs) for parts in plan.work.values() for part in parts)
    body = [["", "", *STAGES, "total"], ["multiply-accumulates", "", *work, _amount(total)]]
    for timing in timings:
        what = f"{'GPU' if timing.kind == 'cuda' else 'core'}-{name}, {timing.basis}"
        ranges = [*timing.stages.values(), timing.total]
        body.append([timing.device, what, *(_range(value, unit) for value in ranges)])
    notes = [
        textwrap.fill(note, WIDTH, initial_indent=INDENT, subsequent_indent=2 * INDENT)
        for note in _time_notes(costs, timings)
    ]
    head = "Time of one GPU or one CPU core; n of them take an n-th"
    return [head, "", *_aligned(body, (0, 1)), *notes]


def _time_notes(costs: Costs, timings: Iterable[Timing]) -> list[str]:
    notes = [
        f"{timing.basis}, {timing.device}: {timing.note}"
        for timing in timings
        if timing.basis != "estimated"
    ]
    if any(timing.basis == "estimated" for timing in timings):
        low, high = (f"{seconds * 1e6:g}" for seconds in costs.launch_seconds)
        notes += [
            "estimated: not measured, operations at an assumed share of the published peak "
            "(config/costs/gpus.yaml); `python benchmarks/unit_costs.py --device cuda` measures "
            "the GPU at hand",
            "training takes two to four latents at a time: there a GPU waits for the "
            f"{low} to {high} us (assumed) that each launch takes, not for arithmetic, and a "
            "faster GPU is not faster",
        ]
    return notes


def _disk(plan: Plan, free: int) -> list[str]:
    total = sum(plan.disk.values())
    rows = [[kind, size(count)] for kind, count in plan.disk.items() if count]
    rows += [
        ["total", size(total)],
        ["at its peak", size(total + plan.beside)],
        ["free here", size(free)],
    ]
    lines = ["Disk", *_aligned(rows)]
    if free < total + plan.beside:
        lines.append(f"{INDENT}not enough: make results/ a link to a folder on a larger disk")
    return lines


def _downloads(downloads: Sequence[Download]) -> list[str]:
    if not downloads:
        return ["Downloads: none"]
    rows = [
        [one.name, one.state, ("" if one.exact else "about ") + size(one.bytes), one.title]
        for one in downloads
    ]
    left = sum(one.bytes for one in downloads if one.to_fetch)
    count = sum(one.to_fetch for one in downloads)
    head = f"Downloads: {count} of {len(downloads)} files to fetch, {size(left)}"
    return [head, *_aligned(rows, (0, 1, 3))]


def _missing(downloads: Sequence[Download]) -> list[str]:
    missing = [one for one in downloads if one.to_fetch]
    if not missing:
        return []
    width = max(len(one.name) for one in missing)
    return [
        "Missing: a run downloads these; where it cannot, take a copy of your own with",
        f"{INDENT}hqdm-bench fetch NAME --from FILE",
        *(f"{INDENT}{one.name:<{width}}  {one.path}" for one in missing),
    ]


def _run(plan: Plan, downloads: Sequence[Download]) -> list[str]:
    lines = ["Run"]
    if any(one.to_fetch for one in downloads):
        lines.append(f"{INDENT}hqdm-bench fetch --suite {plan.suite.name}")
    return [*lines, f"{INDENT}{_command(plan)}"]


def _command(plan: Plan) -> str:
    name = plan.suite.name
    if name in MAKE_TARGETS:
        return f"make {name}"
    wanted = [f"results/{name}/tables/table{number}.md" for number in plan.suite.tables]
    wanted += [f"results/{name}/tables/{report}.md" for report in plan.suite.reports]
    wanted += [f"figures/{name}/{figure}.png" for figure in plan.suite.figures]
    if any(entry.baselines for entry in plan.suite.models):
        wanted.append(f"results/{name}/baselines.md")
    cores = 8 if plan.checkpoints else 2
    return f"snakemake --cores {cores} {TARGETS.get(name, ' '.join(wanted))}"


def size(count: float) -> str:
    """``1.83 GB``."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} bytes"


def _amount(macs: float) -> str:
    for unit, scale in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if macs >= scale:
            return f"{macs / scale:.3g} {unit}"
    return "-" if not macs else f"{macs:.3g}"


def _range(value: Range, unit: int) -> str:
    """Three significant digits of a measurement, two of an assumption."""
    digits = 3 if value[0] == value[1] else 2
    low, high = (_short(seconds / unit, digits) for seconds in value)
    return low if low == high else f"{low} to {high}"


def _short(value: float, digits: int) -> str:
    if not value:
        return "-"
    if value < 10:
        return f"{value:.1f}" if value >= 0.05 else "<0.1"
    return f"{float(f'{value:.{digits}g}'):,.0f}".replace(",", " ")


def _aligned(rows: Sequence[Sequence[str]], left: tuple[int, ...] = (0,)) -> list[str]:
    """Columns, those named by ``left`` flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        parts = [
            f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((INDENT + "  ".join(parts)).rstrip())
    return lines
