"""What a suite takes: jobs, work, time by device, disk."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hqdm_bench.catalogue.costs import Costs, Gpu, Machine, Range
from hqdm_bench.catalogue.jobs import Jobs, suite_jobs
from hqdm_bench.catalogue.loader import Catalogue
from hqdm_bench.catalogue.suites import Suite
from hqdm_bench.catalogue.work import (
    Work,
    feature_bytes,
    outlier_work,
    reference_bytes,
    reference_work,
    sample_bytes,
    sampling_work,
    scoring_work,
    student_bytes,
    teacher_bytes,
    training_work,
    trajectory_bytes,
    trajectory_work,
)
from hqdm_bench.common.files import read_json

__all__ = ["STAGES", "GridRow", "Plan", "Timing", "make_plan"]

# Stage: the rules of the workflow that belong to it, and their names in a published cost.csv.
STAGES = {
    "prepare": (
        "fetch_artefact",
        "convert_checkpoint",
        "embedded_teacher",
        "inception_extractor",
        "mini_extractor",
    ),
    "trajectories": ("teacher_trajectories", "channel_outliers"),
    "train": ("train_student",),
    "sample": ("sample_shard",),
    "score": ("published_reference", "scenes_reference", "evaluate_cell"),
}
COST_STAGES = {
    "extractor": "prepare",
    "teacher": "prepare",
    "trajectories": "trajectories",
    "outliers": "trajectories",
    "train": "train",
    "sample": "sample",
    "reference": "score",
    "evaluate": "score",
}


@dataclass(frozen=True)
class GridRow:
    """One model's part of the grid: cells, students, updates, image sets, images."""

    model: str
    cells: int
    students: int
    updates: int
    image_sets: int
    images: int


@dataclass(frozen=True)
class Timing:
    """Seconds of every stage on a device.

    Attributes:
        basis: ``measured`` unit costs, an ``estimated`` range, or a whole ``published run``.
        kind: seconds of one ``cuda`` GPU, or of one ``cpu`` core.
        stages: lowest and highest; equal where nothing is assumed.
    """

    device: str
    basis: Literal["measured", "estimated", "published run"]
    kind: Literal["cpu", "cuda"]
    note: str
    stages: dict[str, Range]

    @property
    def total(self) -> Range:
        """Of all stages."""
        return (
            sum(low for low, _ in self.stages.values()),
            sum(high for _, high in self.stages.values()),
        )


@dataclass(frozen=True)
class Plan:
    """Everything `hqdm-bench plan` says of a suite, from nothing to its last table.

    Attributes:
        work: by stage.
        disk: bytes of what is kept, by kind.
        beside: bytes needed for a while: the largest artefact unpacked, a training checkpoint.
    """

    suite: Suite
    jobs: Jobs
    grid: tuple[GridRow, ...]
    work: dict[str, list[Work]]
    timings: tuple[Timing, ...]
    disk: dict[str, int]
    beside: int

    @property
    def checkpoints(self) -> bool:
        """Whether it runs published models, which are GPU-sized."""
        return any(self.jobs.catalogue.model(name).artefact for name in self.jobs.teachers)


def make_plan(catalogue: Catalogue, suite: Suite, costs: Costs, root: Path) -> Plan:
    """Count and estimate a suite.

    Args:
        catalogue: all catalogues.
        suite: which of its suites.
        costs: unit costs.
        root: project folder, in which a published run of the suite is looked for.

    Raises:
        BenchError: a model was not counted, or the suite names what does not exist.
    """
    jobs = suite_jobs(catalogue, suite)
    for name in jobs.teachers:
        costs.operations(catalogue.model(name))
    work = _work(jobs)
    timings = [_measured(machine, jobs, costs, work) for machine in costs.machines]
    measured = [machine.device for machine in costs.machines]
    timings += [
        _estimated(gpu, costs, work)
        for gpu in costs.gpus
        if not any(gpu.name in device for device in measured)
    ]
    timings.append(_published(root, suite.name))
    disk, beside = _disk(jobs, costs)
    return Plan(
        suite,
        jobs,
        tuple(_grid(jobs)),
        work,
        tuple(timing for timing in timings if timing is not None),
        disk,
        beside,
    )


def _grid(jobs: Jobs) -> Iterator[GridRow]:
    catalogue = jobs.catalogue
    for entry in jobs.suite.models:
        drawn = [cell for cell in jobs.images if cell.model == entry.model]
        own = [cell for cell in jobs.students if cell.model == entry.model]
        distilled = sum(catalogue.method(cell.method).work is None for cell in own)
        students = len(own)
        updates = distilled * catalogue.recipe(entry.recipe).updates
        images = sum(catalogue.protocol(cell.protocol).images for cell in drawn)
        yield GridRow(entry.model, len(entry.cells), students, updates, len(drawn), images)


def _work(jobs: Jobs) -> dict[str, list[Work]]:
    catalogue, suite = jobs.catalogue, jobs.suite
    work: dict[str, list[Work]] = {stage: [] for stage in STAGES}
    for name in jobs.trajectories:
        recipe = catalogue.recipe(suite.model(name).recipe)
        work["trajectories"] += trajectory_work(catalogue.model(name), recipe)
    for name in jobs.outliers:
        recipe, shown = catalogue.recipe(suite.model(name).recipe), suite.model(name).outliers
        work["trajectories"] += outlier_work(catalogue.model(name), recipe, len(shown["steps"]))
    for cell in jobs.students:
        recipe = catalogue.recipe(suite.model(cell.model).recipe)
        work["train"] += training_work(
            catalogue.model(cell.model), recipe, catalogue.method_on(cell.method, cell.model)
        )
    for cell in jobs.images:
        protocol = catalogue.protocol(cell.protocol)
        work["sample"] += sampling_work(catalogue.model(cell.model), protocol, cell.method != "fp")
    for cell in jobs.scored:
        work["score"] += scoring_work(catalogue.protocol(cell.protocol))
    for name in jobs.references:
        work["score"] += reference_work(catalogue.protocol(suite.model(name).protocol))
    return work


def _measured(
    machine: Machine, jobs: Jobs, costs: Costs, work: dict[str, list[Work]]
) -> Timing | None:
    """Sum of unit costs, or None if the machine lacks one of them."""
    counts, start = jobs.by_rule(), machine.seconds.get(("", "start"), 0.0)
    stages = {}
    for stage, rules in STAGES.items():
        seconds = start * sum(counts.get(rule, 0) for rule in rules)
        for part in work[stage]:
            unit = costs.seconds(machine, part.subject, part.unit)
            if unit is None:
                return None
            seconds += part.rows * unit
        stages[stage] = (seconds, seconds)
    return Timing(machine.device, "measured", machine.kind, machine.note, stages)


def _estimated(gpu: Gpu, costs: Costs, work: dict[str, list[Work]]) -> Timing:
    stages = {
        stage: _sum(_gpu_seconds(part, gpu, costs) for part in parts)
        for stage, parts in work.items()
    }
    return Timing(gpu.name, "estimated", "cuda", gpu.source, stages)


def _gpu_seconds(part: Work, gpu: Gpu, costs: Costs) -> Range:
    """Arithmetic or launches, whichever takes longer."""
    slow, fast = gpu.rates["bfloat16" if part.unit == "teacher-bfloat16" else "float32"]
    low, high = costs.student_factor if part.unit in ("student", "update") else (1.0, 1.0)
    macs, launches = part.macs(costs), part.launches(costs)
    return (
        max(low * macs / fast, launches * costs.launch_seconds[0]),
        max(high * macs / slow, launches * costs.launch_seconds[1]),
    )


def _sum(ranges: Iterable[Range]) -> Range:
    pairs = list(ranges)
    return sum(low for low, _ in pairs), sum(high for _, high in pairs)


def _published(root: Path, suite: str) -> Timing | None:
    """CPU time of the jobs of a run that is published with the project."""
    path = root / "results" / "published" / suite / "cost.csv"
    if not path.is_file():
        return None
    stages = dict.fromkeys(STAGES, (0.0, 0.0))
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            stage = COST_STAGES.get(row["job"])
            if stage is not None:
                seconds = stages[stage][0] + float(row["cpu_seconds"])
                stages[stage] = (seconds, seconds)
    machine = read_json(path.with_name("run.json"))["cpu"]
    note = f"CPU time of its jobs, {path.relative_to(root)}"
    return Timing(machine, "published run", "cpu", note, stages)


def _disk(jobs: Jobs, costs: Costs) -> tuple[dict[str, int], int]:
    catalogue, suite = jobs.catalogue, jobs.suite
    extractor = costs.extractors[suite.extractor]
    recipes = {entry.model: catalogue.recipe(entry.recipe) for entry in suite.models}
    models = {entry.model: catalogue.model(entry.model) for entry in suite.models}
    counted = {name: costs.operations(models[name]) for name in jobs.teachers}
    files = [spec.bytes or spec.about_bytes for spec in jobs.artefact_specs]
    disk = {
        "downloads": sum(files),
        "teachers": sum(teacher_bytes(models[m], counted[m]) for m in jobs.teachers)
        + (4 * extractor.parameters if jobs.references else 0),
        "references": sum(
            reference_bytes(catalogue.protocol(suite.model(m).protocol), extractor)
            for m in jobs.references
        ),
        "trajectories": sum(trajectory_bytes(models[m], recipes[m]) for m in jobs.trajectories),
        "students": sum(
            student_bytes(
                counted[c.model], catalogue.method_on(c.method, c.model), recipes[c.model]
            )
            for c in jobs.students
        ),
        "images": sum(
            sample_bytes(models[c.model], catalogue.protocol(c.protocol)) for c in jobs.images
        ),
        "features": sum(
            feature_bytes(catalogue.protocol(c.protocol), extractor) for c in jobs.scored
        ),
    }
    trained = [recipes[c.model].lora_rank * counted[c.model].lora_per_rank for c in jobs.students]
    # A training checkpoint holds each parameter and its two Adam moments in float32.
    return disk, max(files, default=0) + 12 * max(trained, default=0)
