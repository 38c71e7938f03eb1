#!/usr/bin/env python3
"""Write down what vllm-router accepts, read from its own argument parser.

The wheel is the one that the planner's data pins. It is fetched by pip, which honours the site's
configuration, or named:

    .venv/bin/python scripts/gen_router_args.py [--wheel FILE] [--output FILE]

The planner reads the file; the conformance tests compare it with a fresh run.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "plugins" / "plugin_utils" / "rollout" / "data"
# Its Python part is the same in the wheels of all architectures.
MACHINE = "x86_64"
MODULE = "vllm_router/router_args.py"
KINDS = {int: "int", float: "float", str: "str", None: "str"}


def pinned() -> tuple[str, str, str]:
    """Return the version, and the wheel's name and hash."""
    data = yaml.safe_load((DATA / "routers" / "vllm_router.yml").read_text(encoding="utf-8"))
    name = next(name for name in data["wheels"][MACHINE] if name.startswith("vllm_router-"))
    return str(data["version"]), name, str(data["wheels"][MACHINE][name])


def fetch(folder: Path) -> Path:
    """Fetch the pinned wheel into a folder."""
    version, name, _ = pinned()
    requirement = f"vllm-router=={version}"
    words = ["download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    words += ["--only-binary", ":all:", "--platform", f"manylinux_2_28_{MACHINE}", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *words, requirement], check=True)
    return folder / name


def load(wheel: Path, folder: Path) -> ModuleType:
    """Import the module with the parser's options from a wheel whose hash is the pinned one."""
    found, wanted = hashlib.sha256(wheel.read_bytes()).hexdigest(), pinned()[2]
    if found != wanted:
        raise SystemExit(f"{wheel.name} has sha256 {found}, expected {wanted}: not used.")
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(MODULE, folder))
    spec = importlib.util.spec_from_file_location("vllm_router_args", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def parser_of(module: ModuleType) -> argparse.ArgumentParser:
    """Return the launcher's parser, built as it builds it."""
    parser = argparse.ArgumentParser()
    module.RouterArgs.add_cli_args(parser, use_router_prefix=False)
    return parser


def kind_of(action: argparse.Action) -> str | list[str]:
    """Return the kind of an option's value, or its choices."""
    name = type(action).__name__
    if name == "_StoreTrueAction":
        return "switch"
    if name == "_AppendAction":
        return "repeated"
    if name != "_StoreAction":
        raise SystemExit(f"{action.option_strings} has an action that is not known: {name}")
    if action.choices is not None:
        return list(cast("list[str]", action.choices))
    kind = KINDS[cast("Any", action.type)]
    return "words" if action.nargs in ("*", "+") and kind == "str" else kind


def options(parser: argparse.ArgumentParser) -> dict[str, str | list[str]]:
    """Return every long option with the kind of its value."""
    return {
        flag.removeprefix("--"): kind_of(action)
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
        for flag in action.option_strings
        if flag.startswith("--")
    }


def text(described: dict[str, str | list[str]]) -> Iterator[str]:
    """Yield the lines of the data file."""
    yield "---"
    yield f"# The options of vllm-router {pinned()[0]}, by scripts/gen_router_args.py from its parser."
    yield "# int, float, str: one value. words: several. repeated: the option once for each. switch: none."
    yield "# A list: one of these."
    yield "options:"
    for name, kind in sorted(described.items()):
        if isinstance(kind, str):
            yield f"  {name}: {kind}"
        else:
            yield f"  {name}:"
            yield from (f"    - {json.dumps(choice)}" for choice in kind)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="the wheel (default: fetched by pip)")
    default = DATA / "router_options" / f"{pinned()[0]}.yml"
    parser.add_argument("--output", type=Path, default=default, help="where to write (default: %(default)s)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = asked.wheel or fetch(Path(folder))
        described = options(parser_of(load(wheel, Path(folder))))
    asked.output.write_text("\n".join(text(described)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
