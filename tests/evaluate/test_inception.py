import socket

import pytest
import torch
import torch_fidelity
from torch.utils.data import Dataset

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.common.tensors import read_metadata, write_tensors
from hqdm_bench.evaluate.class_scores import inception_score
from hqdm_bench.evaluate.exact import exact_float32
from hqdm_bench.evaluate.extractors import InceptionExtractor, load_extractor
from hqdm_bench.evaluate.frechet import frechet_distance
from hqdm_bench.evaluate.inception import convert_inception, read_inception_weights
from hqdm_bench.evaluate.inception_network import inception_shapes
from hqdm_bench.evaluate.moments import Moments
from hqdm_bench.evaluate.neighbours import precision_recall
from hqdm_bench.evaluate.stand_in import random_pictures, stand_in_inception

NAME = "inception-v3-compat"


@pytest.fixture(scope="module")
def images():
    """Smooth pictures; noise keeps them from being alike."""
    smooth = random_pictures(range(8), 64, 64, 3).int()
    noise = torch.randint(-60, 61, smooth.shape, generator=torch.Generator().manual_seed(0))
    return (smooth + noise).clamp(0, 255).byte()


@pytest.fixture(scope="module")
def found(inception, images):
    return inception(images)


@pytest.fixture(scope="module")
def oracle(inception_weights):
    """torch-fidelity's own extractor, built its own way."""
    return torch_fidelity.utils.create_feature_extractor(
        NAME,
        ["2048", "logits_unbiased"],
        cuda=False,
        verbose=False,
        feature_extractor_weights_path=str(inception_weights),
    )


def test_the_published_layout_has_566_tensors_of_23885486_numbers():
    shapes = inception_shapes()
    assert len(shapes) == 566
    assert sum(shape.numel() for _, shape in shapes.values()) == 23_885_486


def test_outputs_are_those_of_torch_fidelity(oracle, found, images):
    kept = []
    handle = oracle.Mixed_6d.register_forward_hook(lambda _, inputs, output: kept.append(output))
    pool, logits = oracle(images.permute(0, 3, 1, 2))
    handle.remove()
    block = kept[0][:, :7]
    assert block.shape == (8, 7, 17, 17)
    torch.testing.assert_close(found.pool, pool, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logits, logits, rtol=0, atol=1e-5)
    height_width_channel = block.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(found.spatial, height_width_channel, rtol=0, atol=1e-5)
    assert (found.spatial - block.flatten(1)).abs().max() > 0.1  # C, H, W is another order
    assert [part.shape[1] for part in found[:3]] == [2048, 2023, 1008]
    assert all(part.dtype == torch.float32 for part in found[:3])


class Pictures(Dataset):
    def __init__(self, images):
        self._images = images.permute(0, 3, 1, 2).contiguous()

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return self._images[index]


@pytest.mark.slow  # eigenvalues of 2048 x 2048 matrices
def test_metrics_are_those_of_torch_fidelity(inception, inception_weights, found, images):
    real = images.flip(2)[:6].roll(1, 3)
    wanted = torch_fidelity.calculate_metrics(
        input1=Pictures(images),
        input2=Pictures(real),
        feature_extractor=NAME,
        feature_extractor_weights_path=str(inception_weights),
        fid=True,
        isc=True,
        isc_splits=2,
        samples_shuffle=False,
        prc=True,
        prc_neighborhood=3,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    other = inception(real)
    distance = frechet_distance(Moments.of(found.pool), Moments.of(other.pool))
    assert distance == pytest.approx(wanted["frechet_inception_distance"], rel=1e-4)
    score = inception_score(found.logits, 4)
    assert score == pytest.approx(wanted["inception_score_mean"], rel=1e-6)
    shares = precision_recall(found.pool, other.pool, 3)
    assert shares == pytest.approx((wanted["precision"], wanted["recall"]))


def test_the_batch_changes_nothing_but_rounding(inception, found, images, monkeypatch):
    monkeypatch.setattr("hqdm_bench.evaluate.inception.LARGEST_BATCH", 2)
    for part, whole in zip(inception(images[:3])[:3], found[:3], strict=True):
        torch.testing.assert_close(part, whole[:3], rtol=1e-5, atol=1e-5)


def test_building_it_opens_no_connection_and_draws_no_random_numbers(
    inception_weights, inception, monkeypatch
):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = torch.get_rng_state()
    path = inception_weights.with_name("extractor.safetensors")
    again = load_extractor("inception", path, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert again.sha256 == inception.sha256 == sha256_of(inception_weights)
    assert read_metadata(path) == {"name": "inception", "source_sha256": inception.sha256}


def test_tf32_is_off_inside_and_as_it_was_after():
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
        with exact_float32():
            assert not torch.backends.cudnn.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.backends.cudnn.allow_tf32 = before
        torch.set_float32_matmul_precision("highest")


def small_state(**changes):
    """The right names and shapes, without 95 MB on disk: one number, expanded."""
    state = {
        name: torch.zeros((), dtype=dtype).expand(shape)
        for name, (dtype, shape) in inception_shapes().items()
    }
    return state | changes


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "holds a list"),
        ({"fc.bias": torch.zeros(1008)}, "lacks 565, the first is Conv2d_1a_3x3.bn.bias"),
        (small_state(extra=torch.zeros(1)), "has unknown 1, the first is extra"),
        (
            small_state(**{"fc.bias": torch.zeros(1000)}),
            r"fc.bias is torch.float32 \(1000,\), expected torch.float32 \(1008,\)",
        ),
        (small_state(**{"fc.bias": torch.zeros(1008).half()}), "fc.bias is torch.float16"),
        (small_state(**{"fc.bias": 3}), "fc.bias is int"),
    ],
)
def test_other_weights_are_refused(tmp_path, state, message):
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(BenchError, match=message):
        read_inception_weights(path, sha256_of(path))


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_not_executed(tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    for legacy in (False, True):
        torch.save({"fc.bias": Malicious(trace)}, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(BenchError, match="is not a state dict of tensors"):
            read_inception_weights(path, sha256_of(path))
        assert not trace.exists()


def test_damaged_files_are_refused(tmp_path, inception_weights):
    path = tmp_path / "weights.pth"
    path.write_bytes(inception_weights.read_bytes()[:10_000_000])
    with pytest.raises(
        BenchError, match=r"has sha256 \w+, expected 00.*hqdm-bench fetch inception"
    ):
        convert_inception(path, "0" * 64, tmp_path / "e.safetensors")
    with pytest.raises(BenchError, match="is not a state dict"):
        convert_inception(path, sha256_of(path), tmp_path / "e.safetensors")
    assert not (tmp_path / "e.safetensors").exists()
    write_tensors(tmp_path / "e.safetensors", {"fc.bias": torch.zeros(1)}, {})
    with pytest.raises(BenchError, match="does not hold Inception weights"):
        InceptionExtractor(tmp_path / "e.safetensors")


def test_stand_in_weights_keep_activations_alive(found):
    assert torch.equal(stand_in_inception(1)["fc.bias"], stand_in_inception(1)["fc.bias"])
    assert all(part.isfinite().all() for part in found[:3])
    assert (found.pool > 0).float().mean() > 0.3
    assert found.pool.std(0).mean() > 0.01  # images differ
