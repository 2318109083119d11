"""Methods by name; a new method is one new file in this package."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions
from hqdm_bench.models import LatentDiffusion

__all__ = ["Method", "available_methods", "build_student", "get_method", "register"]


class Builder(Protocol):
    """Make an uncalibrated student of a teacher."""

    def __call__(
        self, options: Any, teacher: LatentDiffusion, bits: Bits, recipe: Recipe, seed: int
    ) -> Student: ...


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: registered name, a catalogue entry's ``implementation``.
        options: its options class.
        build: its builder.
    """

    name: str
    options: type[MethodOptions]
    build: Builder


BuilderT = TypeVar("BuilderT", bound=Builder)


def register(name: str, options: type[MethodOptions]) -> Callable[[BuilderT], BuilderT]:
    """Decorate a builder: ``@register("name", Options)``.

    The entry is attached to the function; `available_methods` collects the entries of every module
    of this package, so importing one module changes nothing elsewhere.
    """

    def mark(build: BuilderT) -> BuilderT:
        build.__dict__["registered_method"] = Method(name, options, build)
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
    """Make a student: weights quantized, low-rank updates attached, activations not calibrated.

    Args:
        method: catalogue entry; ``implementation`` names the method, ``options`` are checked here.
        teacher: the full-precision model; it is not changed.
        bits: of the low-bit layers.
        recipe: gives the step table and the rank.
        seed: training seed, of the initial low-rank factors.

    Raises:
        BenchError: unknown method, wrong option, or bits that do not fit the method.
    """
    entry = get_method(method.implementation)
    options = entry.options.read(method.options, method.name)
    return entry.build(options, teacher, bits, recipe, seed)
