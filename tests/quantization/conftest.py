import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ORACLE = Path(__file__).parents[1] / "data" / "oracle"


@pytest.fixture(scope="session")
def manifest() -> dict[str, Any]:
    """Geometry of the oracle layers, and the layer lists of the oracle UNet."""
    return json.loads((ORACLE / "manifest.json").read_text())


@pytest.fixture(scope="session")
def oracle() -> dict[str, dict[str, torch.Tensor]]:
    """What the authors' layers compute: inputs under "common", results under the method."""
    names = ("common", "effdm", "hqdm")
    return {name: load_file(ORACLE / f"layers_{name}.safetensors") for name in names}


@pytest.fixture(scope="session")
def initialisers() -> dict[str, torch.Tensor]:
    """What the authors' scale initialisers compute."""
    return load_file(ORACLE / "init_quantizers.safetensors")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)
