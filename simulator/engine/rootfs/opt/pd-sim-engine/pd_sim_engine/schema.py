"""Checks a JSON configuration as pydantic checks it for vLLM: lax about numbers in strings, strict about the
rest.

The schema is the one that pydantic derives from the real class, kept in the data file. Errors read as
pydantic's.
"""

from __future__ import annotations

import json
from typing import Any

DOCS = "https://errors.pydantic.dev/2.12/v/"

KV_ROLES = "('kv_producer', 'kv_both', 'kv_consumer')"
"""As the real message prints the roles it supports."""


class Refused(Exception):
    """The text of the ValidationError."""


class _Problem(Exception):
    def __init__(self, kind: str, message: str, value: Any, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.kind, self.message, self.value, self.path = kind, message, value, path


def validate(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    """The validated values of class `name`, or Refused."""
    try:
        value = json.loads(text)
    except ValueError as error:
        column = getattr(error, "colno", 1)
        problem = _Problem("json_invalid", f"Invalid JSON: expected value at line 1 column {column}", text)
        raise Refused(_render(name, [problem])) from None
    if not isinstance(value, dict):
        problem = _Problem("dataclass_type", "Input should be an object", value)
        raise Refused(_render(name, [problem]))
    problems: list[_Problem] = []
    result = {}
    properties = schema.get("properties", {})
    for key, item in value.items():
        if key not in properties:
            if schema.get("additionalProperties") is False:
                problems.append(
                    _Problem("unexpected_keyword_argument", "Unexpected keyword argument", item, (key,))
                )
            continue
        try:
            result[key] = _check(item, properties[key], schema.get("$defs", {}), (key,))
        except _Problem as problem:
            problems.append(problem)
    if not problems:
        problems += _after(name, value, result)
    if problems:
        raise Refused(_render(name, problems))
    return result


def _after(name: str, value: dict[str, Any], result: dict[str, Any]) -> list[_Problem]:
    """What the classes check after their fields."""
    if (
        name == "KVTransferConfig"
        and result.get("kv_connector") is not None
        and result.get("kv_role") is None
    ):
        message = (
            f"Value error, Please specify kv_role when kv_connector is set, supported roles are {KV_ROLES}"
        )
        return [_Problem("value_error", message, value)]
    return []


def _check(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    if "$ref" in schema:
        return _check(value, defs.get(schema["$ref"].rsplit("/", 1)[1], {}), defs, path)
    if "x-names" in schema:
        return _named(value, schema["x-names"], path)
    if "anyOf" in schema:
        return _any_of(value, schema["anyOf"], defs, path)
    if "const" in schema and value != schema["const"]:
        raise _Problem("literal_error", f"Input should be {schema['const']!r}", value, path)
    if "enum" in schema:
        if value not in schema["enum"]:
            raise _Problem("literal_error", f"Input should be {_one_of(schema['enum'])}", value, path)
        return value
    return _TYPES.get(schema.get("type", ""), _any)(value, schema, defs, path)


def _named(value: Any, names: list[str], path: tuple[str, ...]) -> Any:
    """Enumerations looked up by name, in any case. The real lookup lets its KeyError through."""
    if isinstance(value, str):
        if value.upper() not in names:
            raise KeyError(value.upper())
        return value.upper()
    return value


def _any_of(value: Any, options: list[dict[str, Any]], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    first: _Problem | None = None
    for option in options:
        try:
            return _check(value, option, defs, path)
        except _Problem as problem:
            first = first or problem
    assert first is not None
    raise first


def _any(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    return value


def _null(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    if value is not None:
        raise _Problem("none_required", "Input should be None", value, path)
    return None


def _string(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    if not isinstance(value, str):
        raise _Problem("string_type", "Input should be a valid string", value, path)
    return value


def _integer(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, str):
        try:
            value = int(value.strip())
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            raise _Problem("int_parsing", message, value, path) from None
    elif isinstance(value, float):
        if value != int(value):
            message = "Input should be a valid integer, got a number with a fractional part"
            raise _Problem("int_from_float", message, value, path)
        value = int(value)
    elif not isinstance(value, int):
        raise _Problem("int_type", "Input should be a valid integer", value, path)
    if "minimum" in schema and value < schema["minimum"]:
        message = f"Input should be greater than or equal to {schema['minimum']}"
        raise _Problem("greater_than_equal", message, value, path)
    return value


def _number(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            message = "Input should be a valid number, unable to parse string as a number"
            raise _Problem("float_parsing", message, value, path) from None
    if not isinstance(value, int | float):
        raise _Problem("float_type", "Input should be a valid number", value, path)
    return float(value)


_TRUE, _FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off")


def _boolean(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str | int | float):
        message = "Input should be a valid boolean, unable to interpret input"
        raise _Problem("bool_parsing", message, value, path)
    raise _Problem("bool_type", "Input should be a valid boolean", value, path)


def _array(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    kind = "set" if schema.get("uniqueItems") else "list"
    if not isinstance(value, list):
        raise _Problem(f"{kind}_type", "Input should be a valid array", value, path)
    items = schema.get("items", {})
    return [_check(item, items, defs, (*path, str(index))) for index, item in enumerate(value)]


def _object(value: Any, schema: dict[str, Any], defs: dict[str, Any], path: tuple[str, ...]) -> Any:
    properties = schema.get("properties")
    if not isinstance(value, dict):
        kind, what = ("dataclass_type", "an object") if properties is not None else ("dict_type", "an object")
        raise _Problem(kind, f"Input should be {what}", value, path)
    if properties is None:
        items = schema.get("additionalProperties")
        if isinstance(items, dict):
            return {key: _check(item, items, defs, (*path, key)) for key, item in value.items()}
        return value
    for key, item in value.items():
        if key in properties:
            _check(item, properties[key], defs, (*path, key))
        elif schema.get("additionalProperties") is False:
            raise _Problem("unexpected_keyword_argument", "Unexpected keyword argument", item, (*path, key))
    return value


_TYPES = {
    "null": _null,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}


def _one_of(options: list[Any]) -> str:
    words = [repr(option) for option in options]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _render(name: str, problems: list[_Problem]) -> str:
    plural = "" if len(problems) == 1 else "s"
    lines = [f"{len(problems)} validation error{plural} for {name}"]
    for problem in problems:
        if problem.path:
            lines.append(".".join(problem.path))
        value = repr(problem.value)
        if len(value) > 50:
            value = f"{value[:25]}...{value[-24:]}"
        given = type(problem.value).__name__
        lines.append(f"  {problem.message} [type={problem.kind}, input_value={value}, input_type={given}]")
        lines.append(f"    For further information visit {DOCS}{problem.kind}")
    return "\n".join(lines)
