"""The feature classifier: layouts, resolutions, training."""

from pathlib import Path

import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.tensors import write_tensors
from hqdm_bench.models.mini.classifier import (
    ClassifierRecipe,
    MiniClassifier,
    initialised,
    load_classifier,
    save_classifier,
    train_classifier,
)
from hqdm_bench.models.mini.scenes import SCENES, SceneSet, to_tensor

TINY = ClassifierRecipe(
    classes=("ball", "stripes"), images=64, validation_images=40, iterations=25, batch=8, seed=1
)


@pytest.fixture(scope="module")
def classifier() -> MiniClassifier:
    return initialised(ClassifierRecipe()).eval()


@torch.no_grad()
def test_shapes_and_size(classifier: MiniClassifier) -> None:
    output = classifier(torch.zeros(5, 3, 32, 32))
    assert output.features.shape == (5, 64)
    assert output.spatial.shape == (5, 8 * 8 * 7)
    assert output.logits.shape == (5, len(SCENES))
    assert 0.1e6 < sum(parameter.numel() for parameter in classifier.parameters()) < 0.16e6


@torch.no_grad()
def test_bytes_and_floats_give_the_same(classifier: MiniClassifier) -> None:
    images = SceneSet(("ball", "house"), 32, 0).images(range(4))
    of_bytes, of_floats = classifier(torch.from_numpy(images)), classifier(to_tensor(images))
    for one, other in zip(of_bytes, of_floats, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@torch.no_grad()
def test_larger_images_are_averaged(classifier: MiniClassifier) -> None:
    small = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(classifier(large).features, classifier(small).features, atol=1e-5)


@torch.no_grad()
def test_spatial_map_is_height_width_channel(classifier: MiniClassifier) -> None:
    seen: list[torch.Tensor] = []
    hook = classifier.norms[3].register_forward_hook(lambda *call: seen.append(call[2]))
    spatial = classifier(SceneSet(("ball", "house"), 32, 0).tensors(range(2))).spatial
    hook.remove()
    hidden = torch.nn.functional.silu(seen[0])
    assert hidden.shape == (2, 64, 8, 8)
    for row, column, channel in ((0, 0, 0), (0, 3, 6), (5, 0, 2), (7, 7, 6)):
        place = (row * 8 + column) * 7 + channel
        assert torch.equal(spatial[:, place], hidden[:, channel, row, column])


@torch.no_grad()
def test_features_do_not_depend_on_the_batch(classifier: MiniClassifier) -> None:
    images = SceneSet(("tree",), 32, 0).tensors(range(6))
    alone = torch.cat([classifier(image[None]).features for image in images])
    assert torch.allclose(classifier(images).features, alone, atol=1e-5)


def test_training_learns_and_repeats(tmp_path: Path) -> None:
    model, report = train_classifier(TINY, progress=False)
    assert report["accuracy"] > 0.9
    assert report["classes"] == ["ball", "stripes"]
    again, second = train_classifier(TINY, progress=False)
    assert second == report
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    save_classifier(model, tmp_path / "classifier.safetensors", report)
    loaded, metadata = load_classifier(tmp_path / "classifier.safetensors")
    assert metadata == report
    assert torch.equal(loaded.head.weight, model.head.weight)
    assert not loaded.training


def test_bad_input_is_refused(classifier: MiniClassifier, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="multiple of 32"):
        classifier(torch.zeros(1, 3, 48, 48))
    with pytest.raises(BenchError, match="multiple of 32"):
        classifier(torch.zeros(1, 3, 64, 32))
    with pytest.raises(BenchError, match="wants uint8"):
        classifier(torch.zeros(1, 1, 32, 32))
    with pytest.raises(BenchError, match="unknown classifier recipe keys.*epochs"):
        ClassifierRecipe.from_dict({"epochs": 3})
    write_tensors(tmp_path / "other.safetensors", {"weight": torch.zeros(1)}, {})
    with pytest.raises(BenchError, match="does not hold a classifier"):
        load_classifier(tmp_path / "other.safetensors")
