"""Validation of the YAML catalogues: errors name the key and the allowed values."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import fastjsonschema
import yaml

from hqdm_bench.common.errors import BenchError

__all__ = ["read_yaml"]


def read_yaml(path: Path, schema: str) -> Any:
    """Read and validate one YAML file.

    Args:
        path: the file.
        schema: name of a schema in this package's ``schemas`` folder, without suffix.

    Raises:
        BenchError: the file is missing, not YAML, or breaks its schema.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchError(
            f"{path} does not exist; run from the project's folder or name it with --root"
        ) from None
    except yaml.YAMLError as error:
        raise BenchError(f"{path} is not valid YAML: {error}") from error
    definition = json.loads(
        resources.files(__package__).joinpath(f"schemas/{schema}.json").read_text()
    )
    try:
        # fastjsonschema: every verb reads the catalogue, and jsonschema takes a second to import.
        fastjsonschema.validate(definition, value)
    except fastjsonschema.JsonSchemaValueException as error:
        raise BenchError(f"{path}: {_describe(error)}") from None
    return value


def _describe(error: fastjsonschema.JsonSchemaValueException) -> str:
    where = ".".join(str(part) for part in error.path[1:]) or "top level"
    if error.rule == "additionalProperties":
        properties = error.definition.get("properties", {})
        unknown = ", ".join(sorted(set(error.value) - set(properties)))
        return (
            f"{where}: unknown key {unknown}; allowed: {', '.join(sorted(properties)) or 'names'}"
        )
    if error.rule == "required":
        missing = [key for key in error.rule_definition if key not in error.value]
        return f"{where}: missing key {', '.join(missing)}"
    if error.rule == "enum":
        allowed = ", ".join(str(value) for value in error.rule_definition)
        return f"{where} is {error.value!r}; allowed: {allowed}"
    return f"{where} is {error.value!r}; it {error.message.partition(' ')[2]}"
