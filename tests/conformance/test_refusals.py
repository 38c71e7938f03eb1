"""Whatever the rules refuse, the real engine refuses too, where it checks it itself; and it starts with the
nearest inventory that the rules let through (refusals.yml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import yaml

from .asked import ask, key
from .conftest import ROOT
from .planned import RELEASE, Planned, planned, small

TABLE: dict[str, Any] = yaml.safe_load(
    (ROOT / "tests" / "conformance" / "refusals.yml").read_text(encoding="utf-8")
)
NOBODY = "nobody"


def of_release(value: Any) -> Any:
    """A fact of the table as this release has it."""
    return value.get(RELEASE, value["default"]) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Case:
    """One line of the table, as this release has it."""

    number: int
    row: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.row['rule']}-{self.number}"

    def fact(self, name: str) -> Any:
        return of_release(self.row.get(name))

    @cached_property
    def broken(self) -> Planned:
        return planned(small(self.row["broken"]))

    @cached_property
    def kept(self) -> Planned:
        return planned(small(self.row["kept"]))

    def requests(self, side: Planned) -> list[dict[str, Any]]:
        """Every server of the plan; of its workers the first is enough."""
        found = []
        for server in side.servers():
            request = server.request()
            request["ranks"] = request["ranks"][:1]
            if side is self.broken:
                request["env"] = {**request["env"], **self.row.get("launch", {})}
            found.append(request)
        return found


CASES = [
    Case(number, row)
    for number, row in enumerate(TABLE["cases"])
    if RELEASE in row.get("releases", [RELEASE])
]


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    return ask(
        request for case in CASES for side in (case.broken, case.kept) for request in case.requests(side)
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rule_and_the_engine_refuse(case: Case, answers: dict[str, dict[str, Any]]) -> None:
    assert case.row["rule"] in case.broken.errors
    refused = [
        answer for request in case.requests(case.broken) if not (answer := answers[key(request)])["accepted"]
    ]
    if case.fact("by") == NOBODY:
        assert not refused
        return
    wanted = (case.fact("by"), case.fact("type"))
    said = [answer["message"] for answer in refused if (answer["by"], answer["type"]) == wanted]
    assert any(case.fact("says") in message for message in said), refused


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_good_side_is_planned_and_starts(case: Case, answers: dict[str, dict[str, Any]]) -> None:
    assert not case.kept.errors
    for request in case.requests(case.kept):
        assert answers[key(request)]["accepted"], answers[key(request)]
