import dataclasses
import zipfile

import numpy as np
import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.evaluate.moments import Moments
from hqdm_bench.evaluate.published_batch import reference_from_batch
from hqdm_bench.evaluate.stand_in import random_pictures, write_stand_in_batch


@pytest.fixture(scope="module")
def protocol(toy_protocol):
    return dataclasses.replace(toy_protocol, reference_images=None, pr_reference_images=6)


@pytest.fixture
def batch(tmp_path, toy):
    path = tmp_path / "batch.npz"
    write_stand_in_batch(path, toy, images=10, resolution=32, seed=4)
    return path


def arrays_of(path):
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file}


def read(path, protocol, toy, resolution=32):
    return reference_from_batch(path, sha256_of(path), protocol, toy, resolution)


def test_the_layout_is_that_of_the_published_batch(batch):
    found = {key: (array.dtype.name, array.ndim) for key, array in arrays_of(batch).items()}
    assert found == {
        "arr_0": ("uint8", 4),
        "mu": ("float64", 1),
        "sigma": ("float64", 2),
        "mu_s": ("float32", 1),
        "sigma_s": ("float64", 2),
        "mu_clip": ("float32", 1),
        "sigma_clip": ("float64", 2),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_moments_are_those_stored_and_images_are_the_first(batch, protocol, toy, save):
    arrays = arrays_of(batch)
    arrays["sigma"] = (arrays["sigma"] + np.eye(6)).astype(np.float32)  # others than the images'
    save(batch, **arrays)
    reference, agreement = read(batch, protocol, toy)
    for name, part in (("", reference.pool), ("_s", reference.spatial)):
        assert part.mean.dtype == part.covariance.dtype == torch.float64
        np.testing.assert_array_equal(part.mean, arrays[f"mu{name}"].astype(np.float64))
        np.testing.assert_array_equal(part.covariance, arrays[f"sigma{name}"].astype(np.float64))
    features = toy(torch.from_numpy(arrays["arr_0"][:6]))
    torch.testing.assert_close(reference.pr_pool, features.pool)
    assert (reference.name, reference.images) == ("pictures", None)
    assert reference.source_sha256 == sha256_of(batch)
    assert reference.extractor_sha256 == toy.sha256
    assert agreement.fid > 0.1


def test_all_images_agree_with_their_own_moments(batch, protocol, toy):
    every = dataclasses.replace(protocol, pr_reference_images=10)
    agreement = read(batch, every, toy)[1]
    assert agreement.fid == pytest.approx(0, abs=1e-6)
    assert agreement.sfid == pytest.approx(0, abs=1e-5)  # its mean is stored as float32
    arrays = arrays_of(batch)
    order = [4, 3, 2, 1, 0]
    arrays |= {"mu_s": arrays["mu_s"][order], "sigma_s": arrays["sigma_s"][order][:, order]}
    np.savez(batch, **arrays)
    assert read(batch, every, toy)[1].sfid > 0.01  # another order of the spatial part


def with_array(key, change):
    def apply(arrays):
        return arrays | {key: change(arrays[key])}

    return apply


def without(*keys):
    return lambda arrays: {key: arrays[key] for key in arrays.keys() - set(keys)}


def spoilt(array):
    array = array.copy()
    array[0, 1] = np.nan
    return array


def skewed(array):
    array = array.copy()
    array[0, 1] += 1
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("mu", "sigma_s"), "it has no mu, sigma_s"),
        (without("arr_0"), "it has no arr_0"),
        (with_array("mu", lambda a: a[:5]), r"mu is float64 of shape \(5,\).*need.*\(6,\)"),
        (
            with_array("sigma_s", lambda a: a[:4, :4]),
            r"sigma_s is .* need floats of shape \(5, 5\)",
        ),
        (with_array("mu", lambda a: a.astype(np.int64)), "mu is int64"),
        (with_array("sigma", spoilt), "sigma holds values that are not finite"),
        (with_array("sigma_s", skewed), "sigma_s is not symmetric"),
        (with_array("arr_0", lambda a: a[:5]), "holds 5 images, protocol 'toy' asks for 6"),
        (with_array("arr_0", lambda a: a[:, :16]), "the model draws 32 x 32 x 3"),
        (with_array("arr_0", lambda a: a / 255), r"arr_0 is float64 of shape \(10, 32, 32, 3\)"),
        (with_array("arr_0", np.asfortranarray), "column-major"),
        (with_array("arr_0", lambda a: a.reshape(10, -1)), r"arr_0 is uint8 of shape \(10, 3072\)"),
    ],
)
def test_other_batches_are_refused(batch, protocol, toy, change, message):
    np.savez(batch, **change(arrays_of(batch)))
    with pytest.raises(BenchError, match=message):
        read(batch, protocol, toy)


def test_damaged_files_are_refused(batch, protocol, toy, tmp_path):
    with pytest.raises(BenchError, match="does not exist"):
        reference_from_batch(tmp_path / "none.npz", "", protocol, toy, 32)
    data = batch.read_bytes()
    batch.write_bytes(data[: len(data) // 2])
    with pytest.raises(BenchError, match="is not a whole .npz"):
        read(batch, protocol, toy)


def test_an_array_that_ends_early_is_refused(batch, protocol, toy):
    arrays = arrays_of(batch)
    np.savez(batch, **without("arr_0")(arrays))
    with zipfile.ZipFile(batch, "a") as archive, archive.open("arr_0.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10, 32, 32, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(3 * 32 * 32 * 3))
    with pytest.raises(BenchError, match="arr_0 ends after 3 images"):
        read(batch, protocol, toy)


def test_pickled_arrays_are_refused(batch, protocol, toy):
    arrays = arrays_of(batch) | {"mu": np.array([{}] * 6, dtype=object)}
    np.savez(batch, allow_pickle=True, **arrays)
    with pytest.raises(BenchError, match="is not a whole .npz"):
        read(batch, protocol, toy)


def test_the_stand_in_is_reproducible(batch, tmp_path, toy):
    again = tmp_path / "again.npz"
    write_stand_in_batch(again, toy, images=10, resolution=32, seed=4)
    assert sha256_of(again) == sha256_of(batch)
    arrays = arrays_of(batch)
    np.testing.assert_array_equal(arrays["arr_0"], random_pictures(range(10), 32, 32, 4))
    own = Moments.of(toy(torch.from_numpy(arrays["arr_0"])).pool)
    np.testing.assert_allclose(arrays["sigma"], own.covariance, rtol=1e-12)
