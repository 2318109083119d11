"""Rules every file of the project keeps, checked on its text."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "hqdm_bench"
MOST_LINES, MANY_LINES = 400, 300
# Modules that execute what they read.
UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}
# Text in which a path of somebody's machine would break everybody else.
TEXT_PATTERNS = (
    "Snakefile",
    "Makefile",
    "*.toml",
    "*.yml",
    "*.yaml",
    "*.md",
    "*.cff",
    ".ci/run",
    "src/**/*.py",
    "tools/**/*.py",
    "tests/**/*.py",
    "benchmarks/**/*.py",
    "workflow/**/*.smk",
    "config/**/*.yaml",
    "profiles/**/*.yaml",
    "paper/**/*.yaml",
    "paper/**/*.csv",
    "notebooks/**/*.ipynb",
)
MACHINE_PATH = re.compile(r"(?<![\w.~/:>})\]-])/(?:home|root|Users|work|opt|mnt|scratch|tmp)/[\w.]")

Check = Callable[[Path, ast.Module], Iterator[str]]


def modules(folder: Path) -> list[Path]:
    """Python files below a folder."""
    return sorted(folder.rglob("*.py"))


def prints(path: Path, tree: ast.Module) -> Iterator[str]:
    """Calls of print outside the command line."""
    if "cli" in path.parts:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield f"{path.name}:{node.lineno}: print"


def unsafe_reads(path: Path, tree: ast.Module) -> Iterator[str]:
    """Imports of pickle and its kin, and loads that would run it."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in UNSAFE_MODULES:
                yield f"{path.name}:{node.lineno}: import {name}"
        if isinstance(node, ast.Call):
            call, keywords = ast.unparse(node.func), {one.arg: one.value for one in node.keywords}
            safe = keywords.get("weights_only")
            if call == "torch.load" and not (isinstance(safe, ast.Constant) and safe.value is True):
                yield f"{path.name}:{node.lineno}: torch.load without weights_only=True"
            if call == "torch.save" and path.name != "stand_in.py":  # others' formats, to rehearse
                yield f"{path.name}:{node.lineno}: torch.save writes pickle"
            pickles = keywords.get("allow_pickle")
            if pickles is not None and ast.unparse(pickles) != "False":
                yield f"{path.name}:{node.lineno}: allow_pickle={ast.unparse(pickles)}"


def undocumented_packages(path: Path, tree: ast.Module) -> Iterator[str]:
    """Packages without a docstring."""
    if path.name == "__init__.py" and not (ast.get_docstring(tree) or "").strip():
        yield f"{path}: no docstring"


def findings(folder: Path, check: Check) -> list[str]:
    """What a check finds in the modules below a folder."""
    found: list[str] = []
    for path in modules(folder):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        found += check(path.relative_to(folder), tree)
    return found


def longer_than(folder: Path, limit: int) -> dict[str, int]:
    """Modules with more lines than the limit."""
    lengths = {
        str(path.relative_to(folder)): len(path.read_text(encoding="utf-8").splitlines())
        for path in modules(folder)
    }
    return {name: lines for name, lines in lengths.items() if lines > limit}


def machine_paths(text: str) -> list[str]:
    """Lines of a text that hold an absolute path of a machine."""
    return [line.strip() for line in text.splitlines() if MACHINE_PATH.search(line)]


def test_modules_are_short() -> None:
    assert modules(SOURCE)
    assert longer_than(SOURCE, MOST_LINES) == {}
    long = longer_than(SOURCE, MANY_LINES)
    if long:
        warnings.warn(f"modules above {MANY_LINES} lines: {long}", stacklevel=1)


@pytest.mark.parametrize("check", [prints, unsafe_reads, undocumented_packages])
def test_source_keeps_the_rule(check: Check) -> None:
    assert findings(SOURCE, check) == []


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in modules(SOURCE)}
    assert [
        str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()
    ] == []


def test_no_file_names_a_machine() -> None:
    paths = {path for pattern in TEXT_PATTERNS for path in ROOT.glob(pattern)} - {Path(__file__)}
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted(paths)
        if path.is_file() and (lines := machine_paths(path.read_text(encoding="utf-8")))
    }
    assert len(paths) > 20
    assert found == {}


def test_the_lock_records_no_addresses() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert (
        re.findall(r"^.*(?:://|--index-url|--extra-index-url|--find-links| @ ).*$", lock, re.M)
        == []
    )


@pytest.mark.parametrize(
    ("check", "code", "found"),
    [
        (prints, "print('x')", ["print"]),
        (prints, "text = 'print(x)'", []),
        (unsafe_reads, "import pickle", ["import pickle"]),
        (unsafe_reads, "from joblib.memory import Memory", ["import joblib.memory"]),
        (unsafe_reads, "torch.load(f)", ["torch.load without weights_only=True"]),
        (
            unsafe_reads,
            "torch.load(f, weights_only=False)",
            ["torch.load without weights_only=True"],
        ),
        (unsafe_reads, "torch.load(f, weights_only=True)", []),
        (unsafe_reads, "np.load(f, allow_pickle=True)", ["allow_pickle=True"]),
        (unsafe_reads, "np.load(f, allow_pickle=False)", []),
    ],
)
def test_the_checks_find_faults(tmp_path: Path, check: Check, code: str, found: list[str]) -> None:
    (tmp_path / "module.py").write_text(code, encoding="utf-8")
    assert findings(tmp_path, check) == [f"module.py:1: {one}" for one in found]


def test_the_command_line_may_print(tmp_path: Path) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "main.py").write_text("print('x')", encoding="utf-8")
    assert findings(tmp_path, prints) == []


def test_a_long_module_and_a_bare_package_are_found(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("x = 1\n" * 401, encoding="utf-8")
    assert longer_than(tmp_path, MOST_LINES) == {"__init__.py": 401}
    assert len(findings(tmp_path, undocumented_packages)) == 1


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("open('/home/someone/data.bin')", True),
        ("see /mnt/disk/notes", True),
        ("#!/usr/bin/env bash", False),
        ("https://example.org/home/page", False),
        ("results/opt/x, ./tmp/y, {root}/tmp/z, make PYTHON=/path/to/python3", False),
    ],
)
def test_machine_paths_are_recognised(text: str, is_path: bool) -> None:
    assert bool(machine_paths(text)) is is_path
