# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""How to see that a container of the plan serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...module_utils._host.requirements import PlannedContainer, RankHealth


def planned_container(planned: Mapping[str, Any]) -> PlannedContainer:
    """Return a container of the plan (an engine's or the proxy's) and how to check that it serves."""
    nodes = (planned.get("ready") or {}).get("nodes") or ()
    group = len(nodes) > 1
    colour = planned.get("colour")
    instance = planned.get("instance") or (f"the {colour} router" if colour else "proxy")
    return PlannedContainer(
        container=planned["container"],
        title=f"node {planned['node_rank']} of {instance}" if group else instance,
        instance=planned.get("instance"),
        script_path=planned["script_path"],
        group=group,
        health_url=_health_url(planned),
        expect=planned.get("expected") or {},
        ranks=_ranks(planned),
        colour=colour,
    )


def health_checks(planned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the URLs that answer when a container of the plan serves, each with what the answer contains."""
    own = _health_url(planned)
    urls = [rank.health_url for rank in _ranks(planned)] or ([own] if own else [])
    return [{"url": url, "expect": dict(planned.get("expected") or {})} for url in urls]


def _health_url(planned: Mapping[str, Any]) -> str | None:
    url: str | None = planned.get("health_url")
    return url or (_health(planned["api"]) if planned.get("api") else None)


def _ranks(planned: Mapping[str, Any]) -> tuple[RankHealth, ...]:
    return tuple(RankHealth(rank["rank"], _health(rank["api"])) for rank in planned.get("ranks") or ())


def _health(api: Mapping[str, Any]) -> str:
    return f"http://{api['host']}:{api['port']}/health"
