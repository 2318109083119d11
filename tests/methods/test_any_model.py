"""Networks of other libraries, quantized without a line written for them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hqdm_bench
from hqdm_bench import integer
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import Student
from hqdm_bench.quantization import coverage

diffusers = pytest.importorskip("diffusers")

TIMES = (1, 401)
METHODS = ("hqdm", "efficientdm", "hqdm_plus", "double_hadamard")
PAGE = Path(__file__).parents[2] / "docs" / "any-model.md"
Calls = list[dict[str, Any]]


def make_calls(name: str, batch: int = 1) -> Calls:
    """One call at each timestep; a batch of one is small enough for the range search to see all."""
    random = torch.Generator().manual_seed(3)
    calls = []
    for t in TIMES:
        x = torch.randn(batch, 4, 8, 8, generator=random)
        text = torch.randn(batch, 3, 32, generator=random)
        time = torch.full((batch,), t)
        if name == "unet":
            calls.append({"sample": x, "timestep": time, "encoder_hidden_states": text})
        else:
            labels = torch.arange(batch) % 10
            calls.append({"hidden_states": x, "timestep": time, "class_labels": labels})
    return calls


@pytest.fixture(scope="module")
def networks(diffusers_network: Callable[..., nn.Module]) -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: diffusers_network(name) for name in ("unet", "dit")}


def make_student(network: nn.Module, calls: Calls, method: str, bits: str, **options: Any) -> Any:
    student = hqdm_bench.quantize(network, method, bits, timesteps=TIMES, rank=4, **options)
    hqdm_bench.calibrate(student, calls)
    return student


@pytest.fixture(scope="module", params=["unet", "dit"])
def fitted(request: pytest.FixtureRequest, networks: dict[str, nn.Module]) -> tuple[Any, ...]:
    """A network, its w4a4 student after a few updates, and calls of both."""
    network, calls = networks[request.param], make_calls(request.param, batch=2)
    student = make_student(network, calls, "hqdm", "w4a4")
    optimiser = torch.optim.AdamW(student.parameter_groups())
    for call in calls:
        with torch.no_grad():
            wanted = network(**call).sample
        optimiser.zero_grad()
        (student(**call).sample - wanted).square().sum().backward()
        optimiser.step()
    return network, student, calls


@torch.no_grad()
def relative_error(network: nn.Module, student: Student, calls: Calls) -> float:
    pairs = [(network(**call).sample, student(**call).sample) for call in calls]
    return max(float((y - x).norm() / x.norm()) for x, y in pairs)


# Largest of all methods over three random networks: w16a16 1.8e-4 (UNet), 6e-5 (DiT); w8a8 0.044,
# 0.014; w4a4 0.55, 0.105.
BOUNDS = {
    ("unet", "w16a16"): 5e-4,
    ("unet", "w8a8"): 0.08,
    ("unet", "w4a4"): 0.8,
    ("dit", "w16a16"): 2e-4,
    ("dit", "w8a8"): 0.03,
    ("dit", "w4a4"): 0.2,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "bits"), BOUNDS)
def test_close_to_the_network(
    networks: dict[str, nn.Module], name: str, bits: str, method: str
) -> None:
    network, calls = networks[name], make_calls(name)
    policy = "full" if bits == "w16a16" else "official"  # official has layers at 8 bits
    student = make_student(network, calls, method, bits, policy=policy)
    error = relative_error(network, student, calls)
    assert 0 < error < BOUNDS[name, bits]


def test_called_like_the_network(fitted: tuple[Any, ...]) -> None:
    network, student, calls = fitted
    call = calls[1]
    with torch.no_grad():
        wanted = network(**call)
        found = student(**call)
        assert type(found) is type(wanted)
        assert found.sample.shape == wanted.sample.shape
        assert found.sample.dtype == wanted.sample.dtype
        plain = student(**call, return_dict=False)
        assert isinstance(plain, tuple)
        assert torch.equal(plain[0], found.sample)
        assert torch.equal(student(*call.values(), return_dict=False)[0], found.sample)
    assert student.config is student.network.config
    assert student.config == network.config
    assert student.dtype == network.dtype == torch.float32
    assert student.device == network.device
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = student.no_such_thing


def test_a_timestep_is_a_number_or_a_tensor(networks: dict[str, nn.Module]) -> None:
    call = make_calls("unet", batch=2)[1]
    student = make_student(networks["unet"], make_calls("unet"), "efficientdm", "w4a4")
    forms = (401, 401.0, torch.tensor(401), torch.tensor([401]), torch.tensor([401, 401]))
    with torch.no_grad():
        wanted = student(**call).sample
        for form in forms:
            assert torch.equal(student(**{**call, "timestep": form}).sample, wanted)
    with pytest.raises(BenchError, match="one timestep a batch"):
        student(**{**call, "timestep": torch.tensor([1, 401])})
    with pytest.raises(BenchError, match="needs the timestep; give it as 'timestep'"):
        student(sample=call["sample"], encoder_hidden_states=call["encoder_hidden_states"])


def test_a_timestep_has_its_own_row(networks: dict[str, nn.Module]) -> None:
    """Step sizes of one timestep do not touch the other's output, and do touch its own."""
    calls = make_calls("dit")
    student = make_student(networks["dit"], calls, "hqdm", "w4a4", steps="by_timestep")
    with torch.no_grad():
        before = [student(**call).sample for call in calls]
        for layer in student.low_bit_layers().values():
            layer.activation.scale[0] *= 1.5
        after = [student(**call).sample for call in calls]
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    with pytest.raises(BenchError, match="timestep 7.0 is not in this student's table"):
        student(**{**calls[0], "timestep": torch.tensor([7])})


def test_gradients_reach_every_trained_parameter_and_nothing_else(
    fitted: tuple[Any, ...],
) -> None:
    network, student, _ = fitted
    layers = student.low_bit_layers()
    assert len(layers) > 10
    for name, layer in layers.items():
        assert layer.weight.lora_B.any(), name  # it was zero
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None, f"{name} {key}"
            assert bool(parameter.grad.isfinite().all()), f"{name} {key}"
    assert all(parameter.grad is None for parameter in network.parameters())
    own = {id(entry) for layer in layers.values() for entry in layer.parameters()}
    grown = {id(entry) for entry in student.parameters() if entry.grad is not None}
    assert grown == own


def test_read_back_exactly(fitted: tuple[Any, ...], tmp_path: Path) -> None:
    network, student, calls = fitted
    hqdm_bench.save_student(student, tmp_path / "student.safetensors")
    fresh = type(network).from_config(network.config).eval()
    fresh.load_state_dict(network.state_dict())
    found = hqdm_bench.load_student(tmp_path / "student.safetensors", fresh)
    with torch.no_grad():
        for call in calls:
            assert torch.equal(found(**call).sample, student(**call).sample)


def test_a_student_is_the_unet_of_a_sampler() -> None:
    """DDIMPipeline asks for config, dtype and device, and calls with a 0-d timestep."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            block_out_channels=(32, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ).eval()
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(3)
    times = [int(t) for t in scheduler.timesteps]
    student = hqdm_bench.quantize(unet, "hqdm_plus", "w8a8", timesteps=times, rank=4)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    hqdm_bench.calibrate(student, [(x, t) for t in times])
    images = []
    for network in (unet, student):
        pipeline = diffusers.DDIMPipeline(unet=network, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        random = torch.Generator().manual_seed(7)
        made = pipeline(1, random, num_inference_steps=3, output_type="np").images
        images.append(torch.from_numpy(made))
    assert torch.isfinite(images[1]).all()
    difference = float((images[0] - images[1]).abs().mean())
    assert 0 < difference < 0.05  # of pixels in [0, 1]; measured 0.008
    assert student.step.timesteps == tuple(sorted(times))


@pytest.mark.parametrize("bits", ["w8a8", "w4a4"])
@pytest.mark.parametrize("method", METHODS)
def test_a_sequential_without_time(method: str, bits: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (
            nn.Conv2d(3, 32, 3, padding=1),
            nn.SiLU(),
            nn.Flatten(2),
            nn.Conv1d(32, 32, 1),
            nn.Flatten(),
            nn.Linear(32 * 16, 64),
        )
    network = nn.Sequential(*layers).eval()
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    student = hqdm_bench.quantize(network, method, bits, policy="full", rank=4)
    hqdm_bench.calibrate(student, [(x,)])
    with torch.no_grad():
        error = float((student(x) - network(x)).norm() / network(x).norm())
    assert 0 < error < (0.05 if bits == "w8a8" else 0.6)
    found = coverage(student, (x[:1],))
    assert set(found["by_bits"]) == {bits}
    assert found["low_bit"] == {"mac_share": 1, "weight_share": 1}
    hqdm_bench.save_student(student, tmp_path / "student.safetensors")
    again = hqdm_bench.load_student(tmp_path / "student.safetensors", network)
    with torch.no_grad():
        assert torch.equal(again(x), student(x))
    with pytest.raises(BenchError, match="Sequential has no timestep argument.*it takes input"):
        hqdm_bench.quantize(network, method, bits, timesteps=TIMES)


class Mixed(nn.Module):
    """Holds layers that cannot be quantized and calls all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.circular = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 8)
        self.up = nn.ConvTranspose2d(8, 3, 2, stride=2)

    def forward(self, x: torch.Tensor, t: float) -> torch.Tensor:
        x = self.pointwise(self.circular(self.depthwise(x)))
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.encoder(tokens + self.attention(tokens, tokens, tokens)[0])
        out = self.head(tokens).transpose(1, 2).unflatten(2, x.shape[2:])
        return self.up(out) * (1 + t / 1000)


def test_what_cannot_be_quantized_stays_and_shows() -> None:
    network = Mixed().eval()
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(1))
    student = hqdm_bench.quantize(network, "hqdm", timesteps=TIMES, policy="full", rank=2)
    hqdm_bench.calibrate(student, [(x, t) for t in TIMES])
    assert list(student.quantized_layers()) == ["pointwise", "head"]
    with torch.no_grad():  # where nn.TransformerEncoderLayer takes its fused path
        assert student(x, 401).shape == (2, 3, 8, 8)
    groups = coverage(student, {"x": x[:1], "t": 1})["by_bits"]
    assert {bits: group["layers"] for bits, group in groups.items()} == {"w32a32": 7, "w4a4": 2}
    assert groups["w4a4"]["macs"] == 16 * 8 * 16 * 2
    policy = "full; depthwise = low_bit"
    with pytest.raises(BenchError, match="asks for 'depthwise', which cannot.*it has 8 groups"):
        hqdm_bench.quantize(network, "hqdm", timesteps=TIMES, policy=policy)
    with pytest.raises(BenchError, match="option 'policy': layer policy 'most' is unknown"):
        hqdm_bench.quantize(network, "hqdm", timesteps=TIMES, policy="most")


def test_rules_reach_the_layers_and_the_file(
    networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    policy = "full; transformer_blocks.*.to_? = static_8bit; proj_out_? = full_precision"
    calls = make_calls("dit")
    student = make_student(networks["dit"], calls, "hqdm", "w4a4", policy=policy)
    static = list(student.static_layers())
    assert len(static) == 6
    assert all(re.fullmatch(r"transformer_blocks\.\d\.attn1\.to_[qkv]", name) for name in static)
    assert "proj_out_1" not in student.quantized_layers()
    hqdm_bench.save_student(student, tmp_path / "student.safetensors")
    again = hqdm_bench.load_student(tmp_path / "student.safetensors", networks["dit"])
    assert again.options.policy == policy
    assert list(again.static_layers()) == static
    with torch.no_grad():
        assert torch.equal(again(**calls[0]).sample, student(**calls[0]).sample)


def test_the_page_runs(
    diffusers_network: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block, in order, in one namespace."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    random = torch.Generator().manual_seed(2)
    x = torch.randn(1, 4, 8, 8, generator=random)
    text = torch.randn(1, 3, 32, generator=random)
    calls = [
        {"sample": x, "timestep": t, "encoder_hidden_states": text} for t in range(1, 1000, 50)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers_network("unet", levels=1)
        space: dict[str, Any] = {"unet": unet, "calls": calls, "text": text}
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), space)
    assert torch.isfinite(space["image"]).all()
    assert 0 < space["bytes_of_it"]["packed"] < space["bytes_of_it"]["bfloat16"]
    assert space["share"] == coverage(space["student"], calls[0])["low_bit"]["mac_share"]


@torch.no_grad()
def test_it_multiplies_integers(fitted: tuple[Any, ...], tmp_path: Path) -> None:
    network, student, calls = fitted
    made = integer.convert(student)
    assert not made.report.kept
    integer.save(made, tmp_path / "packed.safetensors")
    again = integer.load(tmp_path / "packed.safetensors", network)
    for call in calls:
        expected = student(**call).sample
        found = made(**call).sample
        assert (found - expected).norm() < 0.02 * expected.norm()
        assert torch.equal(again(**call).sample, found)
