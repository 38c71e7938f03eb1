#!/usr/bin/env python3
"""Write down what `vllm bench serve` of one release accepts, read from that release's own argument parser.

The sister of scripts/gen_vllm_args.py, run by the same Python (see scripts/conformance.py):

    python scripts/gen_bench_args.py --source .cache/conformance/vllm-0.13.0/vllm-0.13.0 --output FILE

The simulated engine builds its parser from the file; the conformance tests compare the file with a fresh run.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

RANDOM = re.compile(r"^bench-[0-9a-f]{8}-$")
"""The default of --request-id-prefix is another one in each run."""
CONVERTERS: dict[object, str] = {None: "str", str: "str", int: "int", float: "float", json.loads: "json"}
ACTIONS = {
    "_StoreAction": "store",
    "_StoreTrueAction": "store_true",
    "BooleanOptionalAction": "boolean",
    # --dataset-name and --dataset-path look at each other, up to 0.18.0.
    "_ValidateDatasetArgs": "store_dataset",
}


def load_parser(source: Path) -> argparse.ArgumentParser:
    """The parser of `vllm bench serve`, below that of `vllm`, built as its subcommands build it.

    No device is needed: the CPU platform stands in.
    """
    sys.path.insert(0, str(source))
    logging.disable(logging.INFO)
    import vllm.platforms
    from vllm.platforms.cpu import CpuPlatform

    vllm.platforms._current_platform = CpuPlatform()
    from vllm.benchmarks.serve import add_cli_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: argparse.ArgumentParser = FlexibleArgumentParser(description="vLLM CLI")
    bench = parser.add_subparsers(required=False, dest="subparser").add_parser(
        "bench", usage="vllm bench <bench_type> [options]"
    )
    kinds = bench.add_subparsers(required=True, dest="bench_type")
    add_cli_args(kinds.add_parser("serve", usage="vllm bench serve [options]"))
    return parser


def subcommand(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """The parser of a subcommand."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices[name]
    return found


def plain(value: Any) -> Any:
    """A default as JSON; infinity by its name."""
    if isinstance(value, str) and RANDOM.match(value):
        return "bench-<random>-"
    if isinstance(value, float) and value == float("inf"):
        return "inf"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    raise SystemExit(f"a default that JSON does not know: {value!r}")


def option_of(action: argparse.Action) -> dict[str, Any]:
    """One option."""
    row: dict[str, Any] = {"dest": action.dest, "flags": list(action.option_strings)}
    row["action"] = ACTIONS[type(action).__name__]
    store = row["action"] in ("store", "store_dataset")
    if store:
        kind = getattr(action.type, "__name__", "")
        row["type"] = CONVERTERS.get(action.type, f"other:{kind}")
    for key in ("nargs", "choices"):
        value = getattr(action, key)
        if value is not None and store:
            row[key] = value if key == "nargs" else sorted(value) if isinstance(value, set) else list(value)
    if action.required:
        row["required"] = True
    row["default"] = plain(action.default)
    return row


def describe(source: Path) -> dict[str, Any]:
    """The whole data file."""
    serve = subcommand(subcommand(load_parser(source), "bench"), "serve")
    version = next(
        line.split()[1]
        for line in (source / "PKG-INFO").read_text(encoding="utf-8").splitlines()
        if line.startswith("Version:")
    )
    rows = [
        option_of(action)
        for action in serve._actions
        if not isinstance(action, argparse._HelpAction) and action.option_strings
    ]
    return {"vllm": version, "options": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="the unpacked source distribution of vLLM")
    parser.add_argument("--output", type=Path, help="where to write (default: standard output)")
    options = parser.parse_args()
    text = json.dumps(describe(options.source.resolve()), indent=1, sort_keys=True) + "\n"
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
