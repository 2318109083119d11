"""Quantized attention in networks of diffusers."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hqdm_bench
from hqdm_bench import integer
from hqdm_bench.catalogue import Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import reconstruct_steps
from hqdm_bench.methods import StepFit, Student
from hqdm_bench.quantization import LearnedStep, StepIndex, UnsignedStep, quantize_attention
from hqdm_bench.quantization.blocks import find_units
from hqdm_bench.quantization.reference import plain_fake_quantize

pytest.importorskip("diffusers")

TIMES = (1, 401)
NETWORKS = ("unet", "dit", "pixels")
Calls = list[dict[str, Any]]


@pytest.fixture(scope="module")
def networks(diffusers_network: Callable[..., nn.Module]) -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: diffusers_network(name) for name in NETWORKS}


def make_calls(name: str, batch: int = 2) -> Calls:
    random = torch.Generator().manual_seed(3)
    calls = []
    for t in TIMES:
        x, time = torch.randn(batch, 4, 8, 8, generator=random), torch.full((batch,), t)
        if name == "dit":
            labels = torch.arange(batch) % 10
            calls.append({"hidden_states": x, "timestep": time, "class_labels": labels})
            continue
        call = {"sample": x, "timestep": time}
        if name == "unet":
            call["encoder_hidden_states"] = torch.randn(batch, 3, 32, generator=random)
        calls.append(call)
    return calls


def student_of(network: nn.Module, calls: Calls, bits: str = "w4a4", **options: Any) -> Student:
    options = {"attention": "quantized", **options}
    student = hqdm_bench.quantize(network, "rtn", bits, timesteps=TIMES, **options)
    hqdm_bench.calibrate(student, calls)
    return student


@torch.no_grad()
def relative(found: Any, network: nn.Module, calls: Calls) -> float:
    pairs = [(network(**call).sample, found(**call).sample) for call in calls]
    return max(float((y - x).norm() / x.norm()) for x, y in pairs)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_attention_has_quantized_products(networks: dict[str, nn.Module], name: str) -> None:
    # A batch of one is small enough for the range search to see all.
    network, calls = networks[name], make_calls(name, batch=1)
    before = str(network)
    fine = student_of(network, calls, "w16a16", policy="full", softmax_bits=16)
    wanted = [
        f"{path}.processor.attention"
        for path, module in network.named_modules()
        if hasattr(module, "set_processor")
    ]
    assert list(fine.quantized_attention()) == wanted
    assert len(wanted) > 1
    assert relative(fine, network, calls) < 1e-3
    errors = [
        relative(student_of(network, calls, bits, policy="full"), network, calls)
        for bits in ("w8a8", "w8a4")
    ]
    assert 0 < errors[0] < errors[1]
    assert str(network) == before


def test_the_processor_asks_for_the_products() -> None:
    """Against the formula, with both kinds of mask."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_q = nn.Linear(1, 1)
            self.set_processor = None
            self.processor = functional.scaled_dot_product_attention

    holder = nn.Sequential(Attention()).double()
    step = StepIndex(TIMES)
    step.set(1)
    names = quantize_attention(holder, lambda: LearnedStep(4), lambda: UnsignedStep(8), step)
    assert names == ["0.processor.attention"]
    products, processor = holder.get_submodule(names[0]), holder[0].processor
    for operand in products.operands[:3]:
        operand.activation.initialise(0.3, 8)
    products.probabilities.activation.initialise(1 / 255)
    random = torch.Generator().manual_seed(1)
    query, key, value = (
        torch.randn(2, 3, n, 4, generator=random, dtype=torch.float64) for n in (5, 6, 6)
    )
    added = torch.randn(2, 1, 5, 6, generator=random, dtype=torch.float64)
    allowed = added > -0.5
    allowed[..., 0] = True
    q, k, v = (
        plain_fake_quantize(x, torch.tensor(0.3), torch.tensor(8.0), 0, 15)
        for x in (query, key, value)
    )
    for mask, scale in ((None, None), (added, 0.7), (allowed, None)):
        scores = q @ k.transpose(2, 3) * (0.5 if scale is None else scale)
        if mask is not None:
            scores = scores + (mask if mask is added else torch.log(mask.double()))
        weights = (torch.softmax(scores, -1) * 255).round() / 255
        found = processor(query, key, value, attn_mask=mask, scale=scale)
        torch.testing.assert_close(found, weights @ v, rtol=1e-6, atol=1e-6)
    with pytest.raises(BenchError, match="no causal mask"):
        processor(query, key, value, is_causal=True)
    # Outside of a processor nothing has changed.
    plain = functional.scaled_dot_product_attention(query, key, value)
    assert not torch.allclose(plain, processor(query, key, value))


def test_keywords_reach_the_processor() -> None:
    """diffusers passes on those that it finds in the processor's signature."""
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    class Scaling(AttnProcessor2_0):
        def __call__(
            self,
            attn: Attention,
            hidden_states: Tensor,
            encoder_hidden_states: Tensor | None = None,
            attention_mask: Tensor | None = None,
            factor: float = 1.0,
        ) -> Tensor:
            return factor * super().__call__(attn, hidden_states)

    attention = Attention(8, heads=2, dim_head=4, processor=Scaling())
    holder = nn.Sequential(attention)
    step = StepIndex(TIMES)
    step.set(1)
    quantize_attention(holder, lambda: LearnedStep(8), lambda: UnsignedStep(8), step)
    products = holder.get_submodule("0.processor.attention")
    for operand in products.operands:
        operand.activation.initialise(0.02, 128)
    for network in (holder, copy.deepcopy(holder)):
        x = torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert torch.equal(network[0](x, factor=5.0), 5 * network[0](x))


@pytest.mark.parametrize("method", ["qdiffusion", "ptqd", "quest"])
def test_attention_outside_of_a_transformer_block_is_reconstructed(
    networks: dict[str, nn.Module], method: str
) -> None:
    network, calls = networks["pixels"], make_calls("pixels")
    options = {"correction": "no"} if method == "ptqd" else {}
    student = hqdm_bench.quantize(
        network, method, "w4a8", timesteps=TIMES, policy="full", attention="quantized", **options
    )
    names = list(student.quantized_attention())
    assert names
    if method != "quest":
        units = find_units(student.network, names, ("residual", "transformer"))
        assert {unit.kind for unit in units} == {"attention"}
        assert not any("processor" in unit.name for unit in units)
    hqdm_bench.post_train(student, network, calls, Scale(0.0005, 20))
    assert relative(student, network, calls) < 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_read_back_exactly(networks: dict[str, nn.Module], name: str, tmp_path: Path) -> None:
    network, calls = networks[name], make_calls(name)
    student = student_of(network, calls)
    hqdm_bench.save_student(student, tmp_path / "student.safetensors")
    found = hqdm_bench.load_student(tmp_path / "student.safetensors", network)
    assert found.calibrated
    with torch.no_grad():
        for call in calls:
            assert torch.equal(found(**call).sample, student(**call).sample)


def test_steps_are_learned_with_the_transformer_block(networks: dict[str, nn.Module]) -> None:
    network, calls = networks["unet"], make_calls("unet")
    student = student_of(network, calls)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    fit = StepFit(updates=3, batch=2, rate=1e-4)
    done = reconstruct_steps(student, network, calls, fit)
    held = {name: one.unit.kind for one in done for name in one.unit.layers}
    assert {held[name] for name in student.quantized_attention()} == {"transformer"}
    for name, attention in student.quantized_attention().items():
        for own, operand in attention.named_operands().items():
            key = f"network.{name}.{own}.activation.scale"
            assert not torch.equal(operand.activation.scale, before[key]), key


def test_integer_layers_around_it(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    network, calls = networks["unet"], make_calls("unet")
    student = student_of(network, calls)
    made = integer.convert(student)
    assert made.report.fake_attention == tuple(student.quantized_attention())
    with torch.no_grad():
        for call in calls:
            expected = student(**call).sample
            assert (made(**call).sample - expected).norm() < 0.02 * expected.norm()
        integer.save(made, tmp_path / "model.safetensors")
        again = integer.load(tmp_path / "model.safetensors", network)
        for call in calls:
            assert torch.equal(again(**call).sample, made(**call).sample)
