"""The benchmark's released form computes what the student does."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("bits", ["w4a4", "w8a8", "w2a4"])
@torch.no_grad()
def test_layer_by_layer(bits: str, make: Any, calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from released_form import ReleasedLayer, released_form

    student = make("hqdm", bits, {})
    released = released_form(student)
    seen: dict[str, torch.Tensor] = {}
    layers = student.low_bit_layers()
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, args, out, name=name: seen.update({name: args[0]}))
    student(*calls[1])
    modules = dict(released.network.named_modules())
    for name, layer in layers.items():
        made = modules[name]
        assert isinstance(made, ReleasedLayer)
        moved = (made.weight() - layer.weight(0)).abs() > 1e-6
        assert moved.float().mean() < 1e-3, name
        found, expected = made(seen[name]), layer(seen[name])
        # A code may move at a tie: factors and rotations are added in another order.
        assert (found - expected).norm() < 0.02 * expected.norm(), name
    sys.modules.pop("released_form")
