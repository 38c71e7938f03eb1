"""The committed data files are what the real parser yields."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from .conftest import ENGINE, ROOT, VERSION, source

# Long options of `vllm serve` (docs/upstream-facts.md, "Releases").
COUNTS = {"0.13.0": 246, "0.18.0": 289, "0.23.0": 331}
PLANNER = ROOT / "plugins" / "plugin_utils" / "rollout" / "data" / "vllm" / f"{VERSION}.yml"


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (ENGINE / "data" / f"vllm_serve_{VERSION}.json").read_text(encoding="utf-8")
    )
    return found


def test_data_file_is_the_real_parsers(generator: ModuleType) -> None:
    assert generator.describe(source()) == committed()


def test_the_planners_file_is_its_short_form(generator: ModuleType) -> None:
    assert PLANNER.read_text(encoding="utf-8") == generator.short_form(committed())


def test_counts_are_those_of_the_release() -> None:
    flags = {flag for row in committed()["options"] for flag in row["flags"] if flag.startswith("--")}
    assert len(flags | {"--help"}) == COUNTS[VERSION]
