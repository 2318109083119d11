"""Execute the notebooks on a suite's results and write them as Markdown with PNGs.

    python tools/render_notebooks.py mini
    python tools/render_notebooks.py smoke --output some/folder

The notebooks in `notebooks/` stay as they are: stripped of output. Their cell of parameters is set
to the suite, and what they print and draw goes to `figures/published/notebooks`.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
MOST_BYTES = 1_000_000  # of one render with its pictures
SECONDS = 600  # a cell


def main() -> int:
    """Render every notebook; 2 if one fails or comes out too large to be committed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", help="suite whose results are read, such as mini")
    parser.add_argument("--root", type=Path, default=ROOT, help="project folder with the results")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "figures" / "published" / "notebooks", help="folder"
    )
    arguments = parser.parse_args()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        try:
            notebook = executed(path, arguments.root, arguments.suite)
        except nbclient.exceptions.CellExecutionError as error:
            print(f"{path.name} failed on suite '{arguments.suite}':\n{error}", file=sys.stderr)
            return 2
        written = render(notebook, path.stem, arguments.output)
        print(f"{path.name}: {written / 1000:.0f} kB")
        if written > MOST_BYTES:
            print(f"above {MOST_BYTES / 1000:.0f} kB; draw fewer pictures", file=sys.stderr)
            return 2
    return 0


def executed(path: Path, root: Path, suite: str) -> Any:
    """A notebook with its outputs, run on the results of a suite below a project folder.

    Args:
        path: the notebook; the cell tagged `parameters` sets ROOT and SUITE.
        root: project folder with `config` and `results`.
        suite: name of the suite.

    Raises:
        CellExecutionError: of nbclient, if a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = [
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ]
    parameters.source = f"ROOT = {json.dumps(str(root.resolve()))}\nSUITE = {json.dumps(suite)}"
    # The kernel inherits the environment: one thread, and nothing left beside the notebook.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    client = nbclient.NotebookClient(
        notebook, timeout=SECONDS, startup_timeout=SECONDS, kernel_name="python3"
    )
    return client.execute(cwd=str(path.parent))


def render(notebook: Any, name: str, folder: Path) -> int:
    """Write `{name}.md` and its pictures under `{name}_files`; returns their bytes."""
    pictures = f"{name}_files"
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            root, suite = cell.source.splitlines()  # whose folder is nobody's business
            cell.source = f'ROOT = ".."\n{suite}' if root.startswith("ROOT") else cell.source
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"output_files_dir": pictures, "unique_key": name}
    )
    shutil.rmtree(folder / pictures, ignore_errors=True)
    (folder / pictures).mkdir(parents=True)
    lines = [line.rstrip() for line in text.strip().splitlines()]
    files = {f"{name}.md": ("\n".join(lines) + "\n").encode(), **resources["outputs"]}
    for place, content in files.items():
        (folder / place).write_bytes(content)
    return sum(map(len, files.values()))


if __name__ == "__main__":
    sys.exit(main())
