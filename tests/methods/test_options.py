import dataclasses

import pytest
from torch import nn

from hqdm_bench.catalogue import Bits
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import MethodOptions, Request, available_methods, get_method
from hqdm_bench.methods.double_hadamard import DoubleHadamardOptions
from hqdm_bench.methods.efficientdm import EfficientDMOptions
from hqdm_bench.methods.hqdm import HQDMOptions

AS_CODE = {
    "policy": "official",
    "base": "dequantized",
    "weight_init": "max",
    "weight_scales": "shared",
    "weight_scale_updates": "twice",
    "scale_table": "vector",
    "scale_aware": "learning_rate",
    "loss": "guided_sum",
    "steps": "pick",
}
GRID = {
    "order": 5,
    "indivisible": "identity",
    "signs": "sylvester",
    "levels": "drop_most_negative",
    "activation": "symmetric",
}


def test_as_code_is_the_complete_default() -> None:
    assert EfficientDMOptions.read({}, "m").resolved() == {**AS_CODE, "zero_points": "real"}
    assert HQDMOptions.read({"preset": "as_code"}, "m").resolved() == {
        **AS_CODE,
        **GRID,
        "axis": "channel",
        "scope": "official",
    }
    assert DoubleHadamardOptions.read({}, "m").resolved() == {**AS_CODE, **GRID}


def test_as_paper_differs_in_what_the_texts_say() -> None:
    def differences(options: type[MethodOptions]) -> dict[str, object]:
        default, text = options().resolved(), options.presets()["as_paper"].resolved()
        return {key: value for key, value in text.items() if value != default[key]}

    assert differences(EfficientDMOptions) == {
        "base": "full_precision",
        "weight_scale_updates": "once",
        "scale_aware": "gradient",
        "loss": "eps_mean",
        "steps": "interpolate",
    }
    assert differences(HQDMOptions) == {
        "base": "full_precision",
        "weight_scales": "per_step",
        "weight_scale_updates": "once",
        "loss": "eps_mean",
        "axis": "width",
        "scope": "every_linear",
        "levels": "full_range",
    }


def test_overrides_win_over_the_preset() -> None:
    resolved = HQDMOptions.read({"preset": "as_paper", "scope": "none"}, "m").resolved()
    assert resolved["base"] == "full_precision"
    assert resolved["weight_scale_updates"] == "once"
    assert resolved["scope"] == "none"


@pytest.mark.parametrize("name", available_methods())
def test_resolved_options_read_back_as_themselves(name: str) -> None:
    for preset in get_method(name).options.presets().values():
        assert type(preset).read(preset.resolved(), name) == preset


@pytest.mark.parametrize("name", available_methods())
def test_options_are_frozen_and_every_value_is_listed(name: str) -> None:
    options = get_method(name).options
    assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    free = {field.name for field in dataclasses.fields(options) if "check" in field.metadata}
    assert set(options.allowed()) == {field.name for field in dataclasses.fields(options)} - free
    assert all(len(values) > 1 for values in options.allowed().values())
    assert all(
        field.metadata["says"] for field in dataclasses.fields(options) if field.name in free
    )


def test_unknown_key_names_the_allowed_ones() -> None:
    with pytest.raises(BenchError, match=r"'edm'.*'order'.*policy, base"):
        EfficientDMOptions.read({"order": 5}, "edm")
    with pytest.raises(BenchError, match=r"'fp'.*unknown option 'order'; allowed: none"):
        get_method("fp").options.read({"order": 5}, "fp")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("scope", "width", "'official', 'every_linear', 'none'"),
        ("order", 8, "2, 3, 4, 5, 6, 7"),
        ("order", 5.0, "2, 3, 4, 5, 6, 7"),
        ("order", "5", "2, 3, 4, 5, 6, 7"),
        ("activation", None, "'symmetric', 'asymmetric'"),
        ("weight_scale_updates", True, "'twice', 'once'"),
        ("steps", "nearest", "'pick', 'interpolate', 'by_timestep'"),
    ],
)
def test_wrong_value_names_key_value_and_allowed(key: str, value: object, allowed: str) -> None:
    with pytest.raises(BenchError) as caught:
        HQDMOptions.read({key: value}, "hq")
    assert f"method 'hq': option '{key}' is {value!r}; allowed: {allowed}" in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("mixed", "'mixed'"),
        ("official; *.to_q", "to_q"),
        ("official; *.to_q = int4", "int4"),
        (4, "is 4; it takes text: official, full, ptqd, tfmq, dmq or quest, then rules"),
    ],
)
def test_wrong_text_says_of_which_option(policy: object, message: str) -> None:
    with pytest.raises(BenchError, match="method 'hq': option 'policy'") as caught:
        HQDMOptions.read({"policy": policy}, "hq")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hqdm", {"signs": "random", "axis": "width"}),
        ("hqdm", {"signs": "random", "scope": "none"}),
    ],
)
def test_options_that_exclude_each_other_are_refused(name: str, options: dict[str, str]) -> None:
    method, module = get_method(name), nn.Sequential(*(nn.Linear(8, 8) for _ in range(5)))
    with pytest.raises(BenchError, match="need a rotation along the channels"):
        method.build(method.options.read(options, name), module, Request(Bits(4, 4), (0,)))


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(BenchError, match="'as_text'; allowed: as_code, as_paper"):
        HQDMOptions.read({"preset": "as_text"}, "hq")
