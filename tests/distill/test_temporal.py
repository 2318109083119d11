"""The temporal information block: TFMQ-DM's released numbers, and other networks' blocks."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import hqdm_bench
from hqdm_bench.catalogue import Scale
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import post_train
from hqdm_bench.distill.rounding import learned_rounding, weighted_penalty
from hqdm_bench.distill.temporal import embedding_loss, reconstruct_temporal, temporal_data
from hqdm_bench.methods import Calibrate, RoundingFit, RoundTemporal, RoundWeights, Student
from hqdm_bench.models import UNet
from hqdm_bench.quantization import (
    EmaObserver,
    ExactInput,
    LearnedStep,
    StaticWeight,
    find_temporal_block,
)
from hqdm_bench.quantization.blocks import Unit

RELEASED = load_file(Path(__file__).parents[1] / "data" / "tfmq" / "temporal.safetensors")
TIMES = (1, 201, 401, 601, 801)
PROJECTIONS = ("first", "second")
ROUNDED = {"time_embed.2": "time_embed.2"} | {name: f"{name}.emb_layers.1" for name in PROJECTIONS}
Calls = list[tuple[Tensor, int]]


class Residual(nn.Module):
    """Adds what it projects."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(8, width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return x + self.emb_layers(embedding).mean(1, keepdim=True)


class Net(nn.Module):
    """Embeds the timestep for two residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8))
        self.first, self.second = Residual(6), Residual(10)

    def forward(self, x: Tensor, t: int) -> Tensor:
        row = RELEASED["sinusoids"][RELEASED["timesteps"].tolist().index(t)]
        embedding = self.time_embed(row.expand(len(x), -1))
        return self.second(self.first(x, embedding), embedding)


@pytest.fixture
def net() -> Net:
    """With the released run's weights."""
    network = Net().double()
    names = {"time_embed.0": "time_embed.0"} | ROUNDED
    network.load_state_dict(
        {
            f"{ours}.{part}": RELEASED[f"{theirs}.{part}"]
            for theirs, ours in names.items()
            for part in ("weight", "bias")
        }
    )
    return network


@pytest.fixture
def calls() -> Calls:
    """As many samples of each timestep as the released run had."""
    counts = RELEASED["timesteps"].unique(return_counts=True)[1].tolist()
    return [(torch.zeros(n, 2, dtype=torch.float64), t) for n, t in zip(counts, TIMES, strict=True)]


def student_of(net: nn.Module, method: str = "rtn", bits: str = "w3a8") -> Student:
    policy = "full; time_embed.0 = full_precision"
    return hqdm_bench.quantize(net, method, bits, timesteps=TIMES, policy=policy)


def test_the_loss_is_the_released_one(net: Net, calls: Calls) -> None:
    """From the released weights, inputs, grids and roundings at three updates: 1e-5 relative."""
    student = student_of(net)
    for theirs, ours in ROUNDED.items():
        weight = student.network.get_submodule(ours).weight
        assert isinstance(weight, StaticWeight)
        torch.testing.assert_close(weight.scale, RELEASED[f"{theirs}.delta"], rtol=1e-5, atol=0)
        assert torch.equal(weight.zero, RELEASED[f"{theirs}.zero"])
    block = find_temporal_block(net)
    assert block is not None
    assert (block.embedding, block.projections) == (
        "time_embed",
        ("first.emb_layers", "second.emb_layers"),
    )
    data = temporal_data(net, block, calls)
    assert len(data.inputs) == 5
    assert torch.equal(data.inputs[data.samples], RELEASED["sinusoids"])
    fit = RoundingFit(updates=300)
    unit = Unit("time_embed", "temporal", tuple(ROUNDED.values()))
    assert student.step is not None
    student.step.set(1)
    with (
        torch.no_grad(),
        hqdm_bench.distill.exact_activations(student),
        learned_rounding(student, net, unit) as rounded,
    ):
        penalty = weighted_penalty(rounded, fit)
        targets = data.run(net, data.samples)
        for update in (1, 100, 300):
            for theirs, weight in zip(ROUNDED, rounded, strict=True):
                alpha = RELEASED[f"{theirs}.alpha.{update}"]
                if update == 1:
                    torch.testing.assert_close(weight.rounding, alpha, rtol=1e-5, atol=1e-9)
                weight.rounding.copy_(alpha)
            loss = embedding_loss(data.run(student.network, data.samples), targets)
            extra = penalty(update)
            found = torch.stack([loss, loss if extra is None else loss + extra])
            torch.testing.assert_close(found, RELEASED[f"loss.{update}"], rtol=1e-5, atol=0)


def test_all_updates_end_at_the_released_sides(net: Net, calls: Calls) -> None:
    student = student_of(net)
    done = reconstruct_temporal(student, net, calls, RoundingFit(updates=300, batch=15))
    assert done is not None
    assert (done.unit.kind, done.samples) == ("temporal", 15)
    assert done.after < done.before
    moved = 0
    for theirs, ours in ROUNDED.items():
        weight = student.network.get_submodule(ours).weight
        assert isinstance(weight, StaticWeight)
        scaled = RELEASED[f"{theirs}.weight"] / RELEASED[f"{theirs}.delta"]
        floor, up = scaled.floor(), RELEASED[f"{theirs}.up"]
        codes = (floor + up + RELEASED[f"{theirs}.zero"]).clamp(0, 7)
        assert torch.equal(weight.effective_codes(0).to(codes), codes)
        moved += int(((scaled - floor >= 0.5) != up.bool()).sum())
    assert moved == 10  # not rounding to nearest


@pytest.mark.parametrize(("name", "shift"), [("signed", 0.0), ("positive", 9.0)])
def test_ranges_are_the_released_moving_averages(name: str, shift: float) -> None:
    observer, plain = EmaObserver(include_zero=True), EmaObserver()
    table = LearnedStep(8).double()
    for batch in RELEASED["ema.batches"]:
        observer.observe(batch + shift)
        plain.observe(batch + shift)
    observer.store(table)
    scale, zero, low, high = RELEASED[f"ema.{name}"]
    torch.testing.assert_close(table.scale[0], scale, rtol=1e-5, atol=0)
    assert table.zero is not None
    assert table.zero[0] == zero
    torch.testing.assert_close(torch.stack(plain.range), torch.stack([low, high]))


SMALL = {
    "image_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "attention_resolutions": [2],
}
STRUCTURES = {
    "imagenet": {"num_heads": 1, "use_spatial_transformer": True, "context_dim": 16},
    "bedrooms": {"num_head_channels": 32},
    "churches": {"num_heads": 2, "use_scale_shift_norm": True, "resblock_updown": True},
}
TWO = (1, 501)


def drawn(network: nn.Module) -> nn.Module:
    """All parameters random, also those that start at zero."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                bound = parameter[0].numel() ** -0.5
                parameter.uniform_(-bound, bound, generator=random)
    return network.eval()


def structure(name: str) -> tuple[nn.Module, list[tuple[Tensor, ...]]]:
    """A small UNet of one of the three kinds, and calls of it."""
    random = torch.Generator().manual_seed(6)
    calls = []
    for t in TWO:
        x = torch.randn(4, 3, 8, 8, generator=random)
        rest = (torch.randn(4, 1, 16, generator=random),) if name == "imagenet" else ()
        calls.append((x, torch.full((4,), t), *rest))
    return drawn(UNet(**SMALL, **STRUCTURES[name])), calls


@pytest.mark.parametrize("name", STRUCTURES)
def test_tfmq_on_the_three_structures(name: str) -> None:
    network, calls = structure(name)
    student = hqdm_bench.quantize(network, "tfmq", "w3a8", timesteps=TWO)
    block = find_temporal_block(student.network)
    assert block is not None
    inside = [one for one in student.low_bit_layers() if block.holds(one)]
    assert "time_embed.0" not in inside
    assert len(inside) == 1 + len(block.projections)
    nearest = {one: codes(student, one) for one in student.low_bit_layers()}
    fit = RoundingFit(updates=100, rate=2e-2)
    done = reconstruct_temporal(student, network, calls, fit)
    assert done is not None
    assert done.unit.layers == tuple(inside)
    assert done.after < 0.9 * done.before
    learned = {one: codes(student, one) for one in student.low_bit_layers()}
    changed = {one for one in learned if not torch.equal(nearest[one], learned[one])}
    assert changed == set(inside)

    whole = hqdm_bench.quantize(network, "tfmq", "w3a8", timesteps=TWO)
    post_train(whole, network, calls, Scale(updates=0.0005, rates=100))
    assert whole.calibrated
    final = {one: codes(whole, one) for one in whole.low_bit_layers()}
    changed = {one for one in final if not torch.equal(nearest[one], final[one])}
    assert changed & set(inside)
    assert changed - set(inside)
    for layer in whole.low_bit_layers().values():
        assert isinstance(layer.activation, ExactInput) or len(layer.activation.scale) == 2


def codes(student: Student, name: str) -> Tensor:
    weight = student.network.get_submodule(name).weight
    assert isinstance(weight, StaticWeight)
    return weight.effective_codes(0)


def test_a_block_of_diffusers() -> None:
    """Whose residual blocks apply the activation before the projection."""
    diffusers = pytest.importorskip("diffusers")
    network = drawn(
        diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )
    )
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(6))
    calls = [(x, t) for t in TWO]
    block = find_temporal_block(network)
    assert block is not None
    assert block.embedding == "time_embedding"
    assert all(name.endswith("time_emb_proj") for name in block.projections)
    data = temporal_data(network, block, calls)
    assert len(data.inputs) == 2
    seen: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: seen.update({name: out})
        )
        for name in block.projections
    ]
    with torch.no_grad():
        network(x, 1)
        outputs = data.run(network, data.samples[:3])
    for hook in hooks:
        hook.remove()
    for name, output in zip(block.projections, outputs, strict=True):
        torch.testing.assert_close(output, seen[name])
    student = hqdm_bench.quantize(network, "tfmq", "w3a8", timesteps=TWO)
    done = reconstruct_temporal(student, network, calls, RoundingFit(updates=100, rate=2e-2))
    assert done is not None
    assert done.after < 0.9 * done.before
    assert len(done.unit.layers) == len(block.projections) + 1  # time_embedding.linear_1


def test_networks_without_a_block_are_left_alone(net: Net, calls: Calls) -> None:
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(8)))
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    student = hqdm_bench.quantize(layers, "tfmq", "w4a8")
    assert reconstruct_temporal(student, layers, [(x,)]) is None
    post_train(student, layers, [(x,)], Scale(updates=0.001))
    assert student.calibrated
    two = nn.ModuleDict({"a": Net(), "b": Net()})
    assert find_temporal_block(two) is None
    full = hqdm_bench.quantize(
        net,
        "rtn",
        "w4a8",
        timesteps=TIMES,
        policy="full; time_embed.* = full_precision; "
        "*.emb_layers.1 = static_8bit; time_embed.2 = low_bit",
    )
    done = reconstruct_temporal(full, net, calls, RoundingFit(updates=2))
    assert done is not None
    assert done.unit.layers == ("time_embed.2",)


class Labelled(Net):
    """Adds something to the embedding, as a class label does."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor, t: int) -> Tensor:
        row = RELEASED["sinusoids"][0].float().expand(len(x), -1) * t
        label = torch.arange(len(x))[:, None]
        embedding = self.time_embed(row + label if self.place == "before" else row)
        embedding = embedding + label if self.place == "after" else embedding
        return self.second(self.first(x, embedding), embedding)


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("before", "'time_embed' takes different rows at one timestep"),
        ("after", "'first.emb_layers' does not take the output of 'time_embed'"),
    ],
)
def test_what_depends_on_more_than_the_timestep_is_refused(place: str, says: str) -> None:
    network = Labelled(place)
    student = hqdm_bench.quantize(network, "rtn", "w4a8", timesteps=TWO, policy="full")
    with pytest.raises(BenchError, match=says):
        reconstruct_temporal(student, network, [(torch.zeros(3, 2), t) for t in TWO])
    with pytest.raises(BenchError, match="give at least one"):
        reconstruct_temporal(student, network, [])


def test_the_settings_are_the_released_scripts() -> None:
    options = hqdm_bench.methods.get_method("tfmq").options
    temporal, weights, last = options.presets()["as_code"].stages()
    assert isinstance(temporal, RoundTemporal)
    assert isinstance(weights, RoundWeights)
    assert isinstance(last, Calibrate)
    assert temporal.fit == weights.fit == RoundingFit(updates=20_000, batch=8, rate=1e-3)
    assert (temporal.fit.penalty, temporal.fit.warm_up) == (0.01, 0.2)
    assert (temporal.fit.first_beta, temporal.fit.last_beta) == (20, 2)
    assert temporal.timesteps == weights.timesteps == 20
    temporal, weights, _ = options.presets()["as_code_churches"].stages()
    assert temporal.fit.batch == weights.fit.batch == 32
    assert temporal.timesteps == weights.timesteps == 16
    temporal, weights, _ = options.presets()["as_paper"].stages()
    assert (temporal.timesteps, weights.timesteps) == (1000, 20)


def test_as_paper_has_a_range_a_step_in_the_temporal_block_alone() -> None:
    network, calls = structure("bedrooms")
    student = hqdm_bench.quantize(network, "tfmq", "w4a8", timesteps=TWO, preset="as_paper")
    hqdm_bench.calibrate(student, calls)
    block = find_temporal_block(network)
    assert block is not None
    rows = {
        name: len(layer.activation.scale)
        for name, layer in student.low_bit_layers().items()
        if isinstance(layer.activation, LearnedStep)
    }
    assert {name for name, count in rows.items() if count == 2} == {
        name for name in rows if block.holds(name)
    }
    assert set(rows.values()) == {1, 2}
    assert torch.isfinite(student(*calls[0])).all()
