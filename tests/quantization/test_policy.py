import copy

import pytest
from torch import nn

from hqdm_bench.common.errors import BenchError
from hqdm_bench.quantization import check_policy, full, official, roles


def having(roles, *wanted):
    return [name for name, role in roles.items() if role in wanted]


def toy():
    """Ten layers that can be quantized, under names with and without a common head."""
    block = {"to_q": nn.Linear(2, 2), "to_k": nn.Linear(2, 2), "conv": nn.Conv2d(2, 2, 1)}
    return nn.ModuleDict(
        {
            "stem": nn.Conv2d(2, 2, 1),
            "blocks": nn.ModuleList([nn.ModuleDict(copy.deepcopy(block)) for _ in range(3)]),
        }
    )


def test_rules_are_shell_patterns_and_the_last_that_matches_wins():
    model = toy()
    base = official(model)
    found = roles("official; blocks.*.to_? = full_precision; *.1.to_q = static_8bit", model)
    changed = {name: role for name, role in found.items() if role != base[name]}
    assert changed == {
        "blocks.0.to_q": "full_precision",
        "blocks.0.to_k": "full_precision",
        "blocks.1.to_k": "full_precision",
        "blocks.1.to_q": "static_8bit",
        "blocks.2.to_q": "full_precision",
        "blocks.2.to_k": "full_precision",
    }
    assert list(found) == list(base)  # module order
    assert roles("full; *.1.to_q = static_8bit; blocks.* = low_bit", model) == full(model)
    assert roles("  full ;*=low_bit ; stem=static_8bit  ", model)["stem"] == "static_8bit"
    # A star spans dots; brackets choose; case counts.
    assert roles("full; b*q = static_8bit", model)["blocks.2.to_q"] == "static_8bit"
    found = roles("full; blocks.[02].conv = full_precision", model)
    assert having(found, "full_precision") == ["blocks.0.conv", "blocks.2.conv"]
    with pytest.raises(BenchError, match="matches no layer"):
        roles("full; STEM = low_bit", model)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (
            "all",
            r"layer policy 'all' is unknown; choose one of \['dmq', 'full', 'official', ",
        ),
        ("", "layer policy '' is unknown"),
        ("stem = low_bit", "layer policy 'stem = low_bit' is unknown.*official; PATTERN = ROLE"),
        ("full; stem", "rule 'stem' is not of the form PATTERN = ROLE"),
        ("full; = low_bit", "rule '= low_bit' is not of the form"),
        ("full;", "rule '' is not of the form"),
        (
            "full; stem = 8bit",
            "rule 'stem = 8bit': role is '8bit'; allowed: low_bit, weight_only, input_8bit, "
            "static_8bit, full_precision",
        ),
        ("full; stem = low_bit = low_bit", "role is 'low_bit = low_bit'"),
    ],
)
def test_the_form_is_checked_without_a_module(policy, says):
    with pytest.raises(BenchError, match=says):
        check_policy(policy)
    with pytest.raises(BenchError, match=says):
        roles(policy, toy())


def test_a_well_formed_policy_comes_back():
    for policy in ("full", "official; nothing.like.it = static_8bit"):
        assert check_policy(policy) == policy


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("*.to_v", "did you mean 'to_q' or 'to_k'"),
        ("*.to_qq", "did you mean 'to_q'"),
        ("block.1.to_q", "did you mean 'blocks.1.to_q'"),
        ("block.*", "did you mean 'blocks'"),
        ("xyzzy", r"called stem, blocks.0.to_q, blocks.0.to_k, \.\.\., blocks.2.conv"),
        ("blocks.0", "did you mean 'blocks.0'"),  # a module, not a layer: it takes blocks.0.*
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_with_near_misses(pattern, says):
    with pytest.raises(BenchError, match=says) as error:
        roles(f"official; {pattern} = full_precision", toy())
    assert f"rule '{pattern} = full_precision' matches no layer of ModuleDict" in str(error.value)


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Renamed(nn.Linear):
    """Computes what nn.Linear does."""


def obstructed():
    """Layers that cannot be quantized among five that can."""
    return nn.ModuleDict(
        {
            "grouped": nn.Conv2d(4, 4, 3, groups=2),
            "reflect": nn.Conv1d(4, 4, 3, padding=1, padding_mode="reflect"),
            "up": nn.ConvTranspose2d(4, 4, 2),
            "volume": nn.Conv3d(4, 4, 1),
            "attention": nn.MultiheadAttention(4, 2),
            "encoder": nn.TransformerEncoderLayer(4, 2, 8),
            "scaled": Scaled(4, 4),
            "decoder": nn.TransformerDecoderLayer(4, 2, 8),
            "renamed": Renamed(4, 4),
            "a": nn.Linear(4, 4),
            "b": nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)),
        }
    )


OBSTACLES = {
    "grouped": "it has 2 groups",
    "reflect": "it pads with 'reflect'",
    "up": "it is a ConvTranspose2d",
    "volume": "it is a Conv3d",
    "attention": "it is a MultiheadAttention",
    "attention.out_proj": "its MultiheadAttention reads its weight without calling it",
    "encoder.linear1": "its TransformerEncoderLayer reads its weight without calling it",
    "encoder.self_attn.out_proj": "its MultiheadAttention reads",
    "scaled": "its class Scaled has a forward of its own",
}
POSSIBLE = ["decoder.linear1", "decoder.linear2", "renamed", "a", "b"]


def test_a_base_leaves_what_cannot_be_quantized_in_full_precision():
    model = obstructed()
    assert having(full(model), "low_bit") == POSSIBLE
    assert having(official(model), "low_bit") == [POSSIBLE[3]]
    assert having(official(model), "static_8bit") == [*POSSIBLE[:3], POSSIBLE[4]]
    assert set(OBSTACLES) < set(having(full(model), "full_precision"))


@pytest.mark.parametrize(("name", "says"), OBSTACLES.items())
@pytest.mark.parametrize("role", ["low_bit", "weight_only", "input_8bit", "static_8bit"])
def test_a_rule_that_asks_for_one_of_them_is_an_error(name, says, role):
    model = obstructed()
    with pytest.raises(BenchError, match=says) as error:
        roles(f"full; {name} = {role}", model)
    assert f"rule '{name} = {role}' asks for '{name}'" in str(error.value)
    with pytest.raises(BenchError, match="cannot be quantized"):
        roles(f"full; {name[:-1]}? = {role}", model)
    given = roles(f"full; {name} = {role}; {name} = full_precision", model)
    assert given == full(model)


def test_errors():
    with pytest.raises(BenchError, match="at least 5"):
        official(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(BenchError, match="leaves every layer of ModuleDict in full precision"):
        roles("official; * = full_precision", toy())
    with pytest.raises(BenchError, match="nothing to quantize"):
        roles("full", nn.MultiheadAttention(4, 2))
    with pytest.raises(BenchError, match="matches no layer of ReLU; it has none"):
        roles("full; * = low_bit", nn.ReLU())
