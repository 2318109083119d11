"""The cases of the contract: every registered method, its presets, and every value of its options.

A method that somebody adds is found by itself, as are its options.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.distill import calibrate_on_calls
from hqdm_bench.methods import Method, Request, Student, available_methods, build_student
from hqdm_bench.models import LatentDiffusion
from hqdm_bench.models.attention import TokenAttention
from hqdm_bench.quantization import LoRAWeight, NoiseError, TrainedWeight

TIMES = (1, 501)  # of a recipe with two steps
SEED = 7
FULL_PRECISION = Bits(32, 32)
# Values to try of options that are free text, by name.
TEXTS = {"policy": ("full", "official; *ff.net.2 = full_precision")}

Call = tuple[Tensor, Tensor, Tensor]
Make = Callable[..., Student]


def quantizes(method: Method) -> bool:
    """Whether a method takes low bits; a few layers tell at once."""
    return builds(method, {})


def builds(method: Method, options: dict[str, Any]) -> bool:
    """Whether a method can be built with these options, which may exclude each other."""
    try:
        read = method.options.read(options, method.name)
        method.build(read, few_layers(), Request(Bits(4, 4), (0,)))
    except BenchError:
        return False
    return True


def trains(method: Method) -> bool:
    """Whether a method's students have something to train once they are built."""
    options = method.options.read({}, method.name)
    return method.build(options, few_layers(), Request(Bits(4, 4), (0,))).trainable


def few_layers() -> nn.Module:
    """With names and an attention that options speak of."""
    net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))
    return nn.ModuleDict({"ff": nn.ModuleDict({"net": net}), "attention": TokenAttention(1.0)})


def values(method: Method) -> dict[str, tuple[Any, ...]]:
    """Values of every option besides its default."""
    chosen: dict[str, tuple[Any, ...]] = {}
    for entry in dataclasses.fields(method.options):
        allowed = method.options.allowed().get(entry.name, TEXTS.get(entry.name, ()))
        chosen[entry.name] = tuple(value for value in allowed if value != entry.default)
    return chosen


def variants(method: Method) -> list[dict[str, Any]]:
    """Few sets of overrides that together take every value of every option.

    Values are dealt out in turn, so that one set changes few options; a value goes on to the next
    set where it has no say beside what is there already.
    """
    others = values(method)
    sets: list[dict[str, Any]] = [{} for _ in range(max(map(len, others.values()), default=0))]
    turn = 0
    for option, choices in others.items():
        for value in choices:
            for attempt in range(len(sets)):
                index = (turn + attempt) % len(sets)
                wanted = {**sets[index], option: value}
                if option not in sets[index] and builds(method, wanted):
                    sets[index] = wanted
                    break
            else:
                sets.append({option: value})
            turn += 1
    return sets


def cases() -> list[MethodSpec]:
    """Every case, the plain method first."""
    found = []
    for name, method in available_methods().items():
        presets = [{"preset": preset} for preset in method.options.presets() if preset != "as_code"]
        for options in ({}, *presets, *variants(method)):
            label = "-".join([name, *map(str, options.values())]).replace("; ", "+")
            found.append(MethodSpec(label, label, name, options))
    return found


CASES = cases()
QUANTIZED = [case for case in CASES if quantizes(available_methods()[case.implementation])]

TRAINED = [case for case in QUANTIZED if trains(available_methods()[case.implementation])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with ``case`` is for every method and option, one with ``quantized`` for low bits.

    One with ``plain`` is for their default options alone, one with ``trained`` for low bits that
    are trained.
    """
    plain = [case for case in QUANTIZED if not case.options]
    kinds = {"case": CASES, "quantized": QUANTIZED, "plain": plain, "trained": TRAINED}
    for argument, chosen in kinds.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, chosen, ids=[case.name for case in chosen])


@pytest.fixture(scope="session")
def recipe(recipe: Recipe) -> Recipe:
    """Two steps only: calibrating takes most of the time."""
    assert recipe.post_training is not None
    sampler = dataclasses.replace(recipe.post_training, steps=len(TIMES))
    return dataclasses.replace(recipe, steps=len(TIMES), post_training=sampler)


@pytest.fixture(scope="session")
def all_cases() -> list[MethodSpec]:
    return CASES


@pytest.fixture(scope="session")
def option_values() -> Callable[[Method], dict[str, tuple[Any, ...]]]:
    return values


@pytest.fixture(scope="session")
def calls(shared_toy: LatentDiffusion) -> list[Call]:
    """Calls of the toy's UNet, one a timestep; the batches get wider towards the noise."""
    random = torch.Generator().manual_seed(9)
    context = shared_toy.context(torch.arange(2))
    assert context is not None
    return [
        (
            torch.randn(2, 3, 4, 4, generator=random) * (1 + 0.3 * row),
            torch.full((2,), t),
            context.detach(),
        )
        for row, t in enumerate(TIMES)
    ]


@pytest.fixture(scope="session")
def diffusers_network() -> Callable[..., nn.Module]:
    """Makes a small network of diffusers: ``unet``, ``dit`` or ``pixels``."""
    diffusers = pytest.importorskip("diffusers")
    shared = {"sample_size": 8, "in_channels": 4, "norm_num_groups": 8}

    def unet(levels: int) -> nn.Module:
        """Cross attention with linear projections, skips and, with two levels, resampling."""
        return diffusers.UNet2DConditionModel(
            out_channels=4,
            block_out_channels=(32, 64)[:levels],
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D")[:levels],
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")[-levels:],
            use_linear_projection=True,
            **shared,
        )

    def dit(_: int) -> nn.Module:
        return diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=2,
            patch_size=2,
            num_embeds_ada_norm=10,
            **shared,
        )

    def pixels(_: int) -> nn.Module:
        return diffusers.UNet2DModel(
            out_channels=4,
            block_out_channels=(32, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            **shared,
        )

    makers = {"unet": unet, "dit": dit, "pixels": pixels}
    return lambda kind, levels=2: makers[kind](levels).eval()


@pytest.fixture(scope="session")
def calibrated(shared_toy: LatentDiffusion, recipe: Recipe, calls: list[Call]) -> Make:
    """Make a calibrated student of a case: ``calibrated(case, bits=..., **options)``.

    Students are made once and handed out as copies.
    """
    made: dict[tuple[object, ...], Student] = {}

    def make(case: MethodSpec, bits: Bits | None = None, **over: Any) -> Student:
        bits = bits or (Bits(4, 4) if case in QUANTIZED else FULL_PRECISION)
        key = (case.name, bits, *sorted(over.items()))
        if key not in made:
            spec = dataclasses.replace(case, options={**case.options, **over})
            student = build_student(spec, shared_toy, bits, recipe, SEED)
            calibrate_on_calls(student, calls)
            if student.noise_correction is not None:
                student.noise_correction.fit(errors(student, shared_toy, calls))
            made[key] = student
        student = copy.deepcopy(made[key])
        if student.step is None:  # full precision shares the module
            student.network = shared_toy.unet
        return student

    return make


@torch.no_grad()
def errors(student: Student, toy: LatentDiffusion, calls: list[Call]) -> dict[int, NoiseError]:
    """Of the predictions, by timestep."""
    found = {t: NoiseError() for t in TIMES}
    for call in calls:
        found[int(call[1][0])].add(toy.unet(*call), student(*call))
    return found


@pytest.fixture(scope="session")
def move() -> Callable[[Student], Student]:
    """Pretend training: without an update that is felt, half of the gradients are zero."""

    def disturb(student: Student) -> Student:
        random = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for layer in student.low_bit_layers().values():
                weight = layer.weight
                if isinstance(weight, LoRAWeight):
                    update = weight.lora_B
                    update.copy_(0.05 * torch.randn(update.shape, generator=random).to(update))
                if isinstance(weight, TrainedWeight):
                    noise = torch.randn(weight.shape, generator=random).to(weight.weight)
                    weight.weight += 0.2 * weight.weight.std() * noise
        return student

    return disturb


@pytest.fixture
def extra_methods(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A folder whose modules belong to the methods package while the test runs."""
    import hqdm_bench.methods

    folder = tmp_path / "methods"
    folder.mkdir()
    monkeypatch.setattr(hqdm_bench.methods, "__path__", [*hqdm_bench.methods.__path__, str(folder)])
    available_methods.cache_clear()
    yield folder
    available_methods.cache_clear()
