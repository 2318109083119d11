"""Extractor, reference and scores, from artefacts to metrics files."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from hqdm_bench.catalogue import Bits, Cell, Layout, load_catalogue
from hqdm_bench.cli import main
from hqdm_bench.common.files import read_json, sha256_of
from hqdm_bench.evaluate.bootstrap import read_replicates
from hqdm_bench.evaluate.extractors import MiniExtractor
from hqdm_bench.evaluate.features import read_features
from hqdm_bench.evaluate.reference import read_reference
from hqdm_bench.evaluate.stand_in import (
    random_pictures,
    write_stand_in_batch,
    write_stand_in_inception,
    write_stand_in_lsun,
)
from hqdm_bench.sample import Samples, write_shard

ROOT = Path(__file__).parents[2]
SIDE, IMAGES, CHURCHES = 32, 24, 12


def edit(path, change):
    entries = yaml.safe_load(path.read_text())
    change(entries)
    path.write_text(yaml.safe_dump(entries))


def shrink_protocols(entries):
    for entry in entries.values():
        sizes = {"images": IMAGES, "batch": 8, "shards": 2, "pr_reference_images": 6}
        entry.update(sizes, is_split=IMAGES, extractor="mini-classifier")
        entry.update(bootstrap=5, trace_images=10)
        if entry["reference_images"] is not None:
            entry["reference_images"] = CHURCHES if entry["reference"] == "lsun-churches" else 20


def shrink_models(entries):
    for entry in entries.values():
        entry["first_stage"]["ddconfig"]["resolution"] = SIDE


def forget_digests(entries):
    for entry in entries.values():
        entry.update(sha256=None, bytes=None)


@pytest.fixture
def project(tmp_path):
    """Every model at 32 pixels and a few images; the paper's measured with the small classifier."""
    config = tmp_path / "config"
    shutil.copytree(ROOT / "config", config)
    (config / "artefacts.lock.json").unlink(missing_ok=True)
    edit(config / "protocols.yaml", shrink_protocols)
    edit(config / "models.yaml", shrink_models)
    edit(config / "artefacts.yaml", forget_digests)
    for path in (config / "suites").glob("*.yaml"):
        edit(path, lambda suite: suite.update(extractor="mini-classifier"))
    return tmp_path


def run(root, verb, suite, model=None, *more):
    named = [] if model is None else ["--model", model]
    return main([verb, "--suite", suite, *named, *more, "--root", str(root)])


def artefact(root, name):
    path = Layout(root).artefact(load_catalogue(root).artefact(name))
    path.parent.mkdir(exist_ok=True)
    return path


@pytest.fixture
def measured(project):
    """With the extractor of suite paper."""
    assert run(project, "extractor", "paper") == 0
    return project


def test_a_published_batch_becomes_a_reference(measured, capsys):
    layout = Layout(measured)
    path = artefact(measured, "adm-imagenet256")
    extractor = MiniExtractor(layout.extractor("paper"))
    write_stand_in_batch(path, extractor, images=10, resolution=SIDE, seed=0)
    assert run(measured, "reference", "paper", "imagenet") == 0
    message = capsys.readouterr().err
    assert "its 6 images against its stored moments: FID " in message
    reference = read_reference(layout.reference("paper", "imagenet"))
    assert (reference.name, reference.images) == ("adm-imagenet256", None)
    assert len(reference.pr_pool) == 6
    assert reference.source_sha256 == sha256_of(path)
    assert read_json(layout.artefact_lock)["adm-imagenet256"]["sha256"] == sha256_of(path)

    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run(measured, "reference", "paper", "imagenet") == 2
    assert "adm-imagenet256" in capsys.readouterr().err


def test_images_become_a_reference_from_their_archive_or_a_folder(measured, capsys):
    layout = Layout(measured)
    path = artefact(measured, "lsun-churches")
    write_stand_in_lsun(path, CHURCHES, seed=0, resolution=SIDE)
    assert run(measured, "reference", "paper", "churches", "--device", "cpu") == 0
    target = layout.reference("paper", "churches")
    first = sha256_of(target)
    reference = read_reference(target)
    assert (reference.name, reference.images) == ("lsun-churches", CHURCHES)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    shutil.unpack_archive(path, measured / "unpacked", "zip")
    folder = measured / "unpacked" / "church_outdoor_train_lmdb"
    path.unlink()
    assert run(measured, "reference", "paper", "churches", "--images", str(folder)) == 0
    assert sha256_of(target) == first

    write_stand_in_lsun(path, CHURCHES - 1, seed=0, resolution=SIDE)
    assert run(measured, "reference", "paper", "churches", "--images", str(path)) == 2
    assert "holds 11 images; reference 'lsun-churches'" in capsys.readouterr().err


def test_what_is_missing_is_named(measured, capsys):
    for model, name in (("imagenet", "adm-imagenet256"), ("churches", "lsun-churches")):
        assert run(measured, "reference", "paper", model) == 2
        assert f"`hqdm-bench fetch {name}` gets it" in capsys.readouterr().err
    assert run(measured, "reference", "search", "churches") == 2
    assert "extractor.safetensors does not exist; `snakemake " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("suite", "model", "message"),
    [
        ("paper", "imagenet", "'adm-imagenet256' of 'imagenet' is a published batch"),
        ("smoke", "mini-bedrooms", "'scenes' of 'mini-bedrooms' is drawn by this project"),
    ],
)
def test_images_of_ones_own_are_for_models_without_a_published_batch(
    project, capsys, suite, model, message
):
    assert run(project, "reference", suite, model, "--images", str(project)) == 2
    assert message in capsys.readouterr().err


def test_inception_is_converted_and_remembers_its_source(project, capsys):
    config = project / "config"
    shutil.copy(ROOT / "config" / "protocols.yaml", config / "protocols.yaml")
    shutil.copy(ROOT / "config" / "suites" / "paper.yaml", config / "suites" / "paper.yaml")
    for path in (config / "suites").glob("*.yaml"):
        shutil.copy(ROOT / "config" / "suites" / path.name, path)
    assert run(project, "extractor", "paper") == 2
    assert "`hqdm-bench fetch inception` gets it" in capsys.readouterr().err
    path = artefact(project, "inception")
    write_stand_in_inception(path, seed=0)
    assert run(project, "extractor", "paper") == 0
    target = Layout(project).extractor("paper")
    assert read_json(target.with_suffix(".json")) == {
        "name": "inception",
        "source_sha256": sha256_of(path),
        "origin": "published",
    }
    assert target.is_file()


def draw(root, cell, seed):
    """Random pictures in the place of a cell's images."""
    layout, pictures = Layout(root), random_pictures(range(IMAGES), SIDE, SIDE, seed).numpy()
    for shard in range(2):
        rows = slice(8, 24) if shard else slice(0, 8)
        index = np.arange(IMAGES)[rows]
        latents = np.full((len(index), 3, 8, 8), seed, np.float32)
        traced = len(range(rows.start, min(rows.stop, 10)))
        steps = 20 if cell.protocol.endswith("-20") else 10
        trace = np.full((traced, steps, 3, 8, 8), seed, np.float32)
        samples = Samples(pictures[rows], np.zeros_like(index), index, latents, trace)
        write_shard(layout.shard(cell, shard), samples)


def evaluate(root, cell, *more):
    names = ["--method", cell.method, "--bits", str(cell.bits), *more]
    return run(root, "evaluate", "smoke", "mini-imagenet", *names)


def test_cells_are_scored_under_the_protocol_named(project, capsys):
    def cell(method, bits, protocol):
        return Cell("smoke", "mini-imagenet", method, Bits.parse(bits), 0, protocol)

    fp = cell("fp", "w32a32", "smoke-imagenet")
    baseline = cell("fp", "w32a32", "smoke-imagenet-20")
    student = cell("hqdm", "w4a4", "smoke-imagenet")
    assert run(project, "extractor", "smoke") == 0
    assert run(project, "reference", "smoke", "mini-imagenet") == 0
    for seed, each in enumerate((fp, baseline, student)):
        draw(project, each, seed)
    assert evaluate(project, fp) == 0
    assert evaluate(project, baseline, "--protocol", "smoke-imagenet-20", "--device", "cpu") == 0
    assert evaluate(project, student, "--protocol", "smoke-imagenet") == 0
    layout = Layout(project)
    found = [read_json(layout.metrics(each)) for each in (fp, baseline, student)]
    assert [each["protocol"]["steps"] for each in found] == [10, 20, 10]
    assert [each["paired"] is None for each in found] == [True, True, False]
    assert found[2]["paired"]["latent_mse_mean"] == 4.0  # of the same protocol: (2 - 0)^2
    growth = found[2]["paired"]["growth"]
    assert [entry["timestep"] for entry in growth] == list(range(901, 0, -100))
    assert {entry["latent_mse_median"] for entry in growth} == {4.0}
    replicates = read_replicates(layout.replicates(student))
    assert {value.shape for value in replicates.values()} == {(5,)}
    assert found[2]["standard_errors"]["fid"] == pytest.approx(float(replicates["fid"].std()))
    assert len({each["values"]["fid"] for each in found}) == 3
    assert len(read_features(layout.features(baseline))) == IMAGES

    assert evaluate(project, student, "--protocol", "smoke-imagenet-20") == 2
    assert "baselines of mini-imagenet: smoke-imagenet-20" in capsys.readouterr().err
    assert evaluate(project, fp, "--protocol", "other") == 2
    assert "unknown protocol 'other'" in capsys.readouterr().err


def test_a_reference_of_another_protocol_is_refused(project, capsys):
    baseline = Cell("smoke", "mini-imagenet", "fp", Bits(32, 32), 0, "smoke-imagenet-20")
    assert run(project, "extractor", "smoke") == 0
    assert run(project, "reference", "smoke", "mini-imagenet") == 0
    draw(project, baseline, 0)
    edit(
        project / "config" / "protocols.yaml",
        lambda entries: entries["smoke-imagenet-20"].update(reference_images=21),
    )
    assert evaluate(project, baseline, "--protocol", "smoke-imagenet-20") == 2
    message = capsys.readouterr().err
    assert "'smoke-imagenet-20' asks for 21 reference images, got 20" in message
    assert not Layout(project).metrics(baseline).exists()
