"""Verbs for what is made once per model: extractor, teacher, reference, trajectories, outliers."""

import argparse
import shutil

from hqdm_bench.cli.options import Context, add_device, add_model, add_suite, device_of
from hqdm_bench.common.errors import BenchError

__all__ = ["add_verbs"]

EMBEDDED_EXTRACTOR = "mini-classifier"


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    extractor = verbs.add_parser("extractor", help="feature extractor of a suite")
    add_suite(extractor)
    _add_teachers(extractor)
    extractor.set_defaults(run=_extractor)

    teacher = verbs.add_parser("teacher", help="full-precision embedded model")
    add_model(teacher)
    _add_teachers(teacher)
    teacher.set_defaults(run=_teacher)

    reference = verbs.add_parser("reference", help="features of the reference images")
    add_model(reference)
    reference.set_defaults(run=_reference)

    trajectories = verbs.add_parser("trajectories", help="teacher trajectories of a model")
    add_model(trajectories)
    add_device(trajectories)
    trajectories.set_defaults(run=_trajectories)

    outliers = verbs.add_parser("outliers", help="channel maxima before and after rotation")
    add_model(outliers)
    add_device(outliers)
    outliers.set_defaults(run=_outliers)


def _add_teachers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--teachers",
        choices=("shipped", "trained"),
        default="shipped",
        help="take the weights in the package (default) or train them from scratch",
    )


def _extractor(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    name = context.suite.extractor
    if name != EMBEDDED_EXTRACTOR:
        raise BenchError(
            f"suite '{context.suite.name}' measures with '{name}'; this version makes "
            f"'{EMBEDDED_EXTRACTOR}' only, the suites mini and smoke use it"
        )
    from hqdm_bench.artefacts import embedded_weights
    from hqdm_bench.common.files import copy_file, write_json
    from hqdm_bench.common.tensors import read_metadata
    from hqdm_bench.models.mini import ClassifierRecipe, save_classifier, train_classifier

    path = context.layout.extractor(context.suite.name)
    recipe = ClassifierRecipe()
    if arguments.teachers == "shipped":
        copy_file(embedded_weights(name, recipe.digest), path)
    else:
        model, report = train_classifier(recipe)
        save_classifier(model, path, report)
    write_json(path.with_suffix(".json"), read_metadata(path) | {"origin": arguments.teachers})


def _teacher(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    spec = context.model(arguments)
    if spec.source != "embedded":
        raise BenchError(
            f"model '{spec.name}' is a published checkpoint, it is not trained here; the embedded "
            "models are mini-imagenet, mini-bedrooms and mini-churches"
        )
    import torch

    from hqdm_bench.artefacts import embedded_weights
    from hqdm_bench.common.files import copy_file, write_json
    from hqdm_bench.common.tensors import read_metadata
    from hqdm_bench.models import save_latent_diffusion
    from hqdm_bench.models.mini import recipe_digest, train_teacher

    path = context.layout.teacher(context.suite.name, spec.name)
    if arguments.teachers == "shipped":
        copy_file(embedded_weights(spec.name, recipe_digest(spec)), path)
    else:
        checkpoints = path.with_name("teacher-checkpoints")
        model, report = train_teacher(spec, checkpoints)
        save_latent_diffusion(model, path, report, dtype=torch.float16)
        shutil.rmtree(checkpoints, ignore_errors=True)
    write_json(path.with_suffix(".json"), read_metadata(path) | {"origin": arguments.teachers})


def _reference(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    spec, protocol = context.model(arguments), context.protocol(arguments.model)
    if spec.source != "embedded":
        raise BenchError(
            f"model '{spec.name}' is measured against '{protocol.reference}', which this version "
            "cannot read; it makes the references of the embedded models"
        )
    import torch

    from hqdm_bench.evaluate.extractors import load_extractor
    from hqdm_bench.evaluate.features import write_features
    from hqdm_bench.evaluate.reference import reference_features
    from hqdm_bench.models.mini import TeacherRecipe

    extractor = load_extractor(protocol.extractor, context.layout.extractor(context.suite.name))
    scenes = TeacherRecipe.from_spec(spec).data.scenes("reference")
    count, size = protocol.reference_images, protocol.batch
    batches = (
        torch.from_numpy(scenes.images(range(start, min(start + size, count))))
        for start in range(0, count, size)
    )
    features = reference_features(batches, protocol, extractor)
    write_features(context.layout.reference(context.suite.name, spec.name), features)


def _trajectories(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    spec, recipe = context.model(arguments), context.recipe(arguments.model)

    from hqdm_bench.common.progress import Progress
    from hqdm_bench.distill import generate, save_trajectories
    from hqdm_bench.models import load_latent_diffusion

    layout, suite = context.layout, context.suite.name
    teacher = load_latent_diffusion(spec, layout.teacher(suite, spec.name))
    teacher = teacher.to(device_of(arguments))
    count = recipe.pool + recipe.validation_trajectories
    with Progress(f"trajectories of {spec.name}", count) as progress:
        trajectories = generate(teacher, recipe, progress)
    save_trajectories(layout.trajectories(suite, spec.name), trajectories)


def _outliers(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    spec = context.model(arguments)
    shown = context.suite.model(spec.name).outliers
    if not shown:
        raise BenchError(
            f"suite '{context.suite.name}' names no layers of '{spec.name}'; list them under "
            f"'outliers' in config/suites/{context.suite.name}.yaml"
        )

    from hqdm_bench.distill import load_trajectories
    from hqdm_bench.evaluate.outliers import record_outliers, write_outliers
    from hqdm_bench.models import load_latent_diffusion

    layout, suite = context.layout, context.suite.name
    teacher = load_latent_diffusion(spec, layout.teacher(suite, spec.name))
    teacher = teacher.to(device_of(arguments))
    trajectories = load_trajectories(layout.trajectories(suite, spec.name)).held_out
    outliers = record_outliers(teacher, trajectories, shown["layers"], shown["steps"])
    write_outliers(layout.outliers(suite, spec.name), outliers)
