"""Where every file of a run lives; the workflow and the verbs share these names."""

from dataclasses import dataclass
from pathlib import Path

from hqdm_bench.catalogue.specs import ArtefactSpec
from hqdm_bench.catalogue.suites import Cell

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Paths below a project folder ``root``."""

    root: Path

    def artefact(self, artefact: ArtefactSpec) -> Path:
        """A downloaded file."""
        return self.root / "artefacts" / artefact.file

    @property
    def artefact_lock(self) -> Path:
        """Digests recorded at first use."""
        return self.root / "config" / "artefacts.lock.json"

    def acceptance(self, suite: str, model: str) -> Path:
        """Whether a full-precision model scores as others report."""
        return self.root / "results" / suite / model / "acceptance.json"

    def baselines(self, suite: str, suffix: str) -> Path:
        """Every full-precision image set of a suite; suffix csv or md."""
        return self.root / "results" / suite / f"baselines.{suffix}"

    def extractor(self, suite: str) -> Path:
        """Weights of the feature extractor."""
        return self.root / "results" / suite / "extractor.safetensors"

    def teacher(self, suite: str, model: str) -> Path:
        """The full-precision model."""
        return self.root / "results" / suite / model / "teacher.safetensors"

    def trajectories(self, suite: str, model: str) -> Path:
        """Teacher trajectories every student trains on."""
        return self.root / "results" / suite / model / "trajectories.safetensors"

    def reference(self, suite: str, model: str) -> Path:
        """Features of the reference images."""
        return self.root / "results" / suite / model / "reference.safetensors"

    def outliers(self, suite: str, model: str) -> Path:
        """Channel maxima of the teacher's layer inputs."""
        return self.root / "results" / suite / model / "outliers.safetensors"

    def student(self, cell: Cell) -> Path:
        """A trained student."""
        return cell.folder(self.root) / "student.safetensors"

    def history(self, cell: Cell) -> Path:
        """Loss of every update."""
        return cell.folder(self.root) / "history.csv"

    def training(self, cell: Cell) -> Path:
        """What the student was trained with, its noise error and coverage."""
        return cell.folder(self.root) / "training.json"

    def cost(self, cell: Cell) -> Path:
        """Time and memory that the student took; unlike its other files, different in each run."""
        return cell.folder(self.root) / "cost.json"

    def shard(self, cell: Cell, shard: int) -> Path:
        """One shard of a cell's images."""
        return cell.evaluation(self.root) / "samples" / f"shard{shard}.npz"

    def features(self, cell: Cell) -> Path:
        """Features of a cell's images."""
        return cell.evaluation(self.root) / "features.safetensors"

    def metrics(self, cell: Cell) -> Path:
        """Metrics of a cell's images."""
        return cell.evaluation(self.root) / "metrics.json"

    def replicates(self, cell: Cell) -> Path:
        """Bootstrap replicates of a cell's metrics."""
        return cell.evaluation(self.root) / "replicates.safetensors"

    def preview(self, cell: Cell) -> Path:
        """The first images of a cell side by side, which stay when its shards are deleted."""
        return cell.evaluation(self.root) / "preview.png"

    def page(self, suite: str) -> Path:
        """Tables, claims, images and protocol of a suite in one page."""
        return self.root / "results" / suite / "index.html"

    def claims(self, suite: str, suffix: str) -> Path:
        """The paper's sentences graded on a suite; suffix json or md."""
        return self.root / "results" / suite / f"claims.{suffix}"

    def table(self, suite: str, number: int, suffix: str) -> Path:
        """A table of the paper filled by a suite; suffix csv, md or tex."""
        return self.root / "results" / suite / "tables" / f"table{number}.{suffix}"

    def report(self, suite: str, name: str, suffix: str) -> Path:
        """A table of the project's own, such as differences; suffix csv, md or tex."""
        return self.root / "results" / suite / "tables" / f"{name}.{suffix}"

    def figure(self, suite: str, name: str, suffix: str) -> Path:
        """A figure of the paper drawn from a suite; suffix pdf or png."""
        return self.root / "figures" / suite / f"{name}.{suffix}"
