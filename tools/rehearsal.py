"""Prepare a dress rehearsal of the paper's suite: `all` on stand-ins, without any download.

The folder gets a copy of the workflow, stand-ins of all seven artefacts in their real file formats
(random weights, drawn images), and catalogues that point at them. Every cell, step count, table and
figure of the paper's grid stays; only widths, resolutions and counts shrink, so that it runs on a
few CPU cores, in hours. Its numbers mean nothing.

    python tools/rehearsal.py /some/folder
    cd /some/folder
    snakemake --cores 2 all --config device=cpu acceptance=report
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from hqdm_bench.catalogue import Catalogue, ModelSpec, load_catalogue
from hqdm_bench.common.errors import BenchError
from hqdm_bench.common.files import sha256_of

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ("Snakefile", "environment.yml", "config", "workflow", "paper", "profiles")

IMAGES = 32
REFERENCE_IMAGES = 40
WIDTH = 32

FIRST_STAGE = {"ch": 32, "num_res_blocks": 1}
RESOLUTION = {"imagenet": 32, "bedrooms": 32, "churches": 128}


def main() -> int:
    """Prepare the folder named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="new or empty folder")
    parser.add_argument(
        "--url", help="address the stand-ins are served at (default: their file:// addresses)"
    )
    arguments = parser.parse_args()
    try:
        prepare(arguments.folder, arguments.url)
    except BenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stderr.write(
        f"ready; now: cd {arguments.folder} && "
        "snakemake --cores 2 all --config device=cpu acceptance=report\n"
    )
    return 0


def prepare(folder: Path, url: str | None = None) -> Path:
    """Fill a folder; returns the folder of the stand-ins.

    Args:
        folder: new or empty.
        url: where the stand-ins will be served; None uses ``file://`` addresses.

    Raises:
        BenchError: the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BenchError(f"{folder} is not empty; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in WORKFLOW:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    edit(folder / "config" / "models.yaml", narrow_models)
    edit(folder / "config" / "protocols.yaml", shrink_protocols)
    edit(folder / "config" / "recipes.yaml", shrink_recipes)
    stand_ins = folder / "stand-ins"
    write_stand_ins(load_catalogue(folder), stand_ins)
    base = url or stand_ins.resolve().as_uri()
    edit(folder / "config" / "artefacts.yaml", lambda entries: point_at(entries, stand_ins, base))
    return stand_ins


def edit(path: Path, change: Any) -> None:
    """Change a YAML file in place."""
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")


def narrow_models(models: dict[str, Any]) -> None:
    """The structures of the published models, every layer name included, at a small width."""
    for entry in models.values():
        if entry["source"] != "checkpoint":
            continue
        resolution = RESOLUTION[entry["paper_dataset"]]
        ddconfig = {**entry["first_stage"]["ddconfig"], **FIRST_STAGE, "resolution": resolution}
        factor = 2 ** (len(ddconfig["ch_mult"]) - 1)
        entry["first_stage"] = {**entry["first_stage"], "ddconfig": ddconfig}
        if entry["first_stage"]["kind"] == "vq":
            entry["first_stage"]["n_embed"] = 64
        size = {"model_channels": WIDTH, "image_size": resolution // factor}
        entry["unet"] = {**entry["unet"], **size}
        if entry["condition"]:
            entry["condition"] = {**entry["condition"], "embed_dim": WIDTH}
            entry["unet"]["context_dim"] = WIDTH


def shrink_protocols(protocols: dict[str, Any]) -> None:
    """Fewer images; steps, eta, guidance, labels and order stay."""
    for entry in protocols.values():
        if entry["extractor"] != "inception":
            continue
        entry |= {"images": IMAGES, "batch": IMAGES // 2, "shards": 2, "is_split": IMAGES // 2}
        entry |= {"bootstrap": 4, "trace_images": IMAGES // 4}
        entry["pr_reference_images"] = IMAGES
        if entry["reference_images"] is not None:
            entry["reference_images"] = REFERENCE_IMAGES


def shrink_recipes(recipes: dict[str, Any]) -> None:
    """One trajectory of the released 100 steps instead of 160, one update of every fit."""
    for name in ("released", "released-bedrooms", "released-churches"):
        recipes[name] |= {"trajectories": 1, "pool": 1, "validation_trajectories": 1}
        recipes[name]["post_training"] |= {"updates": 1e-5, "data": 0.004}


def write_stand_ins(catalogue: Catalogue, folder: Path) -> None:
    """One file per artefact, under its catalogue name, in the format of the real one."""
    from hqdm_bench.evaluate.inception import InceptionExtractor, convert_inception
    from hqdm_bench.evaluate.stand_in import (
        write_stand_in_batch,
        write_stand_in_inception,
        write_stand_in_lsun,
    )
    from hqdm_bench.models.stand_in import write_stand_in_checkpoint

    folder.mkdir()
    files = {name: folder / entry.file for name, entry in catalogue.artefacts.items()}
    write_stand_in_inception(files["inception"], seed=0)
    weights = folder / "inception.safetensors"
    convert_inception(files["inception"], sha256_of(files["inception"]), weights)
    extractor = InceptionExtractor(weights)
    weights.unlink()
    for seed, model in enumerate(("imagenet", "bedrooms", "churches")):
        spec = catalogue.model(model)
        assert spec.artefact is not None
        path = files[spec.artefact]
        style = "zip" if path.suffix == ".zip" else "bare"
        write_stand_in_checkpoint(spec, path, seed=seed, style=style)
        protocol = catalogue.protocol(model)
        if protocol.reference_images is None:
            write_stand_in_batch(
                files[protocol.reference], extractor, REFERENCE_IMAGES, resolution(spec), seed=seed
            )
        else:
            write_stand_in_lsun(files[protocol.reference], REFERENCE_IMAGES, seed, resolution(spec))


def resolution(spec: ModelSpec) -> int:
    """Side of the model's images in pixels."""
    side: int = spec.first_stage["ddconfig"]["resolution"]
    return side


def point_at(entries: dict[str, Any], folder: Path, base: str) -> None:
    """Take the artefacts from the stand-ins, by their digests where a digest is published."""
    for entry in entries.values():
        path = folder / entry["file"]
        size = path.stat().st_size
        entry |= {"urls": [f"{base}/{entry['file']}"], "about_bytes": size}
        if entry["sha256"]:
            entry |= {"sha256": sha256_of(path), "bytes": size}


if __name__ == "__main__":
    sys.exit(main())
