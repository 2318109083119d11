"""``claims.json`` and ``claims.md`` of a suite."""

from pathlib import Path

from hqdm_bench.catalogue import Catalogue, Layout, Suite
from hqdm_bench.common.files import write_json, write_text
from hqdm_bench.report.claims.document import document
from hqdm_bench.report.claims.grading import grade_material
from hqdm_bench.report.claims.material import Material
from hqdm_bench.report.claims.page import page
from hqdm_bench.report.claims.printed import PaperTables
from hqdm_bench.report.claims.specs import read_claims

__all__ = ["write_claims"]


def write_claims(root: Path, suite: Suite, catalogue: Catalogue) -> tuple[Path, Path]:
    """Grade the paper's sentences on a suite and write ``results/{suite}/claims`` as json and md.

    Args:
        root: project folder with ``paper`` and ``results``.
        suite: whose results; every one of them is read.
        catalogue: for titles and data sets.

    Returns:
        The two files.

    Raises:
        BenchError: the paper's data or a result is missing or damaged.
    """
    material, layout = Material.load(root, suite, catalogue), Layout(root)
    judged = grade_material(read_claims(root), PaperTables.read(root), material)
    paths = layout.claims(suite.name, "json"), layout.claims(suite.name, "md")
    numbers = all(material.papers_own(entry.model) for entry in suite.models)
    write_json(paths[0], document(root, suite.name, judged))
    write_text(paths[1], page(root, suite.name, judged, numbers))
    return paths
