import dataclasses

import pytest

from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import available_methods, get_method
from hqdm_bench.methods.efficientdm import EfficientDMOptions
from hqdm_bench.methods.hqdm import HQDMOptions

AS_CODE = {
    "policy": "official",
    "base": "codes",
    "weight_init": "max",
    "weight_scale_updates": "twice",
}


def test_as_code_is_the_complete_default() -> None:
    assert EfficientDMOptions.read({}, "m").resolved() == AS_CODE
    assert HQDMOptions.read({"preset": "as_code"}, "m").resolved() == {
        **AS_CODE,
        "rotate": "conv_rank2",
        "order": 5,
        "activation": "symmetric",
    }


def test_overrides_win_over_the_preset() -> None:
    resolved = HQDMOptions.read({"preset": "as_paper", "rotate": "none"}, "m").resolved()
    assert resolved["base"] == "float"
    assert resolved["weight_scale_updates"] == "once"
    assert resolved["rotate"] == "none"


@pytest.mark.parametrize("name", available_methods())
def test_resolved_options_read_back_as_themselves(name: str) -> None:
    for preset in get_method(name).options.presets().values():
        assert type(preset).read(preset.resolved(), name) == preset


@pytest.mark.parametrize("name", available_methods())
def test_options_are_frozen_and_every_value_is_listed(name: str) -> None:
    options = get_method(name).options
    assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert set(options.allowed()) == {field.name for field in dataclasses.fields(options)}
    assert all(len(values) > 1 for values in options.allowed().values())


def test_unknown_key_names_the_allowed_ones() -> None:
    with pytest.raises(BenchError, match=r"'edm'.*'order'.*policy, base"):
        EfficientDMOptions.read({"order": 5}, "edm")
    with pytest.raises(BenchError, match=r"'fp'.*unknown option 'order'; allowed: none"):
        get_method("fp").options.read({"order": 5}, "fp")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("rotate", "width", "'conv_rank2', 'all', 'none'"),
        ("order", 7, "3, 4, 5, 6"),
        ("order", 5.0, "3, 4, 5, 6"),
        ("order", "5", "3, 4, 5, 6"),
        ("activation", None, "'symmetric', 'affine'"),
        ("weight_scale_updates", True, "'twice', 'once'"),
    ],
)
def test_wrong_value_names_key_value_and_allowed(key: str, value: object, allowed: str) -> None:
    with pytest.raises(BenchError) as caught:
        HQDMOptions.read({key: value}, "hq")
    assert f"method 'hq': option '{key}' is {value!r}; allowed: {allowed}" in str(caught.value)


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(BenchError, match="'as_text'; allowed: as_code, as_paper"):
        HQDMOptions.read({"preset": "as_text"}, "hq")
