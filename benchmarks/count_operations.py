"""Count what `hqdm-bench plan` multiplies: operations, launches and weights of every model.

    python benchmarks/count_operations.py

Writes `config/costs/operations.json`. Nothing is computed at full size: multiply-accumulates are
counted on tensors without data, calls on a copy of the model with few channels, which makes the
same calls. Run it after a change to `unet` or `first_stage` in `config/models.yaml`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hqdm_bench.catalogue import Bits, Catalogue, ModelSpec, load_catalogue
from hqdm_bench.catalogue.costs import architecture_of
from hqdm_bench.common.files import write_json
from hqdm_bench.common.seeds import generator
from hqdm_bench.distill.loop import guided_loss
from hqdm_bench.distill.optimiser import Optimiser
from hqdm_bench.distill.trajectories import Trajectories
from hqdm_bench.evaluate.inception_network import InceptionNetwork, inception_shapes
from hqdm_bench.methods import Student, build_student
from hqdm_bench.models import LatentDiffusion, build_latent_diffusion
from hqdm_bench.models.mini.classifier import ClassifierRecipe, MiniClassifier
from hqdm_bench.quantization import roles

ROOT = Path(__file__).parents[1]
NARROW = 32  # model_channels of the copy calls are counted on; whole Hadamard blocks


def main() -> None:
    write_json(ROOT / "config/costs/operations.json", count(load_catalogue(ROOT)))


def count(catalogue: Catalogue) -> dict[str, Any]:
    """Everything the file holds; variants of a model have its operations."""
    counted: dict[str, dict[str, Any]] = {}
    specs = [spec for spec in catalogue.models.values() if spec.weights_of is None]
    for spec in specs:
        key = architecture_of(spec)
        if key not in counted:
            counted[key] = {"architecture": key} | forward(spec) | calls(catalogue, spec)
    models = {spec.name: counted[architecture_of(spec)] for spec in specs}
    return {"models": models, "extractors": {"inception": inception(), "mini-classifier": mini()}}


def forward(spec: ModelSpec) -> dict[str, int]:
    """Multiply-accumulates of one row and one image; weights of the layers a student quantizes."""
    with torch.device("meta"):
        model = build_latent_diffusion(spec)
    x = torch.empty(1, *model.latent_shape, device="meta")
    label = torch.zeros(1, dtype=torch.long, device="meta")
    labels = None if model.null_label is None else label
    found = {
        "unet_macs": multiplications(lambda: model.predict(x, 1, labels)),
        "decode_macs": multiplications(lambda: model.decode(x)),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "low_bit_weights": 0,
        "static_weights": 0,
        "lora_per_rank": 0,
    }
    for name, role in roles("official", model.unet).items():
        weight = model.unet.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        if role == "low_bit":
            found["low_bit_weights"] += weight.numel()
            found["lora_per_rank"] += len(weight) + weight[0].numel()
        elif role == "static_8bit":
            found["static_weights"] += weight.numel()
    return found


@torch.no_grad()
def multiplications(call: Any) -> int:
    """Multiply-accumulates of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() // 2


def calls(catalogue: Catalogue, spec: ModelSpec) -> dict[str, int]:
    """Operations a forward pass and an update hand to the device, whatever their size."""
    narrow = ModelSpec(**{**spec.asdict(), "unet": {**spec.unet, "model_channels": NARROW}})
    model = build_latent_diffusion(narrow).eval()
    rows = torch.randn((1, 2, 2, *model.latent_shape), generator=generator("count-operations"))
    student = hadamard_student(catalogue, model)
    assert student.step is not None
    times = tuple(student.step.timesteps[:2])
    labels = None if model.null_label is None else torch.zeros(1, 2, dtype=torch.long)
    guidance = 1.0 if labels is None else 1.5
    trajectories = Trajectories(rows, rows, labels, times, guidance, 1, {})
    with torch.no_grad(), CallCounter() as teacher:
        guided_loss(model, trajectories, 0, 0)
    around = model.with_unet(student)
    optimiser = Optimiser(student, catalogue.recipe("released"))
    optimiser.update(guided_loss(around, trajectories, 0, 0))  # the first makes constants
    with CallCounter() as update:
        optimiser.update(guided_loss(around, trajectories, 0, 0))
    student.freeze()
    with torch.no_grad():
        guided_loss(around, trajectories, 0, 0)  # makes the effective weights
        with CallCounter() as frozen:
            guided_loss(around, trajectories, 0, 0)
    return {
        "teacher_calls": teacher.count,
        "student_calls": frozen.count,
        "update_calls": update.count,
    }


def hadamard_student(catalogue: Catalogue, model: LatentDiffusion) -> Student:
    """A W4A4 HQ-DM student with any ranges."""
    method = catalogue.method("hqdm")
    student = build_student(method, model, Bits(4, 4), catalogue.recipe("released"), 0)
    for layer in student.quantized_layers().values():
        layer.activation.initialise(0.1)
    return student


class CallCounter(TorchDispatchMode):
    """Count calls that compute something; views do not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = func._schema.returns
        view = any(one.alias_info and not one.alias_info.is_write for one in returns)
        self.count += not view
        return func(*args, **(kwargs or {}))


def inception() -> dict[str, int]:
    """Inception as the ADM evaluator uses it; features an image."""
    with torch.device("meta"):
        weights = {
            name: torch.empty(shape, dtype=dtype)
            for name, (dtype, shape) in inception_shapes().items()
        }
        images = torch.empty(1, 256, 256, 3, dtype=torch.uint8)
        network = InceptionNetwork(weights)
        outputs: list[Tensor] = []
        macs = multiplications(lambda: outputs.extend(network.outputs(images)))
    return extractor(network, macs, outputs)


def mini() -> dict[str, int]:
    """The classifier of the embedded scenes."""
    with torch.device("meta"):
        network = MiniClassifier(len(ClassifierRecipe().classes)).eval()
        images = torch.empty(1, 32, 32, 3, dtype=torch.uint8)
        outputs: list[Tensor] = []
        macs = multiplications(lambda: outputs.extend(network(images)))
    return extractor(network, macs, outputs)


def extractor(network: nn.Module, macs: int, outputs: list[Tensor]) -> dict[str, int]:
    sizes = dict(zip(("pool", "spatial", "logits"), (out.shape[1] for out in outputs), strict=True))
    return {"macs": macs, "parameters": sum(p.numel() for p in network.parameters()), **sizes}


if __name__ == "__main__":
    main()
