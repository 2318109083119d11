"""Methods by name; a new method is one new file in this package."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

from torch import nn

from hqdm_bench.catalogue import Bits, MethodSpec, PostTraining, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions
from hqdm_bench.methods.request import Request
from hqdm_bench.models import DDIM, LatentDiffusion

__all__ = ["Method", "available_methods", "build_student", "get_method", "register", "sampler_of"]


class Builder(Protocol):
    """Make an uncalibrated student of a module, which is not changed."""

    def __call__(self, options: Any, module: nn.Module, request: Request) -> Student: ...


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: registered name, a catalogue entry's ``implementation``.
        title: name as its authors write it.
        paper: where it is described, with a link.
        options: its options class.
        builder: makes its students.
    """

    name: str
    title: str
    paper: str
    options: type[MethodOptions]
    builder: Builder

    def build(self, options: MethodOptions, module: nn.Module, request: Request) -> Student:
        """An uncalibrated student that knows its method."""
        student = self.builder(options, module, request)
        student.method = self.name
        return student


BuilderT = TypeVar("BuilderT", bound=Builder)


def register(
    name: str, options: type[MethodOptions], *, title: str, paper: str
) -> Callable[[BuilderT], BuilderT]:
    """Decorate a builder: ``@register("name", Options, title="Name", paper="Who, where")``.

    The entry is attached to the function; `available_methods` collects the entries of every module
    of this package, so importing one module changes nothing elsewhere.

    Args:
        name: lower case, as it appears in catalogues.
        options: options class.
        title: name as its authors write it.
        paper: authors, venue and link.
    """

    def mark(build: BuilderT) -> BuilderT:
        build.__dict__["registered_method"] = Method(name, title, paper, options, build)
        return build

    return mark


@cache
def available_methods() -> dict[str, Method]:
    """Every method of this package by name, sorted.

    Raises:
        BenchError: two modules registered the same name.
    """
    package = importlib.import_module(__package__)
    found: dict[str, Method] = {}
    for module in pkgutil.iter_modules(package.__path__, prefix=f"{package.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            entry = getattr(value, "registered_method", None)
            if not isinstance(entry, Method) or found.get(entry.name) is entry:
                continue
            if entry.name in found:
                raise BenchError(f"two methods are registered as '{entry.name}'; rename one")
            found[entry.name] = entry
    return dict(sorted(found.items()))


def get_method(name: str) -> Method:
    """Look a method up.

    Raises:
        BenchError: no such method; the message lists those that exist.
    """
    methods = available_methods()
    if name not in methods:
        raise BenchError(f"unknown method '{name}'; available: {', '.join(methods)}")
    return methods[name]


def build_student(
    method: MethodSpec, teacher: LatentDiffusion, bits: Bits, recipe: Recipe, seed: int
) -> Student:
    """Make a student of a model's UNet, for a cell of the grid.

    Args:
        method: catalogue entry; ``implementation`` names the method, ``options`` are checked here.
        teacher: the full-precision model; it is not changed.
        bits: of the low-bit layers.
        recipe: gives the step table and the rank; a post-training method's table is that of the
            sampler it is calibrated for.
        seed: training seed, of the initial low-rank factors.

    Returns:
        The student, weights quantized, activations not calibrated.

    Raises:
        BenchError: unknown method, wrong option, or bits that do not fit the method.
    """
    entry = get_method(method.implementation)
    options = entry.options.read(method.options, method.name)
    steps, eta = recipe.steps, recipe.eta
    if options.post_training:
        sampler = sampler_of(recipe, method.name)
        steps, eta = sampler.steps, sampler.eta
    timesteps = DDIM.from_schedule(teacher.schedule, steps, eta).timesteps
    if options.table_timesteps is not None and steps > options.table_timesteps:
        # Every n-th from the noisiest on; steps between take the nearest row.
        timesteps = timesteps.flip(0)[:: -(-steps // options.table_timesteps)].flip(0)
    request = Request(bits, tuple(timesteps.tolist()), recipe.lora_rank, seed, "timesteps")
    return entry.build(options, teacher.unet, request)


def sampler_of(recipe: Recipe, method: str) -> PostTraining:
    """The sampler a post-training method is calibrated for.

    Args:
        recipe: of the cell.
        method: name for the message.

    Raises:
        BenchError: the recipe has none.
    """
    if recipe.post_training is None:
        raise BenchError(
            f"method '{method}' is calibrated for a sampler, and recipe '{recipe.name}' names "
            "none; give it 'post_training' in config/recipes.yaml, and 'work' to the method's "
            "entry in config/methods.yaml"
        )
    return recipe.post_training
