import dataclasses
import io
import zipfile

import numpy as np
import pytest
import torch

from hqdm_bench.common.errors import BenchError
from hqdm_bench.sample import (
    NO_LABEL,
    Samples,
    export_shards,
    open_archive,
    write_shard,
)


def part(first, count, label=0):
    random = np.random.default_rng(first)
    index = np.arange(first, first + count, dtype=np.int64)
    images = random.integers(0, 256, (count, 5, 6, 3), dtype=np.uint8)
    return Samples(images, index * 0 + label, index, np.zeros((count, 3, 1, 1), np.float32))


def write(folder, parts):
    paths = [folder / f"shard{k}.npz" for k in range(len(parts))]
    for path, samples in zip(paths, parts, strict=True):
        write_shard(path, samples)
    return paths


@pytest.fixture
def parts():
    return [part(0, 4, 7), part(4, 1, 8), part(5, 6, 7)]


def test_shards_become_one_archive_that_numpy_reads(parts, tmp_path):
    target = tmp_path / "all.npz"
    export_shards(write(tmp_path, parts), 11, target)
    with np.load(target, allow_pickle=False) as file:
        assert sorted(file) == ["arr_0", "arr_1"]
        assert np.array_equal(file["arr_0"], np.concatenate([p.images for p in parts]))
        assert file["arr_1"].dtype == np.int64
        assert file["arr_1"].tolist() == [7] * 4 + [8] + [7] * 6
    with zipfile.ZipFile(target) as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    first = target.read_bytes()
    export_shards(write(tmp_path / "again", parts), 11, target)
    assert target.read_bytes() == first


def test_it_is_what_numpy_writes(parts, tmp_path):
    """Member by member the same bytes, under the names that unnamed arrays get."""
    export_shards(write(tmp_path, parts), 11, tmp_path / "all.npz")
    np.savez(
        tmp_path / "numpy.npz",
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.labels for p in parts]),
    )
    ours, theirs = (zipfile.ZipFile(tmp_path / f"{name}.npz") for name in ("all", "numpy"))
    with ours, theirs:
        assert ours.namelist() == theirs.namelist()
        for name in ours.namelist():
            assert ours.read(name) == theirs.read(name)


def test_an_unconditional_set_has_no_labels(tmp_path):
    export_shards(write(tmp_path, [part(0, 3, NO_LABEL)]), 3, tmp_path / "all.npz")
    archive = open_archive(tmp_path / "all.npz")
    assert archive.keys == {"arr_0"}
    assert archive.labels() is None


@pytest.mark.parametrize(
    ("change", "images", "message"),
    [
        (lambda parts: parts[:2], 11, "hold 5 images, expected 11"),
        (lambda parts: parts[::-1], 11, "starts with image 5, expected 0"),
        (
            lambda parts: [
                parts[0],
                dataclasses.replace(parts[1], images=np.zeros((1, 6, 6, 3), np.uint8)),
            ],
            5,
            r"image 4 is of shape \(6, 6, 3\), those before of \(5, 6, 3\)",
        ),
    ],
)
def test_an_incomplete_set_leaves_nothing(parts, tmp_path, change, images, message):
    with pytest.raises(BenchError, match=message):
        export_shards(write(tmp_path, change(parts)), images, tmp_path / "out" / "all.npz")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_images_are_streamed(parts, tmp_path, save, batch):
    images = np.concatenate([p.images for p in parts])
    save(tmp_path / "all.npz", arr_0=images, mu=np.zeros(3), arr_1=np.arange(11, dtype=np.int32))
    archive = open_archive(tmp_path / "all.npz")
    assert (len(archive), archive.shape) == (11, (11, 5, 6, 3))
    assert archive.keys == {"arr_0", "arr_1", "mu"}
    batches = list(archive.images(batch))
    assert max(map(len, batches)) <= batch
    assert np.array_equal(torch.cat(batches), images)
    assert len(torch.cat(list(archive.images(batch, 5)))) == 5
    assert archive.labels().tolist() == list(range(11))
    assert archive.array("mu").tolist() == [0, 0, 0]


def damaged(path):
    data = bytearray(path.read_bytes())
    data[400] ^= 255  # in the pixels: the checksum of the member does not fit
    path.write_bytes(data)


def headed(path, shape, header=b""):
    """Three images under a header that says something else."""
    file = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    if header:
        file = io.BytesIO(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", file.getvalue() + bytes(3 * 5 * 6 * 3))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "is not a whole .npz"),
        (lambda path: path.write_text("no archive"), "is not a whole .npz"),
        (lambda path: path.unlink(), "does not exist; name an .npz"),
        (lambda path: np.savez(path, arr_0=np.zeros((3, 5, 6, 3))), "arr_0 is float64 of shape"),
        (lambda path: np.savez(path, arr_0=np.zeros((3, 5, 6), np.uint8)), r"of shape \(3, 5, 6\)"),
        (
            lambda path: np.savez(path, arr_0=np.asfortranarray(np.zeros((3, 5, 6, 3), np.uint8))),
            "column-major",
        ),
        (lambda path: np.savez(path, arr_0=np.zeros((3, 3, 5, 6), np.uint8)), r"\(3, 3, 5, 6\)"),
        (lambda path: np.savez(path, arr_0=np.array([None])), "arr_0 is object"),
        (damaged, "is not a whole .npz"),
        (lambda path: headed(path, (-3, 5, 6, 3)), r"says it is of shape \(-3, 5, 6, 3\)"),
        (lambda path: np.savez(path, arr_0=np.zeros((3, 0, 0, 3), np.uint8)), "no images are"),
        (lambda path: headed(path, (2, 5, 6, 3)), "arr_0 holds more than its 2 images"),
        (lambda path: headed(path, (9, 5, 6, 3)), "arr_0 ends after 3 images"),
        (lambda path: headed(path, (2, 5, 6, 3), bytes(9000)), r"^.{0,400}$"),
        (
            lambda path: np.savez(path, arr_0=np.zeros((3, 5, 6, 3), np.uint8), arr_1=np.zeros(2)),
            r"arr_1 is float64 of shape \(2,\); labels are one integer for each of the 3",
        ),
    ],
)
def test_one_message_for_a_bad_file(parts, tmp_path, spoil, message):
    path = tmp_path / "all.npz"
    np.savez(path, arr_0=parts[2].images)
    spoil(path)
    with pytest.raises(BenchError, match=message) as caught:
        archive = open_archive(path)
        archive.labels()
        list(archive.images(2))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
