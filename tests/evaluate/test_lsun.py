import dataclasses
import io
import shutil
import tempfile
import zipfile
from collections import namedtuple

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of
from hqdm_bench.common.seeds import generator
from hqdm_bench.evaluate.lsun import (
    decode_batches,
    open_images,
    prepare_image,
    reference_from_lsun,
)
from hqdm_bench.evaluate.moments import Moments
from hqdm_bench.evaluate.stand_in import random_pictures, write_stand_in_lsun

COUNT = 20


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("lsun") / "church.zip"
    write_stand_in_lsun(path, COUNT, seed=2, resolution=32)
    return path


@pytest.fixture(scope="module")
def folder(archive):
    """The unpacked database."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(archive.parent)
    return archive.parent / "church_outdoor_train_lmdb"


def values_of(folder):
    """What another reader of the database sees."""
    with (
        lmdb.open(str(folder), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return dict(transaction.cursor())


def encoded(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(256, 256), (256, 341), (256, 342), (341, 256), (7, 4), (4, 7), (5, 5)]
)
def test_the_crop_is_that_of_the_training_loader(height, width):
    """There: rows (h - s) // 2 to (h + s) // 2 and columns alike, s the shorter side."""
    image = picture(height, width)
    side = min(height, width)
    rows = slice((height - side) // 2, (height + side) // 2)
    columns = slice((width - side) // 2, (width + side) // 2)
    found = prepare_image(encoded(image), "x", side)
    np.testing.assert_array_equal(found, image[rows, columns])
    assert found.dtype == torch.uint8


@pytest.mark.parametrize("side", [20, 45])
def test_other_sizes_are_resized_by_bicubic_interpolation(side):
    image = picture(33, 30)
    square = Image.fromarray(image[1:31])  # 3 rows too many: one above, two below
    found = prepare_image(encoded(image), "x", side)
    np.testing.assert_array_equal(found, square.resize((side, side), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb(mode):
    image = Image.fromarray(picture(8, 8)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    found = prepare_image(buffer.getvalue(), "x", 8)
    np.testing.assert_array_equal(found, image.convert("RGB"))


def test_the_database_comes_in_its_own_order(archive, folder):
    values = values_of(folder)
    assert len(values) == COUNT
    for path in (archive, folder):
        with open_images(path) as images:
            assert [name.encode() for name in images.names] == list(values)
            assert [images.read(name) for name in images.names] == list(values.values())
    assert not list(archive.parent.glob(".church*"))  # nothing unpacked is left


def test_stored_sides_are_as_published(folder):
    sizes = [Image.open(io.BytesIO(value)).size for value in values_of(folder).values()]
    assert {min(size) for size in sizes} == {32}
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)


@pytest.fixture
def files(tmp_path):
    """Image files in a folder and in a zip."""
    folder = tmp_path / "pictures"
    for number, name in enumerate(("b/2.JPG", "b/10.webp", "a.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"JPG": "JPEG", "webp": "WEBP", "png": "PNG"}[name.split(".")[1]]
        path.write_bytes(encoded(picture(9, 8, number), kind))
    (folder / "readme.txt").write_text("no image")
    return folder, shutil.make_archive(tmp_path / "pictures", "zip", folder)


def test_files_come_sorted_by_name(files):
    folder, archive = files
    for path in (folder, folder.parent / archive):
        with open_images(path) as images:
            assert images.names == ["a.png", "b/10.webp", "b/2.JPG"]
            assert images.read("a.png") == (folder / "a.png").read_bytes()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 6, 20, 50])
def test_batches_are_in_order_whatever_the_threads(folder, batch, threads):
    with open_images(folder) as images:
        wanted = [prepare_image(images.read(name), name, 16) for name in images.names]
        parts = list(decode_batches(images, 16, batch, threads))
    assert [len(part) for part in parts[:-1]] == [batch] * (len(parts) - 1)
    assert torch.equal(torch.cat(parts), torch.stack(wanted))


def test_the_reference_is_of_all_images(archive, folder, toy, toy_protocol):
    found = reference_from_lsun(archive, toy_protocol, toy, 32, threads=2)
    images = [prepare_image(value, "x", 32) for value in values_of(folder).values()]
    features = toy(torch.stack(images))
    for gaussian, points in ((found.pool, features.pool), (found.spatial, features.spatial)):
        wanted = Moments.of(points)
        torch.testing.assert_close(gaussian.mean, wanted.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(gaussian.covariance, wanted.covariance, rtol=0, atol=1e-12)
    chosen = torch.randperm(COUNT, generator=generator("reference-images", 0))[:6].sort().values
    assert chosen.tolist() != list(range(6))
    torch.testing.assert_close(found.pr_pool, features.pool[chosen])
    assert (found.images, found.name) == (COUNT, "pictures")


def test_another_number_of_images_is_refused_before_any_is_decoded(folder, toy, toy_protocol):
    protocol = dataclasses.replace(toy_protocol, reference_images=126227)
    with pytest.raises(BenchError, match="holds 20 images; .* is made of 126227"):
        reference_from_lsun(folder, protocol, None, 32)


def test_an_image_that_cannot_be_decoded_is_named(toy, toy_protocol, files, tmp_path):
    folder = files[0]
    good = (folder / "a.png").read_bytes()
    for damaged in (good[: len(good) // 2], b"", b"<html>"):
        (folder / "a.png").write_bytes(damaged)
        protocol = dataclasses.replace(toy_protocol, reference_images=3, pr_reference_images=1)
        with pytest.raises(BenchError, match="image a.png cannot be decoded"):
            reference_from_lsun(folder, protocol, toy, 8, threads=2)


def error_of(path):
    with pytest.raises(BenchError) as caught, open_images(path):
        pass
    return str(caught.value)


def test_sources_without_images_are_refused(tmp_path, folder):
    assert "does not exist" in error_of(tmp_path / "none")
    assert "holds no images: neither data.mdb nor any of .jpeg, .jpg" in error_of(tmp_path)
    path = tmp_path / "other.zip"
    path.write_text("<html>not found</html>")
    assert "is not a whole zip" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    assert "holds no images" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.mdb", "1")
        archive.writestr("b/data.mdb", "2")
    assert "holds 2 databases" in error_of(path)


def test_damaged_databases_are_refused(tmp_path, folder, archive):
    database = tmp_path / "data.mdb"
    database.write_bytes(b"x" * 10000)
    assert "data.mdb is not an LMDB database" in error_of(tmp_path)
    whole = (folder / "data.mdb").read_bytes()
    database.write_bytes(whole[: len(whole) - 4096])
    assert f"is truncated: {len(whole) - 4096} of {len(whole)} bytes" in error_of(tmp_path)
    path = tmp_path / "church.zip"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert "data.mdb is damaged" in error_of(path)
    assert not list(tmp_path.glob(".church*"))


def test_without_room_nothing_is_unpacked(archive, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**30, 2**30, 2**20))
    message = error_of(archive)
    assert f"for which neither {archive.parent} nor {tempfile.gettempdir()} has room" in message
    assert not list(archive.parent.glob(".church*"))


def test_it_is_unpacked_among_temporary_files_if_only_there_is_room(archive, monkeypatch, tmp_path):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda at: Usage(0, 0, 0 if at == archive.parent else 2**40)
    )
    with open_images(archive) as images:
        assert len(images) == COUNT
        assert len(list(tmp_path.glob(".church*/data.mdb"))) == 1
    assert not list(tmp_path.iterdir())


def test_stand_ins_are_reproducible(archive, tmp_path):
    write_stand_in_lsun(tmp_path / "again.zip", COUNT, seed=2, resolution=32)
    assert sha256_of(tmp_path / "again.zip") == sha256_of(archive)
    write_stand_in_lsun(tmp_path / "other.zip", COUNT, seed=3, resolution=32)
    assert sha256_of(tmp_path / "other.zip") != sha256_of(archive)
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == [
            "church_outdoor_train_lmdb/data.mdb",
            "church_outdoor_train_lmdb/lock.mdb",
        ]
    both = random_pictures(range(5), 8, 9, 1)
    assert torch.equal(random_pictures(range(3, 5), 8, 9, 1), both[3:])
