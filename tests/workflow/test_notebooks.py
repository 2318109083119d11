"""The notebooks: kept without outputs, run on real results, and they only read."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ("convergence", "outliers", "results")


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "render_notebooks.py"
    spec = importlib.util.spec_from_file_location("render_notebooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebooks_are_there():
    assert tuple(path.stem for path in NOTEBOOKS) == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_stripped_and_start_with_their_parameters(path):
    cells = code(path)
    assert [cell["outputs"] for cell in cells] == [[]] * len(cells)
    assert [cell["execution_count"] for cell in cells] == [None] * len(cells)
    assert cells[0]["metadata"] == {"tags": ["parameters"]}
    names = re.findall(r'^(\w+) = "', "".join(cells[0]["source"]), re.MULTILINE)
    assert names == ["ROOT", "SUITE"]
    assert all(cell["metadata"] == {} for cell in cells[1:])


def files(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run_on_the_smoke_suite_and_write_nothing(smoke, tool, path, tmp_path):
    before, sources = files(smoke.folder), files(ROOT / "notebooks")
    notebook = tool.executed(path, smoke.folder, "smoke")
    assert files(smoke.folder) == before
    assert files(ROOT / "notebooks") == sources
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("text/markdown" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    written = tool.render(notebook, path.stem, tmp_path)
    assert written < tool.MOST_BYTES
    text = (tmp_path / f"{path.stem}.md").read_text()
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert pictures
    assert all((tmp_path / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert str(smoke.folder) not in text


@pytest.mark.parametrize("name", ["convergence", "results"])
def test_they_fall_back_on_the_published_run(tool, name, tmp_path):
    """A checkout without results of its own; the record of channel maxima is not published."""
    for folder in ("config", "paper"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    published = tmp_path / "results" / "published"
    shutil.copytree(ROOT / "results" / "published" / "mini", published / "mini")
    before = files(tmp_path)
    tool.executed(ROOT / "notebooks" / f"{name}.ipynb", tmp_path, "mini")
    assert files(tmp_path) == before
