import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

METRICS = Path(__file__).parents[1] / "data" / "metrics"


@pytest.fixture(scope="session")
def arrays() -> dict[str, torch.Tensor]:
    """Stored feature arrays; see tests/data/metrics/expected.json."""
    with np.load(METRICS / "features.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file}


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What the ADM evaluator, torch-fidelity, clean-fid and float64 arithmetic give for them."""
    return json.loads((METRICS / "expected.json").read_text())
