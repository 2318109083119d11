import shutil
from pathlib import Path

import pytest
import yaml

from hqdm_bench.catalogue import Bits, Layout, load_catalogue
from hqdm_bench.common.errors import BenchError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def edit(name, change):
        path = tmp_path / "config" / name
        value = yaml.safe_load(path.read_text())
        change(value)
        path.write_text(yaml.safe_dump(value, sort_keys=False))
        return tmp_path

    return edit


def test_every_cell_of_the_papers_tables_is_in_the_paper_suite():
    suite = load_catalogue(ROOT).suite("paper")
    held = {(cell.model, cell.method, str(cell.bits)) for cell in suite.cells}
    pairs = {
        "imagenet": ["w8a8", "w8a4", "w4a8", "w4a4", "w4a3", "w8a3"],
        "bedrooms": ["w8a4", "w4a4", "w3a4", "w2a4", "w4a3"],
        "churches": ["w4a4", "w4a3"],
    }
    for model, widths in pairs.items():
        assert (model, "fp", "w32a32") in held
        for bits in widths:
            assert {(model, "hqdm", bits), (model, "efficientdm", bits)} <= held
    assert {("imagenet", f"hqdm-k{k}", "w4a4") for k in (3, 4, 6)} <= held


def test_mini_headline_cells_have_three_seeds():
    suite = load_catalogue(ROOT).suite("mini")
    for bits in ("w4a4", "w4a3", "w8a3"):
        for method in ("hqdm", "efficientdm"):
            seeds = {
                cell.seed
                for cell in suite.cells
                if (cell.model, cell.method, str(cell.bits)) == ("mini-imagenet", method, bits)
            }
            assert len(seeds) >= 3


def test_paths_follow_the_documented_layout():
    suite = load_catalogue(ROOT).suite("mini")
    cell = suite.cell("mini-imagenet", "hqdm", Bits(4, 4), 1)
    layout = Layout(Path("root"))
    assert layout.student(cell) == Path(
        "root/results/mini/mini-imagenet/hqdm/w4a4/seed1/student.safetensors"
    )
    assert layout.shard(cell, 3) == Path(
        "root/results/mini/mini-imagenet/hqdm/w4a4/seed1/mini-imagenet/samples/shard3.npz"
    )
    assert layout.figure("mini", "fig04_loss", "pdf") == Path("root/figures/mini/fig04_loss.pdf")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "protocols.yaml",
            lambda c: c["mini-imagenet"].update(images=0),
            r"protocols\.yaml: mini-imagenet\.images is 0; it must be bigger than or equal to 1",
        ),
        (
            "protocols.yaml",
            lambda c: c["mini-imagenet"].update(images=-5),
            r"mini-imagenet\.images is -5; it must be bigger",
        ),
        (
            "protocols.yaml",
            lambda c: c["mini-imagenet"].update(steps=30),
            r"30 steps do not divide 1000 \(the LDM sampler would really take 31\)",
        ),
        (
            "protocols.yaml",
            lambda c: c["imagenet"].update(steps=400),
            r"would really take 500",
        ),
        (
            "protocols.yaml",
            lambda c: c["mini-imagenet"].update(shards=9),
            r"9 shards for 6 batches of 64",
        ),
        (
            "protocols.yaml",
            lambda c: c["mini-imagenet"].update(labels="random"),
            r"mini-imagenet\.labels is 'random'; allowed: balanced, iid, none",
        ),
        (
            "recipes.yaml",
            lambda c: c["mini"].update(lora_rnk=8),
            r"mini: unknown key lora_rnk; allowed: .*lora_rank",
        ),
        (
            "suites/mini.yaml",
            lambda c: c["models"][0]["cells"][1].update(methods=["hadamard"]),
            r"unknown method 'hadamard' .* known: .*efficientdm, .*fp, hqdm, ",
        ),
        (
            "suites/mini.yaml",
            lambda c: c["models"][0]["cells"][1].update(bits=["w1a4"]),
            r"w1a4 is not supported",
        ),
        (
            "suites/mini.yaml",
            lambda c: c["models"][0]["cells"].append(
                {"methods": ["hqdm"], "bits": ["w4a4"], "seeds": [0]}
            ),
            r"cell mini/mini-imagenet/hqdm/w4a4/seed0 is listed twice",
        ),
        (
            "suites/mini.yaml",
            lambda c: c["models"][0]["cells"][0].update(bits=["w8a8"]),
            r"method fp goes with w32a32",
        ),
        (
            "suites/mini.yaml",
            lambda c: c.update(extractor="inception"),
            r"extractor is 'inception', protocol 'mini-imagenet' scores with 'mini-classifier'",
        ),
        (
            "suites/mini.yaml",
            lambda c: c.update(name="maxi"),
            r"name is 'maxi'; it must be the file's 'mini'",
        ),
        (
            "suites/mini.yaml",
            lambda c: c["figures"]["fig04_loss"].update(kind="bar"),
            r"figures\.fig04_loss\.kind is 'bar'; allowed: channel_maxima",
        ),
        (
            "methods.yaml",
            lambda c: c["hqdm"].pop("implementation"),
            r"methods\.yaml: hqdm: missing key implementation",
        ),
        (
            "models.yaml",
            lambda c: c["imagenet"].pop("unet"),
            r"imagenet: missing key unet",
        ),
    ],
)
def test_bad_configuration_is_one_clear_message(config, file, change, message):
    with pytest.raises(BenchError, match=message):
        load_catalogue(config(file, change))


def test_missing_or_broken_files_are_named(tmp_path):
    with pytest.raises(BenchError, match=r"models\.yaml does not exist"):
        load_catalogue(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.yaml").write_text("a: [")
    with pytest.raises(BenchError, match=r"models\.yaml is not valid YAML"):
        load_catalogue(tmp_path)


def test_unknown_cell_lists_what_the_suite_holds():
    suite = load_catalogue(ROOT).suite("mini")
    with pytest.raises(BenchError, match=r"no cell .*w2a8/seed0; .*hqdm/w4a4/seed0.*suites/mini"):
        suite.cell("mini-imagenet", "hqdm", Bits(2, 8), 0)
    with pytest.raises(BenchError, match="has no model 'imagenet'"):
        suite.model("imagenet")
