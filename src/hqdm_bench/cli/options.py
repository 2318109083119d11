"""Options several verbs share, and what they resolve to."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hqdm_bench.catalogue import (
    Bits,
    Catalogue,
    Cell,
    Layout,
    ModelSpec,
    Protocol,
    Recipe,
    Suite,
    load_catalogue,
)
from hqdm_bench.common.errors import BenchError

if TYPE_CHECKING:
    import torch

__all__ = ["Context", "add_cell", "add_device", "add_model", "add_suite", "device_of"]


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Options ``--suite`` and ``--root``."""
    parser.add_argument("--suite", required=True, help="suite of config/suites, such as mini")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="project folder (default: the current one)"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Options of a model in a suite."""
    add_suite(parser)
    parser.add_argument("--model", required=True, help="model of the suite, such as mini-imagenet")


def add_cell(parser: argparse.ArgumentParser) -> None:
    """Options of one cell of the grid."""
    add_model(parser)
    parser.add_argument(
        "--method", required=True, help="method of config/methods.yaml, such as hqdm"
    )
    parser.add_argument("--bits", required=True, help="weight and activation bits, such as w4a4")
    parser.add_argument("--seed", type=int, default=0, help="training seed (default: 0)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Option ``--device``."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes the GPU if there is one (default)",
    )


@dataclass(frozen=True)
class Context:
    """What a verb's options mean: catalogue entries and file names."""

    catalogue: Catalogue
    layout: Layout
    suite: Suite

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Context:
        """Resolve ``--root`` and ``--suite``."""
        catalogue = load_catalogue(arguments.root)
        return cls(catalogue, Layout(arguments.root), catalogue.suite(arguments.suite))

    def model(self, arguments: argparse.Namespace) -> ModelSpec:
        """The model, checked to be in the suite."""
        return self.catalogue.model(self.suite.model(arguments.model).model)

    def recipe(self, model: str) -> Recipe:
        """The suite's recipe for a model."""
        return self.catalogue.recipe(self.suite.model(model).recipe)

    def protocol(self, model: str) -> Protocol:
        """The suite's protocol for a model."""
        return self.catalogue.protocol(self.suite.model(model).protocol)

    def cell(self, arguments: argparse.Namespace) -> Cell:
        """The cell; unknown models, methods and bit-widths are told apart from absent cells."""
        self.catalogue.model(arguments.model)
        self.catalogue.method(arguments.method)
        return self.suite.cell(
            arguments.model, arguments.method, Bits.parse(arguments.bits), arguments.seed
        )


def device_of(arguments: argparse.Namespace) -> torch.device:
    """The torch device asked for.

    Raises:
        BenchError: cuda was asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if arguments.device == "cuda" and not available:
        raise BenchError(
            "--device cuda: no CUDA device is visible to torch; check nvidia-smi, or use "
            "--device cpu"
        )
    return torch.device("cuda" if available and arguments.device != "cpu" else "cpu")
