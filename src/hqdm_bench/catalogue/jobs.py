"""The jobs of a suite, derived from the catalogue as the workflow derives them from its rules.

What figures are made of is known to `hqdm_bench.report`, which takes seconds to import; it is said
here a second time, and the tests hold the two and Snakemake's dry run together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hqdm_bench.catalogue.bits import Bits
from hqdm_bench.catalogue.consistency import TABLE_DATASETS
from hqdm_bench.catalogue.loader import Catalogue
from hqdm_bench.catalogue.specs import ArtefactSpec
from hqdm_bench.catalogue.suites import Cell, Suite

__all__ = ["MAKE_TARGETS", "TABLE_DATASETS", "TARGETS", "Jobs", "suite_jobs"]

# Targets of the workflow, by suite; other suites are asked for by the name of a table.
OWN_TARGETS = ("search", "mini", "smoke", "differences", "outliers", "plus", "tuning")
TARGETS = {"paper": "all"} | {name: name for name in OWN_TARGETS}
# Those that `make` runs alone; `make differences` runs suite outliers as well.
MAKE_TARGETS = ("mini", "smoke", "plus", "tuning")
ON_GPU = (
    "published_reference",
    "teacher_trajectories",
    "channel_outliers",
    "train_student",
    "sample_shard",
    "evaluate_cell",
)


@dataclass
class Jobs:
    """What a suite makes; everything in the order in which it was first needed.

    Attributes:
        images: cells whose images are drawn.
        scored: cells whose images are scored.
        students: cells that are trained.
        teachers: models that are converted or copied.
        trajectories: models that are rolled out.
        outliers: models whose channel maxima are recorded.
        references: models that are measured.
        accepted: models whose baselines are checked before students are trained.
        artefacts: files from outside.
    """

    catalogue: Catalogue
    suite: Suite
    images: dict[Cell, None] = field(default_factory=dict)
    scored: dict[Cell, None] = field(default_factory=dict)
    students: dict[Cell, None] = field(default_factory=dict)
    teachers: dict[str, None] = field(default_factory=dict)
    trajectories: dict[str, None] = field(default_factory=dict)
    outliers: dict[str, None] = field(default_factory=dict)
    references: dict[str, None] = field(default_factory=dict)
    accepted: dict[str, None] = field(default_factory=dict)
    artefacts: dict[str, None] = field(default_factory=dict)

    @property
    def artefact_specs(self) -> list[ArtefactSpec]:
        """Files from outside, in the catalogue's order."""
        known = self.catalogue.artefacts
        return [spec for name, spec in known.items() if name in self.artefacts]

    @property
    def gpu_jobs(self) -> int:
        """Jobs that ask for a GPU; embedded models do not."""
        if not any(self.catalogue.model(name).artefact for name in self.teachers):
            return 0
        counts = self.by_rule()
        return sum(counts.get(rule, 0) for rule in ON_GPU)

    def by_rule(self) -> dict[str, int]:
        """Number of jobs of every rule of the workflow, as its dry run counts them."""
        embedded = [
            name for name in self.teachers if self.catalogue.model(name).source == "embedded"
        ]
        real = [name for name in self.references if self.catalogue.model(name).artefact]
        inception = self.suite.extractor == "inception"
        counts = {
            "fetch_artefact": len(self.artefacts),
            "convert_checkpoint": len(self.teachers) - len(embedded),
            "embedded_teacher": len(embedded),
            "inception_extractor": int(bool(self.references) and inception),
            "mini_extractor": int(bool(self.references) and not inception),
            "published_reference": len(real),
            "scenes_reference": len(self.references) - len(real),
            "teacher_trajectories": len(self.trajectories),
            "channel_outliers": len(self.outliers),
            "train_student": len(self.students),
            "sample_shard": sum(
                self.catalogue.protocol(cell.protocol).shards for cell in self.images
            ),
            "evaluate_cell": len(self.scored),
            "accept_baseline": len(self.accepted),
            "baseline_table": int(any(entry.baselines for entry in self.suite.models)),
            "table": len(self.suite.tables),
            "report_table": len(self.suite.reports),
            "claims": int(bool(self.suite.tables)),
            "suite_page": int(bool(self.suite.tables or self.suite.reports)),
            "figure": len(self.suite.figures),
        }
        return {rule: count for rule, count in counts.items() if count}

    def need_teacher(self, model: str) -> None:
        """Convert a checkpoint, or copy a shipped model."""
        if model not in self.teachers and (artefact := self.catalogue.model(model).artefact):
            self.artefacts[artefact] = None
        self.teachers[model] = None

    def need_trajectories(self, model: str) -> None:
        """Roll a teacher out."""
        self.need_teacher(model)
        self.trajectories[model] = None

    def need_outliers(self, model: str) -> None:
        """Record channel maxima on the held-out trajectories."""
        self.need_trajectories(model)
        self.outliers[model] = None

    def need_student(self, cell: Cell) -> None:
        """Train, after the model's baselines have been accepted."""
        if cell in self.students:
            return
        self.students[cell] = None
        self.need_trajectories(cell.model)
        self.need_acceptance(cell.model)

    def need_acceptance(self, model: str) -> None:
        """Score the baselines that have an expected range."""
        checked = [one.cell for one in self.suite.model(model).baselines if one.expect]
        if model in self.accepted or not checked:
            return
        self.accepted[model] = None
        for cell in checked:
            self.need_score(cell)

    def need_images(self, cell: Cell) -> None:
        """Draw an image set."""
        if cell in self.images:
            return
        self.images[cell] = None
        self.need_teacher(cell.model)
        if cell.method != "fp":
            self.need_student(cell)

    def need_score(self, cell: Cell) -> None:
        """Score images, a student's beside those of full precision."""
        if cell in self.scored:
            return
        self.scored[cell] = None
        self.need_images(cell)
        if cell.method != "fp":
            full = self.suite.cell(cell.model, "fp", Bits(32, 32), 0, cell.protocol)
            self.need_images(full)
        self.references[cell.model] = None
        protocol = self.catalogue.protocol(self.suite.model(cell.model).protocol)
        for name in (self.suite.extractor, protocol.reference):
            if name in self.catalogue.artefacts:
                self.artefacts[name] = None


def suite_jobs(catalogue: Catalogue, suite: Suite) -> Jobs:
    """Every job behind a suite's cells, tables, figures and baselines, from nothing."""
    jobs = Jobs(catalogue, suite)
    datasets = {TABLE_DATASETS[number] for number in suite.tables}
    for entry in suite.models:
        if catalogue.model(entry.model).paper_dataset in datasets:
            jobs.need_acceptance(entry.model)
        for cell in entry.scored:
            jobs.need_score(cell)
        for cell in entry.students:
            jobs.need_student(cell)
        if entry.outliers:
            jobs.need_outliers(entry.model)
        for baseline in entry.baselines:
            jobs.need_score(baseline.cell)
    for figure in suite.figures.values():
        _need_figure(jobs, figure)
    return jobs


def _need_figure(jobs: Jobs, figure: Mapping[str, Any]) -> None:
    """What a figure shows beside the suite's cells, which are made in any case."""
    if figure["kind"] in ("channel_maxima", "hadamard_schemes", "weight_rotation"):
        jobs.need_outliers(figure["model"])
    elif figure["kind"] == "sample_grid":
        for panel in figure["panels"]:
            bits = Bits.parse(panel["bits"])
            cell = jobs.suite.cell(figure["model"], panel["method"], bits, panel["seed"])
            jobs.need_images(cell)
