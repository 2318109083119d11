"""The import order of the packages, and what an import may not do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGE = "hqdm_bench"
ORDER = (
    "common",
    "catalogue",
    "artefacts",
    "models",
    "hadamard",
    "quantization",
    "methods",
    "distill",
    "integer",
    "sample",
    "evaluate",
    "report",
    "cli",
)
# Packages whose verbs must start fast; the two modules are the ones that exist to handle tensors.
LIGHT = ("common", "catalogue", "report", "cli")
MAY_USE_TORCH = {f"{PACKAGE}.common.tensors", f"{PACKAGE}.common.seeds"}
HEAVY = {"torch", "torchvision", "torch_fidelity", "diffusers", "cleanfid"}


@dataclass(frozen=True)
class Import:
    """One imported module, as written, and whether the import runs when its file is imported."""

    target: str
    line: int
    at_import: bool


def module_name(path: Path, source: Path) -> str:
    """Dotted name of a file below `source`; a package is its `__init__.py`."""
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def import_time_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes that are evaluated when the module is imported.

    Bodies of functions run later and blocks under TYPE_CHECKING never; default values and
    decorators do run.
    """
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += [*node.decorator_list, *node.args.defaults]
            pending += [default for default in node.args.kw_defaults if default is not None]
        elif isinstance(node, ast.Lambda):
            pending += node.args.defaults
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        else:
            pending += ast.iter_child_nodes(node)


def imported(node: ast.AST, module: str, is_package: bool) -> list[str]:
    """Absolute names an import statement asks for; `from a import b` gives both a and a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        kept = len(parts) - node.level + (1 if is_package else 0)
        base = ".".join([*parts[:kept], *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imports_of(path: Path, source: Path) -> list[Import]:
    """Every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    early = {id(node) for node in import_time_nodes(tree)}
    name, is_package = module_name(path, source), path.name == "__init__.py"
    return [
        Import(target, node.lineno, id(node) in early)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in imported(node, name, is_package)
    ]


def files(source: Path) -> list[Path]:
    """The modules of the project below a source folder."""
    return sorted((source / PACKAGE).rglob("*.py"))


def package_of(name: str) -> str | None:
    """Package of a dotted name: `hqdm_bench.models.unet` -> `models`; None for anything else."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == PACKAGE and parts[1] in ORDER else None


def wrong_arrows(source: Path) -> list[str]:
    """Imports from a package to the right, and modules that belong to no package of the order."""
    problems = set()
    for path in files(source):
        name = module_name(path, source)
        own = package_of(name)
        if own is None and name != PACKAGE:
            problems.add(f"{path.relative_to(source)}: not in a package of the order")
            continue
        for item in imports_of(path, source):
            other = package_of(item.target)
            if other is None:
                continue
            if own is None:  # the package's own face, which must stay light
                if item.at_import:
                    place = f"{path.relative_to(source)}:{item.line}"
                    problems.add(f"{place}: the root imports {other}")
            elif ORDER.index(other) > ORDER.index(own):
                problems.add(f"{path.relative_to(source)}:{item.line}: {own} imports {other}")
    return sorted(problems)


def import_graph(source: Path) -> dict[str, set[str]]:
    """Module -> modules that its import runs: own modules with their parents, or outside names."""
    paths = {module_name(path, source): path for path in files(source)}
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        parents = {".".join(name.split(".")[:end]) for end in range(1, name.count(".") + 1)}
        graph[name] = parents & paths.keys()
        for item in imports_of(path, source):
            if not item.at_import:
                continue
            if item.target in paths or not item.target.startswith(PACKAGE):
                graph[name].add(item.target)
    return graph


def heavy_chains(source: Path) -> list[str]:
    """Light modules whose import reaches torch, with the chain that leads there."""
    graph = import_graph(source)
    problems = []
    for start in sorted(graph):
        if package_of(start) not in LIGHT or start in MAY_USE_TORCH:
            continue
        chains, seen = [[start]], {start}
        while chains:
            chain = chains.pop(0)
            for target in sorted(graph.get(chain[-1], ())):
                root = target.split(".")[0]
                if root in HEAVY or target == "safetensors.torch":
                    problems.append(" -> ".join([*chain, target]))
                elif target in graph and target not in seen:
                    seen.add(target)
                    chains.append([*chain, target])
    return problems


def cuda_at_import(source: Path) -> list[str]:
    """Uses of CUDA in code that runs when a module is imported."""
    problems = []
    for path in files(source):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for node in import_time_nodes(tree):
            attribute = isinstance(node, ast.Attribute) and node.attr == "cuda"
            argument = isinstance(node, ast.Call) and any(
                isinstance(value, ast.Constant) and str(value.value).startswith("cuda")
                for value in [*node.args, *(keyword.value for keyword in node.keywords)]
            )
            if attribute or argument:
                problems.append(f"{path.relative_to(source)}:{node.lineno}: {ast.unparse(node)}")
    return sorted(set(problems))


def test_packages_import_only_to_their_left() -> None:
    assert files(SOURCE), "no modules found"
    assert wrong_arrows(SOURCE) == []


def test_light_packages_do_not_import_torch() -> None:
    assert heavy_chains(SOURCE) == []


def test_nothing_touches_cuda_at_import() -> None:
    assert cuda_at_import(SOURCE) == []


@pytest.mark.parametrize("package", LIGHT)
def test_importing_a_light_package_leaves_torch_out(package: str) -> None:
    code = f"import sys, {PACKAGE}.{package}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=SOURCE).returncode == 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree with one fault of each kind, between faultless modules."""
    contents = {
        "__init__.py": "",
        "common/__init__.py": "",
        "common/files.py": "def late():\n    import torch\n",
        "common/tensors.py": "import torch\n",
        "catalogue/__init__.py": "from hqdm_bench.common.tensors import x\n",
        "models/__init__.py": "from .unet import UNet\n",
        "models/unet.py": "def f():\n    from ..methods import base\n",
        "methods/__init__.py": "from hqdm_bench import models, distill\n",
        "methods/base.py": "import torch\nN = torch.cuda.device_count()\n",
        "distill/__init__.py": "import torch\n\ndef f(device=torch.device('cuda:0')):\n    pass\n",
        "sample/__init__.py": "def f(x):\n    return x.cuda()\n",
        "report/__init__.py": "import typing\nif typing.TYPE_CHECKING:\n    import torch\n",
        "helpers.py": "",
    }
    for name, text in contents.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_checker_finds_wrong_arrows(tree: Path) -> None:
    assert wrong_arrows(tree) == [
        "hqdm_bench/helpers.py: not in a package of the order",
        "hqdm_bench/methods/__init__.py:1: methods imports distill",
        "hqdm_bench/models/unet.py:2: models imports methods",
    ]


def test_the_checker_finds_torch_behind_another_module(tree: Path) -> None:
    chain = "hqdm_bench.catalogue -> hqdm_bench.common.tensors -> torch"
    assert heavy_chains(tree) == [chain]


def test_the_checker_finds_cuda(tree: Path) -> None:
    assert cuda_at_import(tree) == [
        "hqdm_bench/distill/__init__.py:3: torch.device('cuda:0')",
        "hqdm_bench/methods/base.py:2: torch.cuda",
    ]
