# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The words of the command pd-guard, and the front that it opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front import files
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front.haproxy import HaproxyError
from ansible_collections.ascend.pd_rollout.plugins.module_utils._guard import main, routers
from guard_servers import told

COLOURS = [{"container": f"pd-router-{colour}", "colour": colour} for colour in files.COLOURS]
CLOSED = files.router_map("green", "no decoder answers")


class Haproxy:
    """A HAProxy that notes what it is told."""

    def __init__(self) -> None:
        self.dropped: list[tuple[str, str]] = []
        self.error: Exception | None = None

    def drop_map(self, path: str, key: str) -> None:
        if self.error is not None:
            raise self.error
        self.dropped.append((Path(path).name, key))


class Site:
    """A server whose guard has ended."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.haproxy, self.folder = Haproxy(), folder
        front = {"run": str(folder), "directory": str(folder), "drain_timeout": 60}
        content = told(folder, **{"front": front, "routers": COLOURS, **changes})
        self.config = folder / "guard.json"
        self.config.write_text(json.dumps(content), encoding="utf-8")
        self.map = folder / files.ROUTER
        self.map.write_text(CLOSED, encoding="utf-8")

    def open(self) -> int:
        return main.main(["open", str(self.config)])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setattr(routers, "Haproxy", lambda path: made.haproxy)
    return made


def test_a_front_that_was_left_closed_is_opened(site: Site) -> None:
    assert site.open() == 0
    assert site.haproxy.dropped == [(files.ROUTER, "closed")]
    assert site.map.read_text(encoding="utf-8") == "active green\n"


def test_a_front_that_is_open_is_left_alone(site: Site) -> None:
    site.map.write_text("active blue\n", encoding="utf-8")
    assert site.open() == 0
    assert site.haproxy.dropped == []
    assert site.map.read_text(encoding="utf-8") == "active blue\n"


def test_a_server_without_a_map_has_nothing_to_open(site: Site) -> None:
    site.map.unlink()
    assert (site.open(), site.haproxy.dropped, site.map.exists()) == (0, [], False)


@pytest.mark.parametrize("changes", [{"front": None}, {"routers": []}])
def test_a_guard_without_a_front_opens_none(site: Site, changes: dict[str, Any]) -> None:
    other = Site(site.folder, **changes)
    assert other.open() == 0
    assert site.haproxy.dropped == []
    assert other.map.read_text(encoding="utf-8") == CLOSED


@pytest.mark.parametrize("error", [HaproxyError("no answer"), OSError("no answer")])
def test_a_front_that_cannot_be_told_stays_as_it_is(
    site: Site, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that the file does not say what HAProxy does not do."""
    site.haproxy.error = error
    assert site.open() == 1
    assert capsys.readouterr().err == "no answer\n"
    assert site.map.read_text(encoding="utf-8") == CLOSED


@pytest.mark.parametrize("words", [["open"], ["open", "a", "b"], ["run"], ["close", "a"], ["canary", "a"]])
def test_other_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 64
    assert capsys.readouterr().err == main.USAGE
