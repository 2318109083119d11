"""What the benchmarks of integer execution share: full-size UNets with random weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hqdm_bench.catalogue import Bits, load_catalogue
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.integer import IntegerLayer, IntegerStudent
from hqdm_bench.methods import Request, Student, get_method
from hqdm_bench.models import UNet

__all__ = ["by_shape", "calibrated_student", "call_of", "full_size", "layer_inputs"]

ROOT = Path(__file__).resolve().parents[1]


def full_size(name: str) -> tuple[UNet, tuple[int, int, int], int | None]:
    """A UNet with random weights everywhere, its latent shape and the width of its context."""
    spec = load_catalogue(ROOT).model(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet(**spec.unet).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for parameter in unet.parameters():
        if parameter.dim() > 1 and not parameter.any():
            bound = parameter[0].numel() ** -0.5
            parameter.uniform_(-bound, bound, generator=random)
    size = spec.unet["image_size"]
    return unet, (spec.unet["in_channels"], size, size), spec.unet.get("context_dim")


def call_of(shape: tuple[int, int, int], context: int | None, batch: int) -> tuple[Any, ...]:
    """Arguments of a UNet."""
    random = torch.Generator().manual_seed(1)
    x, t = torch.randn(batch, *shape, generator=random), torch.full((batch,), 1)
    if context is None:
        return x, t
    return x, t, torch.randn(batch, 1, context, generator=random)


def calibrated_student(unet: UNet, calls: Sequence[tuple[Any, ...]]) -> Student:
    """W4A4 HQ-DM with one row of step tables."""
    method = get_method("hqdm")
    request = Request(Bits(4, 4), (1,), 32, 0, "timesteps")
    student = method.build(method.options.read({}, "hqdm"), unet, request)
    calibrate_on_calls(student, list(calls))
    return student


def layer_inputs(student: IntegerStudent, call: tuple[Any, ...]) -> dict[str, Tensor]:
    """What every integer layer is given."""
    found: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _, args, out, name=name: found.update({name: args[0]}))
        for name, layer in student.integer_layers().items()
    ]
    student(*call)
    for hook in hooks:
        hook.remove()
    return found


Measure = Callable[[str, IntegerLayer, Tensor], dict[str, Any]]


def by_shape(
    student: IntegerStudent, call: tuple[Any, ...], measure: Measure
) -> list[dict[str, Any]]:
    """What is measured of one layer of every distinct shape, with how often the shape occurs."""
    inputs = layer_inputs(student, call)
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, layer in student.integer_layers().items():
        x, spec = inputs[name], layer.spec
        key = (spec.shape, spec.geometry, tuple(x.shape), spec.rotation is None)
        if key in found:
            found[key]["count"] += 1
            continue
        found[key] = {
            "layer": name,
            "count": 1,
            "kind": spec.geometry.kind,
            "weight": list(spec.shape),
            "input": list(x.shape),
            **measure(name, layer, x),
        }
    return list(found.values())
