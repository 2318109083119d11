"""Verbs for what is made once per model: teacher, trajectories, outliers."""

import argparse
import shutil

from hqdm_bench.cli.options import Context, add_device, add_model, add_teachers, device_of
from hqdm_bench.common.errors import BenchError

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verbs."""
    teacher = verbs.add_parser(
        "teacher",
        help="full-precision embedded model",
        description="Full-precision embedded model. A variant of a model (weights_of) takes that "
        "model's weights, shipped or trained by that model's recipe. Outlier channels are no part "
        "of the file: they are put in when it is loaded.",
    )
    add_model(teacher)
    add_teachers(teacher)
    teacher.set_defaults(run=_teacher)

    trajectories = verbs.add_parser("trajectories", help="teacher trajectories of a model")
    add_model(trajectories)
    add_device(trajectories)
    trajectories.set_defaults(run=_trajectories)

    outliers = verbs.add_parser("outliers", help="channel maxima before and after rotation")
    add_model(outliers)
    add_device(outliers)
    outliers.set_defaults(run=_outliers)


def _teacher(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    spec = context.model(arguments)
    if spec.source != "embedded":
        known = [name for name, one in context.catalogue.models.items() if one.source == "embedded"]
        raise BenchError(
            f"model '{spec.name}' is a published checkpoint, it is not trained here; the embedded "
            f"models are {', '.join(known)}"
        )
    import torch

    from hqdm_bench.artefacts import embedded_weights
    from hqdm_bench.common.files import copy_file, write_json
    from hqdm_bench.common.tensors import read_metadata
    from hqdm_bench.models import save_latent_diffusion
    from hqdm_bench.models.mini import recipe_digest, train_teacher

    path = context.layout.teacher(context.suite.name, spec.name)
    if arguments.teachers == "shipped":
        copy_file(embedded_weights(spec.base, recipe_digest(spec)), path)
    else:
        checkpoints = path.with_name("teacher-checkpoints")
        model, report = train_teacher(spec, checkpoints)
        save_latent_diffusion(model, path, report, dtype=torch.float16)
        shutil.rmtree(checkpoints, ignore_errors=True)
    record = read_metadata(path) | {"origin": arguments.teachers}
    if spec.weights_of is not None:
        record |= {"weights_of": spec.weights_of, "outliers": spec.outliers}
    write_json(path.with_suffix(".json"), record)


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
