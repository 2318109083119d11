"""`hqdm-bench methods`, and the catalogue against the schemas that it prints."""

import json
from pathlib import Path

import fastjsonschema
import pytest
import yaml

from hqdm_bench.cli import main
from hqdm_bench.common.errors import BenchError
from hqdm_bench.methods import available_methods, get_method

ROOT = Path(__file__).parents[2]
ENTRIES = yaml.safe_load((ROOT / "config" / "methods.yaml").read_text())


def output(capsys, *argv):
    assert main(["methods", *argv]) == 0
    return capsys.readouterr().out


def paragraph(page, option):
    """Lines of an option by what they say, such as allowed and default."""
    lines = next(part for part in page.split("\n\n") if part.startswith(f"{option}\n")).splitlines()
    return dict(line.strip().split(": ", 1) for line in lines[1:])


def test_lists_every_method(capsys):
    lines = output(capsys).splitlines()
    assert len(lines) == 2 * len(available_methods())
    for head, presets, method in zip(
        lines[::2], lines[1::2], available_methods().values(), strict=True
    ):
        assert head.split()[0] == method.name
        assert head.endswith(f"{method.title}: {method.paper}")
        assert presets.split() == ["presets:", *", ".join(method.options.presets()).split()]
    assert "presets: as_code, as_paper" in lines[2 * list(available_methods()).index("hqdm") + 1]


@pytest.mark.parametrize("name", available_methods())
def test_a_page_has_every_option_with_its_values(capsys, name):
    page, options = output(capsys, name), get_method(name).options
    for option, default in options().resolved().items():
        said = paragraph(page, option)
        assert said["default"] == str(default)
        if option in options.allowed():
            assert said["allowed"].split(" | ") == [*map(str, options.allowed()[option])]
        for preset, values in options.presets().items():
            different = values.resolved()[option]
            assert said.get(preset, str(default)) == str(different)
            assert (preset in said) == (different != default)


def test_some_words_of_a_page(capsys):
    page = output(capsys, "hqdm")
    assert page.startswith("HQ-DM: HQ-DM, https://arxiv.org/abs/2512.05746")
    assert paragraph(page, "axis") == {
        "allowed": "channel | width",
        "default": "channel",
        "as_paper": "width",
    }
    assert paragraph(page, "order") == {"allowed": "2 | 3 | 4 | 5 | 6 | 7", "default": "5"}
    assert paragraph(page, "policy")["allowed"].startswith("official, full, ptqd,")
    assert output(capsys, "fp").splitlines()[1:] == ["no options"]


@pytest.mark.parametrize("name", available_methods())
def test_the_schema_accepts_what_the_method_accepts(capsys, name):
    schema = json.loads(output(capsys, name, "--schema"))
    validate = fastjsonschema.compile(schema)
    options = get_method(name).options
    wrong = [{"no_such_option": 1}, {"preset": "as_text"}]
    for option, values in options.allowed().items():
        for value in values:
            validate({option: value})
            options.read({option: value}, name)
        wrong += [{option: "no such value"}, {option: None}]
    for given in wrong:
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            validate(given)
        with pytest.raises(BenchError):
            options.read(given, name)
    for preset, values in options.presets().items():
        validate({"preset": preset})
        validate(values.resolved())
    for option, default in options().resolved().items():
        assert schema["properties"][option]["default"] == default


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_of_the_catalogue_fits_its_schema(entry):
    method = get_method(ENTRIES[entry]["implementation"])
    fastjsonschema.validate(method.options.schema(method.name), ENTRIES[entry]["options"])
    method.options.read(ENTRIES[entry]["options"], entry)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gptq"], "unknown method 'gptq'; available: dmq, double_hadamard, efficientdm, fp"),
        (["gptq", "--schema"], "unknown method 'gptq'"),
        (["--schema"], "--schema is of one method; name it"),
    ],
)
def test_mistakes_are_one_line(capsys, argv, message):
    assert main(["methods", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
