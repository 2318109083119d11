from pathlib import Path

import pytest

import hqdm_bench.methods
from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import available_methods, build_student, get_method
from hqdm_bench.models import LatentDiffusion

NEW_METHOD = """
from hqdm_bench.methods.base import Student
from hqdm_bench.methods.options import MethodOptions
from hqdm_bench.methods.registry import register

@register("{name}", MethodOptions)
def build(options, teacher, bits, recipe, seed):
    return Student(teacher.unet, None, "{name}", options, bits, recipe, seed)
"""


def test_the_methods_of_the_paper_exist_in_sorted_order() -> None:
    assert list(available_methods()) == ["efficientdm", "fp", "hqdm"]


def test_unknown_method_lists_the_available() -> None:
    with pytest.raises(BenchError, match="unknown method 'gptq'; available: efficientdm, fp, hqdm"):
        get_method("gptq")


@pytest.fixture
def extra_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = [*hqdm_bench.methods.__path__, str(tmp_path)]
    monkeypatch.setattr(hqdm_bench.methods, "__path__", path)
    available_methods.cache_clear()
    yield tmp_path
    available_methods.cache_clear()


def test_a_new_method_is_one_new_file(
    extra_folder: Path, teacher: LatentDiffusion, recipe: Recipe
) -> None:
    (extra_folder / "identity_method.py").write_text(NEW_METHOD.format(name="identity"))
    spec = MethodSpec("identity", "Identity", "identity", {})
    assert build_student(spec, teacher, Bits(4, 4), recipe, 0).method == "identity"


def test_two_methods_of_one_name_are_refused(extra_folder: Path) -> None:
    (extra_folder / "second_hqdm.py").write_text(NEW_METHOD.format(name="hqdm"))
    with pytest.raises(BenchError, match="two methods are registered as 'hqdm'"):
        available_methods()


@pytest.mark.parametrize(("name", "bits"), [("fp", "w4a4"), ("hqdm", "w32a32")])
def test_bits_that_do_not_fit_the_method_are_refused(
    name: str, bits: str, teacher: LatentDiffusion, recipe: Recipe
) -> None:
    with pytest.raises(BenchError, match=r"fp"):
        build_student(MethodSpec(name, name, name, {}), teacher, Bits.parse(bits), recipe, 0)
