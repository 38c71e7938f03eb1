#!/usr/bin/env python3
"""Write down what `vllm serve` of one release accepts, read from that release's own argument parser.

Run by the Python of the conformance environment (see scripts/conformance.py), which has torch and the few
packages that the parser imports, with the unpacked source distribution of vLLM as argument:

    python scripts/gen_vllm_args.py --source .cache/conformance/vllm-0.13.0/vllm-0.13.0 --output FILE

The simulated engine builds its parser from the file; the conformance tests compare the file with a fresh run.
With --from FILE instead of --source such a file is read back, and no environment is needed; with --planner
FILE the short form is written that the planner reads: the names of the long options and the kinds of their
values.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import textwrap
from pathlib import Path
from typing import Any

RELEASES = {"0.13.0": "v0.13.0", "0.18.0": "v0.18.0", "0.23.0": "v0.23.0"}
"""vLLM version -> vllm-ascend release that runs on it."""


def load_parser(source: Path) -> argparse.ArgumentParser:
    """The parser that `vllm serve` uses, built as its subcommand builds it. No device is needed: the CPU
    platform stands in."""
    sys.path.insert(0, str(source))
    logging.disable(logging.INFO)
    import vllm.platforms
    from vllm.platforms.cpu import CpuPlatform

    vllm.platforms._current_platform = CpuPlatform()
    from vllm.entrypoints.openai.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: argparse.ArgumentParser = FlexibleArgumentParser(description="vLLM CLI")
    subparsers = parser.add_subparsers(required=False, dest="subparser")
    make_arg_parser(subparsers.add_parser("serve", usage="vllm serve [model_tag] [options]"))
    return parser


def serve_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the subcommand."""
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    serve: argparse.ArgumentParser = subparsers.choices["serve"]
    return serve


def plain(value: Any) -> Any:
    """A default as JSON: configuration objects become None (their defaults stand with their class)."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return None


def type_of(function: Any, configs: dict[str, type]) -> dict[str, Any]:
    """Name the converter of an option: {"type": …, "optional": whether "" and "None" mean None}."""
    name = getattr(function, "__qualname__", str(function))
    if name == "optional_type.<locals>._optional_type":
        return {**type_of(function.__closure__[0].cell_contents, configs), "optional": True}
    if name == "parse_type.<locals>._parse_type":
        return {**type_of(function.__closure__[0].cell_contents, configs), "cannot_be_converted": True}
    if name == "_compute_kwargs.<locals>.parse_dataclass":
        cls = function.__defaults__[0]
        configs[cls.__name__] = cls
        return {"type": "config", "config": cls.__name__}
    names = {
        None: "str", str: "str", int: "int", float: "float", json.loads: "json",
    }  # fmt: skip
    if function in names:
        return {"type": names[function]}
    if name in ("human_readable_int", "human_readable_int_or_auto", "union_dict_and_str"):
        return {"type": name}
    if name.endswith("<lambda>") and function("A-B") == "a_b":
        return {"type": "lower_snake"}
    raise SystemExit(
        f"unknown converter {name}: teach scripts/gen_vllm_args.py and the simulated parser about it"
    )


ACTIONS = {
    "_StoreAction": "store",
    "_StoreTrueAction": "store_true",
    "BooleanOptionalAction": "boolean",
    "_AppendAction": "append",
    "LoRAParserAction": "lora",
}


def option_of(action: argparse.Action, deprecated: set[str], configs: dict[str, type]) -> dict[str, Any]:
    """One option or positional."""
    row: dict[str, Any] = {"dest": action.dest, "flags": list(action.option_strings)}
    row["action"] = ACTIONS[type(action).__name__]
    if row["action"] in ("store", "append", "lora"):
        row.update(type_of(action.type, configs))
    if action.nargs is not None and row["action"] not in ("boolean", "store_true"):
        row["nargs"] = action.nargs
    if action.const is not None and action.nargs == "?":
        row["const"] = action.const
    if action.choices is not None:
        row["choices"] = list(action.choices)
    row["default"] = plain(action.default)
    if action.dest in deprecated:
        row["deprecated"] = True
    return row


def config_of(cls: type) -> dict[str, Any]:
    """What a configuration class takes as JSON: the schema that pydantic derives, and what it does with
    unknown keys."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema

    class Tolerant(GenerateJsonSchema):
        """Fields that JSON cannot carry (callables) are left open."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.ignored_warning_kinds = {
                "skipped-choice",
                "non-serializable-default",
                "skipped-discriminator",
            }

        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
            return {}

    def strip(node: Any) -> Any:
        if isinstance(node, dict):
            kept = {k: strip(v) for k, v in node.items() if k not in ("description", "title", "default")}
            if isinstance(node.get("properties"), dict):
                kept["properties"] = {k: strip(v) for k, v in node["properties"].items()}
            return kept
        return [strip(item) for item in node] if isinstance(node, list) else node

    schema: dict[str, Any] = strip(TypeAdapter(cls).json_schema(schema_generator=Tolerant))
    defs = schema.pop("$defs", {})
    schema.setdefault("additionalProperties", True)
    decorators = getattr(cls, "__pydantic_decorators__", None)
    before = sorted(
        {
            field
            for decorator in (decorators.field_validators.values() if decorators else ())
            if decorator.info.mode in ("before", "plain", "wrap")
            for field in decorator.info.fields
        }
    )
    for field in before:
        # The class converts this field itself; what it takes is known by the names of the enumeration.
        hint = next((item.type for item in dataclasses.fields(cls) if item.name == field), None)
        members = [
            name
            for kind in (hint, *getattr(hint, "__args__", ()))
            for name in getattr(kind, "__members__", {})
        ]
        if field in schema["properties"]:
            schema["properties"][field] = {"x-names": members} if members else {}
    schema["$defs"] = defs
    return schema


def describe(source: Path) -> dict[str, Any]:
    """The whole data file."""
    serve = serve_parser(load_parser(source))
    import vllm.utils.argparse_utils as argparse_utils

    deprecated = {action.dest for action in argparse_utils.FlexibleArgumentParser._deprecated}
    configs: dict[str, type] = {}
    options = [
        option_of(action, deprecated, configs)
        for action in serve._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    version = next(
        line.split()[1]
        for line in (source / "PKG-INFO").read_text(encoding="utf-8").splitlines()
        if line.startswith("Version:")
    )
    return {
        "vllm": version,
        "vllm_ascend": RELEASES[version],
        "options": options,
        "configs": {name: config_of(cls) for name, cls in sorted(configs.items())},
    }


KINDS = {"human_readable_int": "units", "human_readable_int_or_auto": "units or auto", "config": "json"}
"""Converters as the planner calls them; the others keep their names. Units: whole numbers such as 25.6k."""


def kind_of(row: dict[str, Any]) -> Any:
    """What a value of an option is for the planner: the choices, or a word."""
    choices = row.get("choices")
    if choices and all(isinstance(choice, str) for choice in choices):
        return [*choices, *(["None"] if row.get("optional") and "None" not in choices else [])]
    if choices and all(isinstance(choice, int) for choice in choices):
        return "int"
    return KINDS.get(row.get("type", "str"), row.get("type", "str"))


def option_lines(name: str, kind: Any) -> list[str]:
    """One option as YAML: its kind on the same line, or its choices below."""
    if isinstance(kind, str):
        return [f"  {name}: {kind}"]
    return [f"  {name}:", *(f"    - {json.dumps(choice)}" for choice in kind)]


def listed(name: str, keys: list[str]) -> list[str]:
    """The entry of an option with its keys, in lines that a linter takes."""
    lines = textwrap.wrap(", ".join(keys), 106, break_on_hyphens=False)
    return [f"  {name}: [", *(f"    {line}" for line in lines), "  ]"]


def keys_of(described: dict[str, Any], others: bool) -> list[tuple[str, list[str]]]:
    """The options that a configuration class reads as JSON, and its keys, where it does so with others."""
    return sorted(
        (flag[2:], sorted(config["properties"]))
        for row in described["options"]
        if (config := described["configs"].get(row.get("config")))
        and bool(config["additionalProperties"]) is others
        for flag in row["flags"]
        if flag.startswith("--")
    )


def short_form(described: dict[str, Any]) -> str:
    """The planner's data file: YAML, one option a line."""
    values: dict[str, Any] = {}
    switches: set[str] = set()
    flags: set[str] = set()
    deprecated: set[str] = set()
    for row in described["options"]:
        names = {flag[2:] for flag in row["flags"] if flag.startswith("--")}
        if row["action"] == "boolean":
            names = {name for name in names if not name.startswith("no-")}
            switches |= names
        elif row["action"] == "store_true":
            flags |= names
        else:
            values.update(dict.fromkeys(names, "str" if row["action"] == "lora" else kind_of(row)))
        if row.get("deprecated"):
            deprecated |= names
    refused, passed = keys_of(described, False), keys_of(described, True)
    lines = [
        "---",
        f"# Long options of `vllm serve` of vLLM {described['vllm']}, from its own parser.",
        "# Written by scripts/gen_vllm_args.py --planner: not by hand.",
        f"vllm: {described['vllm']}",
        "# They take a value of this kind, or one of these.",
        "values:",
        *(line for name, kind in sorted(values.items()) for line in option_lines(name, kind)),
        "# On as --name, off as --no-name.",
        "switches:",
        *(f"  - {name}" for name in sorted(switches)),
        "# On as --name; there is no --no-name.",
        "flags:",
        *(f"  - {name}" for name in sorted(flags)),
        "# Of all of them those that the parser calls deprecated.",
        "deprecated:" + ("" if deprecated else " []"),
        *(f"  - {name}" for name in sorted(deprecated)),
        "# Keys of options of JSON; another is refused.",
        "keys:" + ("" if refused else " {}"),
        *(line for name, keys in refused for line in listed(name, keys)),
        "# Keys of options of JSON that pass over another.",
        "open_keys:" + ("" if passed else " {}"),
        *(line for name, keys in passed for line in listed(name, keys)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument("--source", type=Path, help="the unpacked source distribution of vLLM")
    origin.add_argument(
        "--from", dest="described", type=Path, help="a file that --output wrote, instead of --source"
    )
    parser.add_argument(
        "--output", type=Path, help="where to write (default: standard output, without --planner)"
    )
    parser.add_argument("--planner", type=Path, help="where to write the planner's short form")
    options = parser.parse_args()
    if options.source:
        described = describe(options.source.resolve())
    else:
        described = json.loads(options.described.read_text(encoding="utf-8"))
    text = json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    if options.planner:
        options.planner.write_text(short_form(described), encoding="utf-8")
    if not options.output and not options.planner:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
