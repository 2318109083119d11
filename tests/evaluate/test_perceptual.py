import numpy as np
import pytest
import torch
from torch_fidelity import sample_similarity_lpips
from torchvision.models import vgg16

from hqdm_bench.common.errors import BenchError
from hqdm_bench.evaluate.perceptual import LINEAR_FILE, VGG_FILE, PerceptualDistance
from hqdm_bench.evaluate.stand_in import random_pictures

WIDTHS = (64, 128, 256, 512, 512)


@pytest.fixture(scope="module")
def state():
    """Random weights of VGG16's convolutions; the classifier is not used."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in vgg16().features.state_dict().items()}
    return {
        f"features.{name}": torch.randn(shape, generator=generator)
        * (2 / max(1, shape[1:].numel())) ** 0.5
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def linear():
    generator = torch.Generator().manual_seed(1)
    return {
        f"lin{number}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for number, width in enumerate(WIDTHS)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, state, linear):
    path = tmp_path_factory.mktemp("lpips")
    torch.save(state, path / VGG_FILE)
    torch.save(linear, path / LINEAR_FILE)
    return path


@pytest.fixture(scope="module")
def oracle(state, linear):
    """torch-fidelity's LPIPS with the same weights instead of downloaded ones."""

    def network():
        with torch.device("meta"):
            model = vgg16()
        features = {name.removeprefix("features."): value for name, value in state.items()}
        model.features.load_state_dict(features, assign=True)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_similarity_lpips, "torchvision_load_pretrained_vgg16", network)
        patch.setattr(sample_similarity_lpips, "load_state_dict_from_url", lambda *a, **k: linear)
        return sample_similarity_lpips.SampleSimilarityLPIPS("lpips-vgg16")


def test_torch_fidelity_with_the_same_weights(folder, oracle):
    a = random_pictures(range(3), 32, 40, 0)
    noise = torch.randint(-30, 30, a.shape, generator=torch.Generator().manual_seed(0))
    b = (a.int() + noise).clamp(0, 255).byte()
    b[2] = random_pictures(range(9, 10), 32, 40, 0)[0]
    distance = PerceptualDistance(folder, vgg_digest="")
    found = distance(a, b)
    wanted = oracle(*(images.permute(0, 3, 1, 2) for images in (a, b)))
    assert found.numpy() == pytest.approx(np.asarray(wanted).reshape(-1), rel=1e-4)
    assert found.min() > 0.01
    assert distance(a, a).tolist() == [0, 0, 0]
    assert distance.sha256.keys() == {VGG_FILE, LINEAR_FILE}


def test_other_files_are_refused(folder, linear, tmp_path):
    with pytest.raises(BenchError, match="does not begin with 397923af; get it again"):
        PerceptualDistance(folder)
    with pytest.raises(BenchError, match=r"vgg16-397923af.pth does not exist; LPIPS needs"):
        PerceptualDistance(tmp_path)
    torch.save({"features.0.weight": 3}, tmp_path / VGG_FILE)
    torch.save(linear, tmp_path / LINEAR_FILE)
    with pytest.raises(BenchError, match="features.0.weight is missing"):
        PerceptualDistance(tmp_path, vgg_digest="")
    (tmp_path / VGG_FILE).write_bytes(b"nothing")
    with pytest.raises(BenchError, match="is not a state dict"):
        PerceptualDistance(tmp_path, vgg_digest="")
