import copy

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator as stream
from hqdm_bench.quantization import Blend, LoRAWeight, StaticWeight, minmax_grid
from hqdm_bench.quantization.reference import plain_lora_fake_quantize


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


def plain(module, row):
    """The formula with the step sizes of one row, under autograd."""
    step = module.scale[row]
    base = step if module.scale_updates == "once" else module.base_scale
    base = None if module.codes is None else base if base is step else base[row]
    start = module.codes if module.base_weight is None else module.base_weight
    arguments = (module.lora_A, module.lora_B, step, module.zero, start, base)
    return plain_lora_fake_quantize(*arguments, 2**module.bits - 1)


@pytest.mark.parametrize("base", ["dequantized", "full_precision"])
@pytest.mark.parametrize("updates", ["twice", "once"])
def test_step_sizes_of_a_step_and_their_gradients(weight, generator, base, updates):
    """Row r alone acts and is moved; the other rows have no gradient."""
    options = {"base": base, "scale_updates": updates, "steps": 3}
    module, twin = (make(weight.double(), **options) for _ in range(2))
    growth = torch.tensor([1.0, 1.3, 0.8]).double().view(3, 1, 1, 1, 1)
    cotangent = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    for one in (module, twin):
        assert one.scale.shape == (3, 6, 1, 1, 1)
        assert one.zero.shape == (6, 1, 1, 1)
        with torch.no_grad():
            one.scale.mul_(growth)
            one.lora_B.add_(0.05)
    (module(1) * cotangent).sum().backward()
    (plain(twin, 1) * cotangent).sum().backward()
    torch.testing.assert_close(module(1), plain(twin, 1), rtol=1e-12, atol=1e-12)
    for (name, ours), (_, theirs) in zip(
        module.named_parameters(), twin.named_parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)
        if name in ("scale", "base_scale"):
            assert ours.grad[1].abs().min() > 0
            assert not ours.grad[[0, 2]].any()
    rows = [module(row) for row in range(3)]
    assert not torch.equal(rows[0], rows[1])
    between = module(Blend(0, 0.5))
    expected = (module.effective_codes(Blend(0, 0.5)) - module.zero) * module.scale[:2].mean(0)
    torch.testing.assert_close(between, expected, rtol=1e-12, atol=0)


def test_rows_of_step_sizes_stay_tied_and_round_trip(weight):
    module = make(weight, steps=3)
    assert_twice(module)
    assert torch.equal(module.scale[0], module.scale[2])
    with torch.no_grad():
        module.scale[1].mul_(2)
    assert torch.equal(module.base_scale, module.scale)
    fresh = make(weight * 2, steps=3)
    fresh.load_state_dict(module.state_dict())
    assert_twice(fresh)
    assert torch.equal(fresh(1), module(1))
    assert not torch.equal(fresh(1), fresh(0))


def test_sixteen_bits_have_codes_of_their_own_type(weight):
    module, static = make(weight, 16), StaticWeight.from_float(weight, 16)
    for one in (module, static):
        codes = one.effective_codes()
        assert codes.dtype == torch.int32
        assert codes.max() > 255
        assert codes.max() <= 2**16 - 1
        torch.testing.assert_close(one(), weight, rtol=0, atol=weight.abs().max().item() / 2**15)
