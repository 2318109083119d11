"""Verbs for what image sets are measured with: the feature extractor and the reference."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hqdm_bench.catalogue import ArtefactSpec, ModelSpec, Protocol
from hqdm_bench.cli.options import (
    Context,
    add_device,
    add_model,
    add_suite,
    add_teachers,
    device_of,
)
from hqdm_bench.common.errors import BenchError

if TYPE_CHECKING:
    from hqdm_bench.evaluate.feature_types import Extractor
    from hqdm_bench.evaluate.reference import Reference

__all__ = ["add_verbs"]

EMBEDDED, INCEPTION = "mini-classifier", "inception"


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    extractor = verbs.add_parser("extractor", help="feature extractor of a suite")
    add_suite(extractor)
    add_teachers(extractor)
    extractor.set_defaults(run=_extractor)

    reference = verbs.add_parser("reference", help="what images of a model are measured against")
    add_model(reference)
    add_device(reference)
    reference.add_argument(
        "--images",
        type=Path,
        help="folder or zip to build the reference from, image files or an LSUN database, instead "
        "of the artefact; for models without a published reference batch",
    )
    reference.set_defaults(run=_reference)


def _extractor(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    name = context.suite.extractor
    path = context.layout.extractor(context.suite.name)
    if name == EMBEDDED:
        origin = _embedded_extractor(path, arguments.teachers)
    elif name == INCEPTION:
        origin = _inception(context, path)
    else:
        raise BenchError(
            f"suite '{context.suite.name}' measures with '{name}'; this version has "
            f"'{INCEPTION}' and '{EMBEDDED}'"
        )
    from hqdm_bench.common.files import write_json
    from hqdm_bench.common.tensors import read_metadata

    write_json(path.with_suffix(".json"), read_metadata(path) | {"origin": origin})


def _embedded_extractor(path: Path, teachers: str) -> str:
    from hqdm_bench.artefacts import embedded_weights
    from hqdm_bench.common.files import copy_file
    from hqdm_bench.models.mini import ClassifierRecipe, save_classifier, train_classifier

    recipe = ClassifierRecipe()
    if teachers == "shipped":
        copy_file(embedded_weights(EMBEDDED, recipe.digest), path)
    else:
        model, report = train_classifier(recipe)
        save_classifier(model, path, report)
    return teachers


def _inception(context: Context, path: Path) -> str:
    from hqdm_bench.artefacts import verify_artefact
    from hqdm_bench.evaluate.inception import convert_inception

    found = verify_artefact(context.catalogue.artefact(INCEPTION), context.layout)
    convert_inception(found.path, found.sha256, path)
    return "published"


def _reference(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    spec, protocol = context.model(arguments), context.protocol(arguments.model)
    artefact = None
    if spec.source == "checkpoint":
        artefact = context.catalogue.artefact(protocol.reference)
    if arguments.images is not None and (artefact is None or artefact.kind != "images"):
        raise BenchError(
            f"--images: the reference '{protocol.reference}' of '{spec.name}' is "
            f"{'drawn by this project' if artefact is None else 'a published batch'}; it is not "
            "built from images of yours"
        )

    from hqdm_bench.evaluate.extractors import load_extractor
    from hqdm_bench.evaluate.reference import write_reference

    weights = context.layout.extractor(context.suite.name)
    extractor = load_extractor(protocol.extractor, weights, device_of(arguments))
    if artefact is None:
        reference = _of_scenes(spec, protocol, extractor)
    elif artefact.kind == "reference":
        reference = _of_batch(context, artefact, spec, protocol, extractor)
    elif artefact.kind == "images":
        source = arguments.images or _verified(context, artefact)[0]
        reference = _of_images(source, spec, protocol, extractor)
    else:
        raise BenchError(
            f"protocol '{protocol.name}' measures against '{artefact.name}', which is of kind "
            f"'{artefact.kind}'; a reference is of kind 'reference' or 'images'"
        )
    write_reference(context.layout.reference(context.suite.name, spec.name), reference)


def _verified(context: Context, artefact: ArtefactSpec) -> tuple[Path, str]:
    from hqdm_bench.artefacts import verify_artefact

    found = verify_artefact(artefact, context.layout)
    return found.path, found.sha256


def _of_scenes(spec: ModelSpec, protocol: Protocol, extractor: Extractor) -> Reference:
    import torch

    from hqdm_bench.evaluate.reference import reference_from_images
    from hqdm_bench.models.mini import TeacherRecipe

    scenes = TeacherRecipe.from_spec(spec).data.scenes("reference")
    count, size = protocol.reference_images or 0, protocol.batch
    batches = (
        torch.from_numpy(scenes.images(range(start, min(start + size, count))))
        for start in range(0, count, size)
    )
    return reference_from_images(batches, protocol, extractor)


def _of_batch(
    context: Context,
    artefact: ArtefactSpec,
    spec: ModelSpec,
    protocol: Protocol,
    extractor: Extractor,
) -> Reference:
    from hqdm_bench.evaluate.published_batch import reference_from_batch

    path, sha256 = _verified(context, artefact)
    reference, agreement = reference_from_batch(
        path, sha256, protocol, extractor, _resolution(spec)
    )
    sys.stderr.write(
        f"{path.name}: its {protocol.pr_reference_images} images against its stored moments: FID "
        f"{agreement.fid:.4f}, sFID {agreement.sfid:.4f} (sampling error only, if features are "
        "extracted as the publisher did)\n"
    )
    return reference


def _of_images(
    source: Path, spec: ModelSpec, protocol: Protocol, extractor: Extractor
) -> Reference:
    import torch

    from hqdm_bench.evaluate.lsun import reference_from_lsun

    threads = torch.get_num_threads()
    return reference_from_lsun(source, protocol, extractor, _resolution(spec), threads)


def _resolution(spec: ModelSpec) -> int:
    return int(spec.first_stage["ddconfig"]["resolution"])
