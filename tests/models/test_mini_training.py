"""Training of the embedded models: resuming, averaging, latents, losses."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hqdm_bench.catalogue.specs import ModelSpec
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.seeds import generator
from hqdm_bench.models.latent_diffusion import build_latent_diffusion
from hqdm_bench.models.mini import first_stage_training, train_teacher, unet_training
from hqdm_bench.models.mini.recipes import FirstStageRecipe
from hqdm_bench.models.mini.scenes import SceneSet
from hqdm_bench.models.mini.training import Checkpoint, TrainingState, cosine_rate


def tiny(kind: str) -> ModelSpec:
    """A class-conditional VQ model, or an unconditional KL one, of a few updates."""
    conditional = kind == "vq"
    channels = 3 if conditional else 4
    attention: dict[str, Any] = {"num_heads": 1}
    if conditional:
        attention |= {"use_spatial_transformer": True, "context_dim": 16}
    ddconfig = {"z_channels": channels, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32}
    ddconfig |= {"ch_mult": [1, 1, 1], "num_res_blocks": 1, "double_z": not conditional}
    first_stage = {"kind": kind, "embed_dim": channels, "ddconfig": ddconfig}
    training = {"images": 12, "iterations": 5, "batch": 2, "learning_rate": 1e-3}
    return ModelSpec(
        name=kind,
        title=kind,
        paper_dataset="imagenet",
        source="embedded",
        unet={
            "in_channels": channels,
            "out_channels": channels,
            "model_channels": 32,
            "attention_resolutions": [2],
            "num_res_blocks": 1,
            "channel_mult": [1, 1],
            **attention,
        },
        first_stage=first_stage | ({"n_embed": 16} if conditional else {}),
        condition={"n_classes": 3, "embed_dim": 16} if conditional else None,
        scale_factor=1.0 if conditional else None,
        beta_start=0.0015,
        beta_end=0.0195,
        data={"set": "scenes", "classes": ["ball", "tree"], "resolution": 32, "seed": 0}
        if conditional
        else {"set": "scenes", "classes": ["church"], "resolution": 32, "seed": 0},
        teacher={
            "seed": 0,
            "validation_images": 4,
            "checkpoint_every": 2,
            "first_stage": {**training, "restart_every": 2},
            "unet": {**training, "warmup": 1},
        },
    )


class KilledError(Exception):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, module: Any, update: int) -> None:
    """Let the training of ``module`` die in its update number ``update``."""

    def rate(current: int, *others: int) -> float:
        if current == update:
            raise KilledError
        return cosine_rate(current, *others)

    monkeypatch.setattr(module, "cosine_rate", rate)


@pytest.mark.parametrize("kind", ["vq", "kl"])
def test_killed_training_continues_bit_for_bit(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny(kind)
    expected, report = train_teacher(spec, progress=False)
    for module, update in ((first_stage_training, 3), (unet_training, 4)):
        with monkeypatch.context() as patch, pytest.raises(KilledError):
            kill_at(patch, module, update)
            train_teacher(spec, tmp_path, progress=False)
    kill_at(monkeypatch, first_stage_training, 0)  # must not train the first stage again
    model, second = train_teacher(spec, tmp_path, progress=False)
    assert second == report
    assert not any(parameter.requires_grad for parameter in model.parameters())
    state = model.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(state[name], value), name


def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "unet.safetensors"
    Checkpoint(path, "a", 1).save(3, {"x": torch.ones(2)})
    assert Checkpoint(path, "a", 1).load()[0] == 3
    with pytest.raises(BenchError, match="another recipe"):
        Checkpoint(path, "b", 1).load()
    assert Checkpoint(None, "a", 1).load() == (0, {})
    assert not Checkpoint(None, "a", 1).due(1, 1)
    assert [Checkpoint(path, "a", 3).due(n, 5) for n in range(1, 6)] == [0, 0, 1, 0, 1]


def test_learning_rate_factor() -> None:
    assert [cosine_rate(update, 10, 3) for update in range(3)] == [0.25, 0.5, 0.75]
    assert cosine_rate(3, 11, 3) == 1
    assert cosine_rate(7, 11, 3) == pytest.approx(0.5)
    assert cosine_rate(11, 11, 3) == pytest.approx(0, abs=1e-12)
    assert cosine_rate(5, 11, 3) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_average_follows_the_weights() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    state = TrainingState({"layer": layer}, {"lr": 0.1}, ema_decay=0.5)
    average = layer.weight.item()
    for update in range(12):
        state.step(layer(torch.ones(1, 1)).square().sum(), update, 1.0)
        decay = min(0.5, (1 + update) / (10 + update))
        average = decay * average + (1 - decay) * layer.weight.item()
    state.use_average()
    assert layer.weight.item() == pytest.approx(average, abs=1e-6)


@pytest.mark.parametrize("kind", ["vq", "kl"])
@torch.no_grad()
def test_normalising_latents_keeps_the_function(kind: str) -> None:
    first_stage = build_latent_diffusion(tiny(kind)).first_stage
    for name, parameter in first_stage.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(generator=generator("test", name))
    scenes = SceneSet(("ball",), 32, 0)
    images = torch.from_numpy(scenes.images(range(8)))
    floats = scenes.tensors(range(8))
    before = first_stage.decode(first_stage.encode(floats))
    first_stage_training.normalise(first_stage, images)
    latents = first_stage.encode(floats)
    assert torch.allclose(first_stage.decode(latents), before, atol=1e-3)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-4
    if kind == "vq":
        assert latents.std().item() == pytest.approx(1, abs=1e-4)


def test_scale_factor_gives_unit_variance() -> None:
    model = build_latent_diffusion(tiny("kl"))
    scenes = SceneSet(("church",), 32, 0)
    unet_training.set_scale_factor(model, scenes)
    count = unet_training.SCALE_FACTOR_IMAGES
    assert unet_training.encode_scenes(model, scenes, count).std().item() == pytest.approx(1)
    fixed = build_latent_diffusion(replace(tiny("kl"), scale_factor=0.5))
    unet_training.set_scale_factor(fixed, scenes)
    assert fixed.scale_factor.item() == 0.5


def test_noise_loss_of_a_silent_unet_is_the_mean_square_of_the_noise() -> None:
    model = build_latent_diffusion(tiny("vq"))  # its last convolution starts at zero
    latents, labels = torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    loss = unet_training.noise_loss(model, latents, labels, 0.1, generator("test"))
    random = generator("test")
    torch.randint(1000, (4,), generator=random)
    assert loss.item() == pytest.approx(
        torch.randn(4, 3, 8, 8, generator=random).square().mean().item()
    )


def test_dropped_labels_become_the_null_class(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_latent_diffusion(tiny("vq"))
    seen: list[torch.Tensor] = []
    context = model.context
    monkeypatch.setattr(model, "context", lambda labels: seen.append(labels) or context(labels))
    latents, labels = torch.zeros(400, 3, 4, 4), torch.ones(400, dtype=torch.long)
    with torch.no_grad():
        unet_training.noise_loss(model, latents, labels, 0.25, generator("test"))
    counts = seen[0].bincount(minlength=3).tolist()
    assert counts[0] == 0
    assert counts[1] + counts[2] == 400
    assert 70 < counts[2] < 130


def test_unused_codes_restart_from_encodings() -> None:
    first_stage: Any = build_latent_diffusion(tiny("vq")).first_stage
    settings = FirstStageRecipe(images=1, iterations=10, batch=1, learning_rate=1, restart_every=2)
    vectors = torch.randn(64, 3, generator=generator("test"))
    outcome = first_stage_training.Outcome(
        torch.zeros(()), torch.zeros(()), vectors, torch.tensor([3])
    )
    before = first_stage.quantize.embedding.weight.detach().clone()
    used = torch.zeros(16, dtype=torch.bool)
    restart = first_stage_training.restart_codes
    restart(first_stage, outcome, used, 1, settings, generator("test"))
    assert used.nonzero().flatten().tolist() == [3]
    restart(first_stage, outcome, used, 2, settings, generator("test"))
    after = first_stage.quantize.embedding.weight.detach()
    assert torch.equal(after[3], before[3])
    moved = [k for k in range(16) if k != 3]
    assert torch.cdist(after[moved], vectors).min(1).values.max() < 0.05
    assert not used.any()
    restart(first_stage, outcome, used, 8, settings, generator("test"))  # settled by then
    assert torch.equal(first_stage.quantize.embedding.weight, after)


def test_signal_to_noise_ratio() -> None:
    target = torch.zeros(2, 3, 4, 4)
    images = target + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)
    assert first_stage_training.psnr(images, target).tolist() == pytest.approx([20, 40], abs=1e-4)
