"""Writing ``results/{suite}/index.html``: everything a browser needs in one file."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hqdm_bench import __version__
from hqdm_bench.catalogue import Catalogue, Suite
from hqdm_bench.catalogue.layout import Layout
from hqdm_bench.common.files import write_text
from hqdm_bench.report.cost import job_costs
from hqdm_bench.report.page.channels import read_channels
from hqdm_bench.report.page.claims import read_claims
from hqdm_bench.report.page.colours import looks_of, palette
from hqdm_bench.report.page.gallery import preview_cells, read_gallery
from hqdm_bench.report.page.losses import loss_panels
from hqdm_bench.report.page.provenance import read_provenance
from hqdm_bench.report.page.sections import methods_sections, paper_sections, study_sections
from hqdm_bench.report.page.words import scope
from hqdm_bench.report.quantities import DIAGNOSTICS, METRICS
from hqdm_bench.report.results import ResultSet
from hqdm_bench.report.table_text import number

__all__ = ["page_inputs", "write_suite_page"]

FOLDER = Path(__file__).parent


def page_inputs(root: Path, suite: Suite) -> tuple[Path, ...]:
    """Every file a page is made of, claims left out, for the workflow."""
    layout = Layout(root)
    found: list[Path] = []
    for entry in suite.models:
        for cell in entry.scored:
            found += [layout.metrics(cell), layout.replicates(cell)]
        for cell in entry.students:
            found += [layout.training(cell), layout.cost(cell), layout.history(cell)]
        if entry.outliers:
            found.append(layout.outliers(suite.name, entry.model))
        if any(baseline.expect for baseline in entry.baselines) and suite.tables:
            found.append(layout.acceptance(suite.name, entry.model))
    found += map(layout.preview, preview_cells(suite))
    return tuple(found)


def write_suite_page(root: Path, suite: Suite, catalogue: Catalogue) -> Path:
    """Write the page; its bytes depend on the results and on the versions named in it alone.

    Args:
        root: project folder with ``paper/data`` and ``results``.
        suite: whose results.
        catalogue: for titles.

    Returns:
        The page.

    Raises:
        BenchError: a result is missing or damaged, or results cannot stand in one table.
    """
    path = Layout(root).page(suite.name)
    write_text(path, _render(_content(root, suite, catalogue)))
    return path


def _content(root: Path, suite: Suite, catalogue: Catalogue) -> dict[str, Any]:
    results = ResultSet.load(root, suite)
    looks = looks_of(cell.method for cell in suite.cells if cell.method != "fp")
    tables, headline = paper_sections(root, results, catalogue)
    gallery = read_gallery(root, suite, catalogue)
    channels = read_channels(root, suite)
    return {
        "suite": suite.name,
        "version": __version__,
        "palette": palette(),
        "looks": looks,
        "titles": {method: catalogue.method(method).title for method in looks},
        "scope": scope(suite, catalogue, results),
        "claims": read_claims(Layout(root).claims(suite.name, "json")),
        "headline": headline,
        "tables": (
            *tables,
            *methods_sections(root, suite, catalogue),
            *study_sections(root, suite, catalogue),
        ),
        "gallery": gallery,
        "losses": loss_panels(root, suite, catalogue, looks),
        "channels": channels,
        "provenance": read_provenance(root, suite, results),
        "costs": job_costs(root, suite.name),
        "data": {
            "gallery": [
                {
                    "id": place,
                    "model": sprite.model,
                    "method": sprite.method,
                    "title": sprite.title,
                    "bits": sprite.label,
                    "facts": _facts(results, sprite.model, sprite.method, sprite.bits),
                }
                for place, sprite in enumerate(gallery.sprites)
            ],
            "channels": [record.asdict() for record in channels],
        },
    }


def _facts(results: ResultSet, model: str, method: str, bits: str) -> list[list[str]]:
    """Quantities of the first seed of a cell, as (name, text)."""
    found = next(
        result for result in results.select(model, method) if str(result.cell.bits) == bits
    )
    extractor = results.suite.extractor
    lines = []
    for kind in (METRICS | DIAGNOSTICS).values():
        value = found.value(kind.key)
        if value is not None:
            text = number(kind.scale * value, kind.digits(extractor))
            lines.append([kind.head(extractor), text])
    return lines


def _render(content: dict[str, Any]) -> str:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    sources = {
        name: Markup((FOLDER / f"page.{name}").read_text(encoding="utf-8"))
        for name in ("css", "js")
    }
    return environment.get_template("template.html").render(content | sources)
