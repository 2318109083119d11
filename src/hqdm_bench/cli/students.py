"""The verb that makes a student: quantize, calibrate, distil, measure its noise error."""

import argparse

from hqdm_bench.cli.options import Context, add_cell, add_device, device_of

__all__ = ["add_verbs"]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the verb."""
    train = verbs.add_parser("train", help="calibrate one student, and train it as its method says")
    add_cell(train)
    add_device(train)
    train.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> None:
    context = Context.of(arguments)
    cell = context.cell(arguments)

    from hqdm_bench.common.files import write_json
    from hqdm_bench.distill import load_trajectories, stages_file, train_student
    from hqdm_bench.methods import save_student
    from hqdm_bench.models import load_latent_diffusion

    layout, method = context.layout, context.method(cell)
    recipe = context.recipe(cell.model).of(method)
    teacher = load_latent_diffusion(
        context.model(arguments), layout.teacher(cell.suite, cell.model)
    ).to(device_of(arguments))
    trajectories = load_trajectories(layout.trajectories(cell.suite, cell.model))
    checkpoint = layout.student(cell).with_name("checkpoint.safetensors")
    trained = train_student(method, teacher, trajectories, cell.bits, recipe, cell.seed, checkpoint)
    header = {"cell": cell.asdict()}
    trained.history.write(layout.history(cell))
    write_json(
        layout.training(cell),
        header | {"method": method.asdict(), "recipe": recipe.asdict()} | trained.summary(),
    )
    write_json(layout.cost(cell), header | trained.cost.of_the_machine())
    save_student(trained.student, layout.student(cell), header)
    for path in (checkpoint, stages_file(checkpoint)):
        path.unlink(missing_ok=True)
