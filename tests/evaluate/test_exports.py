"""The functions of the package's face: on feature tensors, without torch until called for."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hqdm_bench.evaluate as evaluate
from hqdm_bench.cli.main import build_parser
from hqdm_bench.common.errors import BenchError

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def hwc(maps):
    return maps.permute(0, 2, 3, 1).flatten(1)


def test_stored_values_through_the_face(arrays, expected):
    generated, reference = arrays["gen"], arrays["ref"]
    entry = expected["fid"]
    assert evaluate.frechet_distance(generated, reference) == pytest.approx(
        entry["adm"], abs=entry["abs_tol"]
    )
    spatial = hwc(arrays["sp_gen"]), hwc(arrays["sp_ref"])
    entry = expected["sfid_hwc_order"]
    assert evaluate.frechet_distance(*spatial) == pytest.approx(entry["adm"], abs=entry["abs_tol"])
    logits = generated @ arrays["W"]
    entry = expected["inception_score"]["split_500_file_order"]
    assert evaluate.inception_score(logits, split_size=500) == pytest.approx(
        entry["adm_f32"], abs=entry["abs_tol"]
    )
    entry = expected["inception_score"]["split_5000_one_chunk"]
    assert evaluate.inception_score(logits) == pytest.approx(entry["adm_f32"], abs=1e-4)
    entry = expected["precision_recall_k3"]
    assert evaluate.precision_recall(generated, reference) == pytest.approx(
        entry["exact"], abs=entry["abs_tol_exact"]
    )
    assert evaluate.kernel_distance(generated, reference) == pytest.approx(
        expected["kid"]["full_unbiased_float64"], abs=1e-6
    )


def test_usual_mistakes_give_the_other_stored_values(arrays, expected):
    """The layout, the bias and the order that published ports got wrong are told apart."""
    channels_first = arrays["sp_gen"].flatten(1), hwc(arrays["sp_ref"])
    wrong = evaluate.frechet_distance(*channels_first)
    assert wrong == pytest.approx(expected["sfid_if_gen_is_flattened_CHW"]["adm"], abs=1e-3)
    assert wrong - expected["sfid_hwc_order"]["adm"] > 14
    stored = expected["inception_score"]
    logits = arrays["gen"] @ arrays["W"]
    biased = evaluate.inception_score(logits + arrays["bias"], 500)
    assert biased == pytest.approx(stored["with_bias_wrong_split_500"], abs=1e-4)
    assert abs(biased - stored["split_500_file_order"]["adm_f32"]) > 0.1
    by_class = logits[logits.argmax(1).argsort(stable=True)]
    collapsed = evaluate.inception_score(by_class, 200)
    assert collapsed == pytest.approx(stored["class_sorted_split_200"]["adm_f32"], abs=1e-4)
    assert collapsed < stored["split_200_file_order"]["adm_f32"] / 2


def test_features_and_their_moments_are_the_same_to_it(arrays):
    from hqdm_bench.evaluate.moments import Moments

    generated, reference = arrays["gen"], arrays["ref"]
    wanted = evaluate.frechet_distance(Moments.of(generated), Moments.of(reference).gaussian)
    assert evaluate.frechet_distance(generated, reference) == pytest.approx(wanted, rel=1e-12)


def test_names_stay_functions_when_modules_have_been_imported():
    folder = Path(evaluate.__file__).parent
    assert not {path.stem for path in folder.glob("*.py")} & set(evaluate.__all__)
    names = ["bootstrap", "class_scores", "frechet", "frechet_bias", "kernel", "neighbours"]
    code = "\n".join(
        [
            "import sys, importlib, hqdm_bench.evaluate as face",
            "assert 'torch' not in sys.modules",
            f"for name in {names}: importlib.import_module(f'hqdm_bench.evaluate.{{name}}')",
            "assert all(callable(getattr(face, name)) for name in face.__all__)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'fid'"):
        evaluate.fid  # noqa: B018


def test_integers_and_halves_are_features_too():
    points = torch.arange(24).view(8, 3) % 5
    wanted = evaluate.precision_recall(points.double(), points.double() + 1)
    for dtype in (torch.int64, torch.float16, torch.bfloat16):
        assert evaluate.precision_recall(points.to(dtype), (points + 1).to(dtype)) == wanted


def blocks(language):
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found


def test_the_code_of_the_page_runs(capsys):
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), {})
    fid, kid = map(float, capsys.readouterr().out.splitlines()[0].split())
    assert fid > 1 > kid


def test_the_commands_of_the_page_are_commands():
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    verbs = [build_parser().parse_args(shlex.split(line)[1:]).verb for line in lines]
    assert verbs == ["export", "score"]


MATRIX = torch.ones(30, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.ones(30),
        torch.ones(30, 4, 2),
        torch.ones(30, 0),
        torch.ones(30, 4, dtype=torch.complex64),
        MATRIX.numpy(),
    ],
    ids=["vector", "maps", "no columns", "complex", "numpy"],
)
def test_what_is_no_matrix_is_refused(wrong):
    """Some of these gave a number; maps of (n, d, 2) scored as if the 2 were classes."""
    names = ("frechet_distance", "precision_recall", "kernel_distance", "fid_infinity")
    for call in (getattr(evaluate, name) for name in names):
        for pair in ((wrong, MATRIX), (MATRIX, wrong)):
            with pytest.raises(BenchError, match="give"):
                call(*pair)
    with pytest.raises(BenchError, match="give"):
        evaluate.inception_score(wrong)


def test_dimensions_must_agree_when_extrapolating():
    with pytest.raises(BenchError, match="same extractor"):
        evaluate.fid_infinity(MATRIX, torch.ones(30, 5))
