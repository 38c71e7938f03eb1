"""The options of `vllm bench serve`, from the data file that scripts/gen_bench_args.py reads off the real
parser."""

from __future__ import annotations

import argparse
import json
import os
from functools import cache
from typing import Any

from . import VLLM_VERSION
from .paths import DATA

KINDS = ("latency", "serve", "startup", "sweep", "throughput")


@cache
def data() -> dict[str, Any]:
    """The data file of the release."""
    path = DATA / f"vllm_bench_serve_{VLLM_VERSION}.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


class _Dataset(argparse.Action):
    """--dataset-name and --dataset-path: random data come from no file."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values)
        name, path = getattr(namespace, "dataset_name", "random"), getattr(namespace, "dataset_path", None)
        if name == "random" and path is not None:
            parser.error(
                "Cannot use 'random' dataset with --dataset-path. Please specify the appropriate "
                f"--dataset-name (e.g., 'sharegpt', 'custom', 'sonnet') for your dataset file: {path}"
            )


def _default(row: dict[str, Any]) -> Any:
    value = row["default"]
    if value == "bench-<random>-":
        return f"bench-{os.urandom(4).hex()}-"
    return float("inf") if row.get("type") == "float" and value == "inf" else value


_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "json": json.loads}


def add(parser: argparse.ArgumentParser) -> None:
    """What stands behind `vllm bench`."""
    kinds = parser.add_subparsers(required=True, dest="bench_type")
    for kind in KINDS:
        if kind != "serve":
            kinds.add_parser(kind)
            continue
        serve = kinds.add_parser(kind, usage="vllm bench serve [options]")
        for row in data()["options"]:
            options: dict[str, Any] = {"dest": row["dest"], "default": _default(row)}
            if row["action"] == "store_true":
                options["action"] = "store_true"
            elif row["action"] == "boolean":
                options["action"] = argparse.BooleanOptionalAction
            else:
                # A converter without a counterpart here belongs to data sets that the simulator has not.
                options["type"] = _TYPES.get(row["type"], str)
                options |= {key: row[key] for key in ("nargs", "choices", "required") if key in row}
                if row["action"] == "store_dataset":
                    options["action"] = _Dataset
            # BooleanOptionalAction makes the --no- form itself.
            flags = [
                flag for flag in row["flags"] if row["action"] != "boolean" or not flag.startswith("--no-")
            ]
            serve.add_argument(*flags, **options)
