"""Claims graded on result files, from the verb's function to the two files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.report.claims import write_claims

if TYPE_CHECKING:
    from conftest import Project

REPOSITORY = Path(__file__).resolve().parents[2]


def written(project: Project) -> dict[str, dict[str, object]]:
    shutil.copy(REPOSITORY / "paper" / "claims.yaml", project.root / "paper")
    paths = write_claims(project.root, project.suite, project.catalogue)
    assert [path.name for path in paths] == ["claims.json", "claims.md"]
    content = json.loads(paths[0].read_text(encoding="utf-8"))
    return {entry["id"]: entry for entry in content["claims"]}


def test_the_files_of_a_suite(project: Project) -> None:
    """HQ-DM's IS is ahead by 0.5, 0.6 and 0.4 at W4A4; k = 3 has one seed."""
    project.write_outliers()
    claims = written(project)
    gain = claims["is-w4a4"]
    assert gain["verdict"] == "reproduced"
    by_seed = [100 * (b / a - 1) for a, b in ((6.0, 6.5), (5.0, 5.6), (4.0, 4.4))]
    assert gain["effect"] == pytest.approx(sum(by_seed) / 3)
    assert gain["interval_kind"] == "95 % over 3 training seeds"
    assert claims["best-order"]["measured"] == "inconclusive"
    assert claims["outliers-figure-2"]["verdict"] == "reproduced"  # from 12 to 2 on both layers
    assert claims["weights-figure-3"]["effect"] == 100.0  # the rotated weight is 1.5 times as large
    assert claims["fully-quantized"]["effect"] == pytest.approx(20.0)
    assert claims["smaller"]["verdict"] == "not run"  # no float_weight_bytes in these results
    assert claims["faster-convergence"]["verdict"] == "inconclusive"  # W4A4 only, three epochs
    assert claims["faster-at-low-bits"]["verdict"] == "not run"
    assert claims["churches-fid-w4a4"]["verdict"] == "not run"


def test_a_missing_result_is_an_error(project: Project) -> None:
    project.write_outliers()
    project.layout.history(project.cell("hqdm", "w4a4", 2)).unlink()
    with pytest.raises(BenchError, match="history.csv"):
        written(project)


def test_claims_do_not_need_torch(tmp_path: Path) -> None:
    code = "import sys, hqdm_bench.report.claims; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0
