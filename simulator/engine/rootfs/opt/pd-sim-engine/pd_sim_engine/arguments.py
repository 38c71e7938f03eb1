"""The parser of `vllm`, built from the data file that scripts/gen_vllm_args.py reads off the real one.

vLLM's parser is argparse with a pre-pass: underscores in option names become dashes, dotted options are
gathered to JSON, `-O3` is split, a config file is spliced in. The pre-pass is done here in the same order,
the rest is argparse.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from . import RELEASE, VLLM_VERSION, bench_arguments, schema
from .log import Log
from .paths import DATA

SUBCOMMANDS = ("chat", "complete", "serve", "bench", "collect-env", "run-batch")

_log = Log()


@cache
def data() -> dict[str, Any]:
    """The data file of the release."""
    loaded: dict[str, Any] = json.loads(
        (DATA / f"vllm_serve_{VLLM_VERSION}.json").read_text(encoding="utf-8")
    )
    return loaded


class FlexibleParser(argparse.ArgumentParser):
    """argparse with vLLM's pre-pass."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        if words and words[0] == "serve":
            words = _model_first(words)
        if "--config" in words:
            words = _splice_config(words)
        return super().parse_args(_gather_dotted(_rename(words)), namespace)


def _model_first(words: list[str]) -> list[str]:
    """`--model X` is still taken, with a warning, as the positional argument."""
    for position, word in enumerate(words):
        index = position
        if word == "--model" or word.startswith("--model="):
            break
    else:
        if RELEASE.named_first and _names_no_model(words):
            raise ValueError(
                "`model` should be provided as the first positional argument when "
                "using `vllm serve`. i.e. `vllm serve <model> --<arg> <value>`."
            )
        return words
    _log.warning(
        "argparse_utils.py:195",
        "With `vllm serve`, you should provide the model as a positional argument or in a config "
        "file instead of "
        f"via the `--model` option. The `--model` option will be removed in {RELEASE.model_flag_goes}.",
    )
    if word == "--model":
        return ["serve", words[index + 1], *words[1:index], *words[index + 2 :]]
    return ["serve", word.removeprefix("--model="), *words[1:index], *words[index + 1 :]]


def _names_no_model(words: list[str]) -> bool:
    """Whether a served name is given and nothing that could be the model."""
    given = [word.partition("=")[0] for word in words]
    names = ("--served-model-name", "--served_model_name")
    return (
        len(words) > 1
        and words[1].startswith("-")
        and "--config" not in given
        and any(name in given for name in names)
    )


def _splice_config(words: list[str]) -> list[str]:
    assert words.count("--config") <= 1, "More than one config file specified!"
    index = words.index("--config")
    if index == len(words) - 1:
        raise ValueError("No config file specified! Please check your command-line arguments.")
    given = _config_words(words[index + 1])
    rest = words[1:index] + words[index + 2 :]
    if words[0] != "serve":
        return [words[0], *given, *rest]
    if len(words) > 1 and not words[1].startswith("-"):
        return ["serve", words[1], *given, *words[2:index], *words[index + 2 :]]
    if "--model" in given:
        return ["serve", *given, *rest]
    raise ValueError(
        "No model specified! Please specify model either as a positional argument or in a config file."
    )


def _config_words(path: str) -> list[str]:
    """A flat YAML file as words. The image has no YAML parser: `key: value` and `- item` are all that vLLM
    takes here."""
    extension = path.split(".")[-1]
    if extension not in ("yaml", "yml"):
        raise ValueError(f"Config file must be of a yaml/yml type. {extension} supplied")
    words: list[str] = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        text = line.split(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("- "):
            words.append(text[2:].strip().strip("'\""))
            continue
        key, _, value = (part.strip() for part in text.partition(":"))
        value = value.strip("'\"")
        if value.lower() in ("false", "no", "off"):
            continue
        words.append(f"--{key}")
        if value and value.lower() not in ("true", "yes", "on"):
            words.append(value)
    return words


_NAME = re.compile(r"(?<=--)[^\.]*")


def _rename(words: list[str]) -> list[str]:
    """Underscores to dashes in option names up to the first dot; `-O` in its short forms."""

    def dashes(option: str) -> str:
        return _NAME.sub(lambda found: found[0].replace("_", "-"), option, count=1)

    result: list[str] = []
    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else None
        if word.startswith("--help="):
            result.append("--help")
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            result.append(dashes(name) + equals + value)
        elif word.startswith("-O") and word != "-O":
            result += ["--optimization-level", word[3:] if word[2] == "=" else word[2:]]
        elif word == "-O" and following in {"0", "1", "2", "3"}:
            result.append("--optimization-level")
        else:
            result.append(word)
    return result


def _gather_dotted(words: list[str]) -> list[str]:
    """`--json-arg.key1.key2 value` and `--json-arg.list+ a,b` become one `--json-arg '{…}'` at the end."""
    kept: list[str] = []
    gathered: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    seen: set[str] = set()
    repeated: set[str] = set()
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        name, equals, value = word.partition("=")
        if word.startswith("--") and "." not in word:
            repeated |= {name} & seen
            seen.add(name)
            kept.append(word)
            continue
        if not (word.startswith("-") and "." in name):
            kept.append(word)
            continue
        if not equals:
            value = words[position]  # as the real one: an IndexError when nothing follows
            position += 1
        if name.endswith("+"):
            name = name[:-1]
            value = json.dumps(value.split(","))
        option, *keys = name.split(".")
        try:
            item: Any = json.loads(value)
        except ValueError:
            item = _plain_or_number(value)
        for key in reversed(keys):
            item = {key: item}
        repeated |= {f"{option}.{key}" for key in _merge(gathered[option], item)}
    if repeated:
        _log.warning("argparse_utils.py:342", f"Found duplicate keys {', '.join(repeated)}")
    for option, item in gathered.items():
        kept += [option, json.dumps(item)]
    return kept


def _plain_or_number(value: str) -> Any:
    """The text of a dotted option; later releases take 80g for a number there."""
    if RELEASE.json_suffixes:
        try:
            return _human_readable_int(value)
        except (ValueError, argparse.ArgumentTypeError):
            pass
    return value


def _merge(into: dict[str, Any], update: dict[str, Any]) -> set[str]:
    repeated: set[str] = set()
    for key, value in update.items():
        present = into.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            repeated |= {f"{key}.{inner}" for inner in _merge(present, value)}
        elif isinstance(value, list) and isinstance(present, list):
            present += value
        else:
            repeated |= {key} & into.keys()
            into[key] = value
    return repeated


def _human_readable_int(value: str) -> int:
    value = value.strip()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])", value)
    if not found:
        return int(value)
    number, suffix = found.groups()
    power = "kmgt".index(suffix.lower()) + 1
    if suffix.islower():
        return int(float(number) * 1000**power)
    try:
        return int(number) << (10 * power)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"Decimals are not allowed with binary suffixes like {suffix}. "
            f"Did you mean to use {number}{suffix.lower()} instead?"
        ) from None


_human_readable_int.__name__ = "human_readable_int"


def _human_readable_int_or_auto(value: str) -> int:
    value = value.strip()
    if value == "-1" or value.lower() == "auto":
        return -1
    return _human_readable_int(value)


_human_readable_int_or_auto.__name__ = "human_readable_int_or_auto"

_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")')
_NUMBER = re.compile(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b")


def _expand_numbers(text: str) -> str:
    """80g outside of quotes, in the JSON of later releases."""
    parts = _QUOTED.split(text)
    parts[::2] = [_NUMBER.sub(lambda found: str(_human_readable_int(found[0])), part) for part in parts[::2]]
    return "".join(parts)


def _lower_snake(value: str) -> str:
    return value.lower().replace("-", "_")


def _dict_or_str(value: str) -> Any:
    if not re.match(r"(?s)^\s*{.*}\s*$", value):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"Value {value} cannot be converted to <function loads>.") from None


_PLAIN: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "json": json.loads,
    "human_readable_int": _human_readable_int,
    "human_readable_int_or_auto": _human_readable_int_or_auto,
    "lower_snake": _lower_snake,
    "union_dict_and_str": _dict_or_str,
}


def _configuration(name: str) -> Callable[[str], Any]:
    """A converter to the configuration class of this name."""

    def convert(value: str) -> Any:
        if RELEASE.json_suffixes:
            value = _expand_numbers(value)
        try:
            return schema.validate(name, data()["configs"][name], value)
        except schema.Refused as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _converter(row: dict[str, Any]) -> Callable[[str], Any]:
    """The `type` of an option."""
    convert = _configuration(row["config"]) if row["type"] == "config" else _PLAIN[row["type"]]
    if not row.get("optional") and not row.get("cannot_be_converted"):
        return convert

    def optional(value: str) -> Any:
        if row.get("optional") and value in ("", "None"):
            return None
        try:
            return convert(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"Value {value} cannot be converted to {convert}.") from None

    return optional


class _LoraAction(argparse.Action):
    """`name=path` or a JSON object with both."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        modules = []
        for item in values or []:
            if not item:
                continue
            if "=" in item and "," not in item:
                name, path = item.split("=")
                modules.append({"name": name, "path": path})
                continue
            try:
                given = json.loads(item)
            except ValueError:
                parser.error(f"Invalid JSON format for --lora-modules: {item}")
            if not isinstance(given, dict) or not {"name", "path"} <= given.keys() <= {
                "name",
                "path",
                "base_model_name",
            }:
                parser.error(f"Invalid fields for --lora-modules: {item}")
            modules.append(given)
        setattr(namespace, self.dest, modules)


_ACTIONS: dict[str, Any] = {
    "store": "store",
    "store_true": "store_true",
    "append": "append",
    "boolean": argparse.BooleanOptionalAction,
    "lora": _LoraAction,
}


def _add(parser: argparse.ArgumentParser, row: dict[str, Any]) -> None:
    options: dict[str, Any] = {"default": row["default"]}
    flags = [flag for flag in row["flags"] if row["action"] != "boolean" or not flag.startswith("--no-")]
    if row["action"] == "boolean":
        # BooleanOptionalAction makes the --no- forms itself.
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["action"] = _ACTIONS[row["action"]]
    if "type" in row:
        options["type"] = _converter(row)
    for key in ("nargs", "const", "choices"):
        if key in row:
            options[key] = row[key]
    if flags:
        parser.add_argument(*flags, dest=row["dest"], **options)
    else:
        parser.add_argument(row["dest"], **options)


def make_parser() -> FlexibleParser:
    """The parser of the `vllm` command."""
    parser = FlexibleParser(prog="vllm", description="vLLM CLI")
    parser.add_argument("-v", "--version", action="version", version=VLLM_VERSION)
    subparsers = parser.add_subparsers(required=False, dest="subparser")
    for name in SUBCOMMANDS:
        if name == "serve":
            serve = subparsers.add_parser(name, usage="vllm serve [model_tag] [options]")
            for row in data()["options"]:
                _add(serve, row)
        elif name == "bench":
            bench_arguments.add(subparsers.add_parser(name, usage="vllm bench <bench_type> [options]"))
        else:
            subparsers.add_parser(name)
    return parser


def non_default(args: argparse.Namespace) -> dict[str, Any]:
    """What the log calls the non-default args."""
    defaults = {row["dest"]: row["default"] for row in data()["options"]}
    return {key: value for key, value in vars(args).items() if key in defaults and value != defaults[key]}


def validate(args: argparse.Namespace) -> None:
    """validate_parsed_serve_args."""
    template = args.chat_template
    if template is not None and not Path(template).exists() and not any(c in template for c in "{}\n"):
        raise ValueError(
            f"The supplied chat template string ({template}) appears path-like, but doesn't exist!"
        )
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        raise TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser")
    if args.enable_log_outputs and not args.enable_log_requests:
        raise TypeError("Error: --enable-log-outputs requires --enable-log-requests")
