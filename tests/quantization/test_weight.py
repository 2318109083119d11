import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.quantization import LoRAWeight, StaticWeight, minmax_grid


@pytest.fixture
def weight(generator):
    return torch.randn(6, 5, 3, 3, generator=generator)


def make(weight, bits=4, **options):
    return LoRAWeight.from_float(weight, bits, 4, stream("lora", 0), **options)


def storages(module):
    return module.scale.data_ptr() == module.base_scale.data_ptr()


def assert_twice(module):
    """Two parameters, one storage."""
    assert module.scale is not module.base_scale
    assert storages(module)
    names = [name for name, _ in module.named_parameters()]
    assert names == ["scale", "base_scale", "lora_A", "lora_B"]


@pytest.mark.parametrize("bits", range(2, 9))
def test_starts_at_the_plainly_quantized_weight(weight, bits):
    """B is zero, so the base is what comes out, for both bases."""
    grid = minmax_grid(weight, bits, per_channel=True).for_weight(weight)
    codes = ((weight / grid.scale).round() + grid.zero).clamp(0, 2**bits - 1)
    for module in (make(weight, bits), make(weight, bits, base="full_precision")):
        torch.testing.assert_close(module(), (codes - grid.zero) * grid.scale)
        assert torch.equal(module.effective_codes(), codes.to(torch.uint8))
        assert module.shape == weight.shape
        assert module.rank == 4
    static = StaticWeight.from_float(weight, bits)
    torch.testing.assert_close(static(), make(weight, bits)())
    assert torch.equal(static.effective_codes(), codes.to(torch.uint8))
    assert not list(static.parameters())


def test_shapes_and_start_of_the_low_rank_factors(weight):
    module = make(weight)
    assert module.lora_A.shape == (4, 5, 3, 3)
    assert module.lora_B.shape == (6, 4, 1, 1)
    bound = 1 / 45**0.5  # Kaiming uniform with a = sqrt(5): 1 / sqrt(fan_in)
    assert 0.9 * bound < module.lora_A.abs().max() <= bound
    assert not module.lora_B.any()
    linear = make(weight.flatten(1))
    assert linear.lora_A.shape == (4, 45)
    assert linear.lora_B.shape == (6, 4)
    again = make(weight)
    assert torch.equal(module.lora_A, again.lora_A)


def test_zero_points_and_codes_are_frozen_integers(weight):
    module = make(weight)
    assert module.codes.dtype == torch.uint8
    assert torch.equal(module.zero, module.zero.round())
    assert {"codes", "zero"} == {name for name, _ in module.named_buffers()}


def round_trip(module):
    fresh = make(torch.ones_like(module()))
    fresh.load_state_dict(module.state_dict())
    return fresh


def through_safetensors(module):
    fresh = make(torch.ones_like(module()))
    fresh.load_state_dict(load(save(module.state_dict())))
    return fresh


def by_assignment(module):
    fresh = make(torch.ones_like(module()))
    fresh.load_state_dict(copy.deepcopy(module.state_dict()), assign=True)
    return fresh


COPIES = {
    "double": lambda module: module.double(),
    "to": lambda module: module.to(torch.bfloat16).to("cpu", torch.float32),
    "deepcopy": copy.deepcopy,
    "deepcopy of a parent": lambda module: copy.deepcopy(nn.Sequential(module))[0],
    "load_state_dict": round_trip,
    "load_state_dict by assignment": by_assignment,
    "safetensors": through_safetensors,
}


@pytest.mark.parametrize("name", COPIES)
def test_the_two_step_sizes_stay_one(weight, name):
    original = make(weight)
    module = COPIES[name](original)
    assert_twice(module)
    with torch.no_grad():
        module.scale.mul_(2)
    assert torch.equal(module.scale, module.base_scale)
    if "deepcopy" in name or "load" in name or name == "safetensors":
        assert not torch.equal(original.scale.double(), module.scale.double())
        assert storages(original)


@pytest.mark.parametrize("name", COPIES)
def test_one_parameter_under_both_names_stays_one(weight, name):
    if "load" in name or name == "safetensors":
        module = make(weight, scale_updates="once")
        state = make(weight * 2).state_dict()
        module.load_state_dict(state, assign="assignment" in name)
    else:
        module = COPIES[name](make(weight, scale_updates="once"))
    assert module.scale is module.base_scale
    assert len(list(module.parameters())) == 3


def test_the_step_size_is_stored_once(weight):
    assert "base_scale" not in make(weight).state_dict()
    assert "base_scale" not in make(weight, scale_updates="once").state_dict()
    assert "base_scale" in make(weight, share_scale=False).state_dict()
    nested = nn.ModuleDict({"layer": make(weight)}).state_dict()
    assert sorted(nested) == [
        f"layer.{key}" for key in ("codes", "lora_A", "lora_B", "scale", "zero")
    ]
    state = make(weight).state_dict()
    del state["scale"]
    with pytest.raises(RuntimeError, match="scale"):
        make(weight).load_state_dict(state)


def test_unshared_step_sizes_move_apart(weight):
    module = make(weight, share_scale=False)
    with torch.no_grad():
        module.scale.mul_(2)
    assert not torch.equal(module.scale, module.base_scale)
    fresh = make(weight, share_scale=False)
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh.base_scale, module.base_scale)
    assert torch.equal(fresh.scale, module.scale)


def step_once(module, cotangent):
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01, foreach=False)
    (module() * cotangent).sum().backward()
    optimiser.step()


def test_an_optimiser_moves_the_shared_number_twice(weight, generator):
    """Each parameter has its own gradient and state, and both updates land on the same numbers."""
    cotangent = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    module = make(weight).double()
    start = module.scale.detach().clone()
    step_once(module, cotangent)
    expected = start
    for gradient in (module.scale.grad, module.base_scale.grad):
        expected = expected * (1 - 1e-3 * 0.01) - 1e-3 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(module.scale.detach(), expected, rtol=1e-10, atol=0)
    assert not torch.equal(module.scale.grad, module.base_scale.grad)


def test_once_has_the_total_derivative(weight, generator):
    cotangent = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    twice, once = make(weight).double(), make(weight, scale_updates="once").double()
    for module in (twice, once):
        with torch.no_grad():
            module.lora_B.add_(0.05)
        (module() * cotangent).sum().backward()
    torch.testing.assert_close(once.scale.grad, twice.scale.grad + twice.base_scale.grad)


def test_training_the_shared_step_size_alone_keeps_every_code(weight):
    """The base moves along, so (n0 - z) delta / delta rounds as before."""
    module = make(weight)
    before = module.effective_codes()
    with torch.no_grad():
        module.scale.mul_(1.7)
    assert torch.equal(module.effective_codes(), before)
    separate = make(weight, share_scale=False)
    with torch.no_grad():
        separate.scale.mul_(1.7)
    assert not torch.equal(separate.effective_codes(), before)


def test_float_base_keeps_the_float_weight(weight):
    module = make(weight, base="full_precision")
    assert module.codes is None
    assert module.base_scale is None
    assert torch.equal(module.base_weight, weight)
    assert len(list(module.parameters())) == 3
    (module() ** 2).sum().backward()
    assert module.scale.grad is not None
    fresh = make(weight * 2, base="full_precision")
    fresh.load_state_dict(module.state_dict())
    assert torch.equal(fresh(), module())


def test_unknown_options_are_refused(weight):
    for options in ({"base": "int"}, {"scale_updates": "thrice"}, {"rule": "median"}):
        with pytest.raises(BenchError, match="choose"):
            make(weight, **options)
    with pytest.raises(BenchError, match="2 to 8"):
        make(weight, bits=1)
