# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by the filters: reading their input, and turning the planner's errors into Ansible's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from ansible.errors import AnsibleFilterError

from .rollout.releases import Release, load_release, release_names
from .rollout.values import BadValue, whole

T = TypeVar("T")

# More nodes than any cluster has, so that a typo cannot create a list of a billion IDs.
MAX_NODES = 100_000


def guarded(function: Callable[..., T]) -> Callable[..., T]:
    """Wrap a filter so that BadValue becomes an AnsibleFilterError with the expected value."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> T:
        try:
            return function(*args, **kwargs)
        except BadValue as error:
            seen = "" if error.seen is None else f", not {error.seen!r}"
            problem = error.message or f"expected {error.expected}{seen}"
            raise AnsibleFilterError(f"ascend.pd_rollout.{function.__name__}: {problem}") from None

    return wrapper


def count(name: str, value: Any, high: int = MAX_NODES, low: int = 1) -> int:
    """Return the value as a whole number from low to high. Raises BadValue; ``name`` is for its message."""
    try:
        return whole(low, high)(value)
    except BadValue as error:
        raise BadValue(f"{name} to be {error.expected}", seen=value) from None


def node_counts(value: Any) -> list[int]:
    """Return the number of nodes of each instance. Raises BadValue."""
    if not isinstance(value, (list, tuple)):
        raise BadValue("a list with the number of nodes of each instance", seen=value)
    counts = [count("a number of nodes", item) for item in value]
    if sum(counts) > MAX_NODES:
        raise BadValue(f"at most {MAX_NODES} nodes", seen=sum(counts))
    return counts


def known_release(name: Any) -> Release:
    try:
        return load_release(str(name))
    except KeyError:
        raise BadValue(f"a release of {', '.join(release_names())}", seen=name) from None


def whole_plan(plan: Any) -> Mapping[str, Any]:
    """Return the value if it is a plan, judged by the keys that the filters read. Raises BadValue."""
    if not isinstance(plan, Mapping) or "ports" not in plan or not isinstance(plan.get("hosts"), Mapping):
        raise BadValue("the plan that ascend.pd_rollout.plan makes")
    return plan


def host_share(plan: Any, host: Any) -> Mapping[str, Any]:
    """Return one host's share of a plan. Raises BadValue."""
    hosts = whole_plan(plan)["hosts"]
    if host not in hosts:
        raise BadValue(f"a host of the plan: {', '.join(map(str, hosts))}", seen=host)
    share: Mapping[str, Any] = hosts[host]
    return share
