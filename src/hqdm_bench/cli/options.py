"""Options several verbs share, and what they resolve to."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hqdm_bench.catalogue import (
    Bits,
    Catalogue,
    Cell,
    Layout,
    MethodSpec,
    ModelSpec,
    Protocol,
    Recipe,
    Suite,
    load_catalogue,
)
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.lease import gpu_names, lease, lock_folder

if TYPE_CHECKING:
    import torch

__all__ = [
    "Context",
    "add_cell",
    "add_device",
    "add_model",
    "add_protocol",
    "add_suite",
    "add_teachers",
    "device_of",
]

# Set by the workflow where a storage provider brings the files of a job to another folder.
ROOT_VARIABLE = "HQDM_BENCH_ROOT"


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Options ``--suite`` and ``--root``."""
    parser.add_argument("--suite", required=True, help="suite of config/suites, such as mini")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get(ROOT_VARIABLE, ".")),
        help=f"project folder (default: ${ROOT_VARIABLE} or the current one)",
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


def add_protocol(parser: argparse.ArgumentParser) -> None:
    """Option ``--protocol`` of verbs about a cell's images."""
    parser.add_argument(
        "--protocol",
        help="protocol of config/protocols.yaml (default: the suite's for the model; baselines of "
        "the suite have others)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Option ``--device``."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes the GPU if there is one (default)",
    )


def add_teachers(parser: argparse.ArgumentParser) -> None:
    """Option ``--teachers`` of verbs that provide embedded weights."""
    parser.add_argument(
        "--teachers",
        choices=("shipped", "trained"),
        default="shipped",
        help="take the weights in the package (default) or train them from scratch",
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

    def method(self, cell: Cell) -> MethodSpec:
        """The cell's method as it is run on the model's data set."""
        return self.catalogue.method_on(cell.method, cell.model)

    def protocol(self, model: str) -> Protocol:
        """The suite's protocol for a model."""
        return self.catalogue.protocol(self.suite.model(model).protocol)

    def cell(self, arguments: argparse.Namespace, protocol: str | None = None) -> Cell:
        """The cell; unknown models, methods, bit-widths and protocols are told from absent cells.

        Args:
            arguments: of `add_cell`.
            protocol: the suite's for the model if None.
        """
        self.catalogue.model(arguments.model)
        self.catalogue.method(arguments.method)
        if protocol is not None:
            self.catalogue.protocol(protocol)
        bits = Bits.parse(arguments.bits)
        return self.suite.cell(arguments.model, arguments.method, bits, arguments.seed, protocol)


def device_of(arguments: argparse.Namespace) -> torch.device:
    """The torch device asked for; of several GPUs one that no other job of this host has.

    A GPU is leased until the verb ends (``arguments.held``, which ``main`` closes), so a verb calls
    this once. On a GPU, float32 is made to mean float32, not TF32, and cuDNN to take the same
    deterministic algorithms on every run.

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
    if arguments.device == "cpu" or not available:
        return torch.device("cpu")
    visible = range(torch.cuda.device_count())
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in visible]
    index = arguments.held.enter_context(lease(gpu_names(uuids), lock_folder()))
    torch.cuda.set_device(index)  # what says "cuda" without a number means this one, too
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda", index)
