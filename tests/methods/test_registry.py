from pathlib import Path

import pytest

from hqdm_bench.catalogue import Bits, MethodSpec, Recipe
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import available_methods, build_student, get_method
from hqdm_bench.models import LatentDiffusion

NEW_METHOD = """
from hqdm_bench.methods import MethodOptions, Student, register

@register("{name}", MethodOptions, title="A title", paper="A paper")
def build(options, module, request):
    return Student(module, None, options, request)
"""


def test_the_methods_exist_in_sorted_order() -> None:
    names = [
        "dmq",
        "double_hadamard",
        "efficientdm",
        "fp",
        "hqdm",
        "hqdm_plus",
        "lsq",
        "ptqd",
        "qdiffusion",
        "quest",
        "rtn",
        "smoothquant",
        "tfmq",
    ]
    assert list(available_methods()) == names


@pytest.mark.parametrize("name", available_methods())
def test_every_method_says_what_it_is_and_where_it_is_described(name: str) -> None:
    method = get_method(name)
    assert method.name == name == name.lower()
    assert method.title.strip()
    assert "https://" in method.paper or "docs/" in method.paper
    assert method.options.presets()["as_code"] == method.options()


def test_unknown_method_lists_the_available() -> None:
    known = ", ".join(available_methods())
    with pytest.raises(BenchError, match=f"unknown method 'gptq'; available: {known}"):
        get_method("gptq")


def test_a_new_method_is_one_new_file(
    extra_methods: Path, teacher: LatentDiffusion, recipe: Recipe
) -> None:
    (extra_methods / "identity_method.py").write_text(NEW_METHOD.format(name="identity"))
    spec = MethodSpec("identity", "Identity", "identity", {})
    assert build_student(spec, teacher, Bits(4, 4), recipe, 0).method == "identity"
    assert (get_method("identity").title, get_method("identity").paper) == ("A title", "A paper")


def test_two_methods_of_one_name_are_refused(extra_methods: Path) -> None:
    (extra_methods / "second_hqdm.py").write_text(NEW_METHOD.format(name="hqdm"))
    with pytest.raises(BenchError, match="two methods are registered as 'hqdm'"):
        available_methods()


@pytest.mark.parametrize(
    ("name", "bits"), [("fp", "w4a4"), ("hqdm", "w32a32"), ("hqdm_plus", "w32a32")]
)
def test_bits_that_do_not_fit_the_method_are_refused(
    name: str, bits: str, teacher: LatentDiffusion, recipe: Recipe
) -> None:
    with pytest.raises(BenchError, match=r"fp"):
        build_student(MethodSpec(name, name, name, {}), teacher, Bits.parse(bits), recipe, 0)
