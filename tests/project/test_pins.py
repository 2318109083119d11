"""One set of versions: the lock, environment.yml, and the ranges pyproject.toml asks for."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked() -> dict[str, list[Requirement]]:
    """Name -> pins of the lock; several when a marker chooses between versions."""
    pins: dict[str, list[Requirement]] = {}
    for line in tool("environment_from_lock").pins(LOCK):
        requirement = Requirement(line)
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def version(requirement: Requirement) -> str:
    """The version a pin names."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def wanted() -> list[str]:
    """Requirements the project declares: to run, to develop and to be built."""
    extras = PROJECT["project"]["optional-dependencies"]
    build = (ROOT / "tools" / "requirements-build.in").read_text(encoding="utf-8").splitlines()
    constraints = (ROOT / "tools" / "constraints.in").read_text(encoding="utf-8").splitlines()
    return [
        *PROJECT["project"]["dependencies"],
        *(line for extra in extras.values() for line in extra),
        *PROJECT["build-system"]["requires"],
        *(line for line in [*build, *constraints] if line and not line.startswith("#")),
    ]


def unmet(requirements: list[str], pins: dict[str, list[Requirement]]) -> list[str]:
    """Requirements that the pins do not satisfy, or do not contain."""
    problems = []
    for line in requirements:
        requirement = Requirement(line)
        found = pins.get(canonicalize_name(requirement.name), [])
        versions = [version(pin) for pin in found]
        if not versions or not all(requirement.specifier.contains(one) for one in versions):
            problems.append(f"{line}: locked {versions}")
    return problems


def test_every_pin_of_the_lock_is_read() -> None:
    assert len(re.findall(r"^[A-Za-z0-9]", LOCK, re.MULTILINE)) == sum(map(len, locked().values()))
    assert len(locked()) > 100


def test_every_pin_has_hashes() -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_environment_has_the_pins_of_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert {str(Requirement(line)) for line in pip} == {
        str(pin) for pins in locked().values() for pin in pins
    }
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_environment_is_what_make_lock_writes() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert text == tool("environment_from_lock").environment(LOCK)


def test_lock_satisfies_the_declared_ranges() -> None:
    assert unmet(wanted(), locked()) == []


def test_a_range_that_the_lock_misses_is_found() -> None:
    pins = {"torch": [Requirement("torch==2.10.0")]}
    assert unmet(["torch>=2.11", "absent"], pins) == [
        "torch>=2.11: locked ['2.10.0']",
        "absent: locked []",
    ]


def test_torch_and_torchvision_are_a_pair() -> None:
    """The locked torch is one the locked torchvision declares, and both come from one build."""
    (torch_pin,), (vision_pin,) = locked()["torch"], locked()["torchvision"]
    installed = {name: Version(metadata.version(name)) for name in ("torch", "torchvision")}
    assert installed["torch"].public == version(torch_pin)
    assert installed["torchvision"].public == version(vision_pin)
    assert installed["torch"].local == installed["torchvision"].local
    declared = [Requirement(line) for line in metadata.requires("torchvision") or []]
    (on_torch,) = [requirement for requirement in declared if requirement.name == "torch"]
    assert on_torch.specifier.contains(version(torch_pin))


def test_torchvision_runs_its_compiled_operators() -> None:
    """A mismatched pair imports, but has no compiled operators."""
    torch = pytest.importorskip("torch")
    nms = pytest.importorskip("torchvision.ops").nms
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]


@pytest.mark.parametrize("package", ["torch", "torchvision", "numpy", "snakemake"])
def test_one_version_on_every_platform(package: str) -> None:
    assert len(locked()[package]) == 1
