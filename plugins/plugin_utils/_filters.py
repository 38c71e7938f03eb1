# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by the filters: reading their input, and turning the planner's errors into Ansible's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from ansible.errors import AnsibleFilterError

from .rollout.names import INSTANCE_EXPECTED, host_allowed, instance_allowed
from .rollout.releases import Release, load_release, release_names
from .rollout.values import BadValue, read_chips, whole

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


@dataclass(frozen=True)
class GivenInstance:
    """An instance as a filter gets it."""

    name: str
    # Its servers in the order of its node ranks; unnamed ones are its own.
    servers: tuple[str, ...]
    # The chips that it uses on each of them, ascending; None: all.
    chips: tuple[int, ...] | None = None


def given_instances(value: Any) -> list[GivenInstance]:
    """Return instances from a mapping of their names to numbers of nodes, or from a list of mappings with
    name, nodes and chips. Raises BadValue."""
    if isinstance(value, Mapping):
        value = [{"name": name, "nodes": nodes} for name, nodes in value.items()]
    if not isinstance(value, (list, tuple)):
        raise BadValue("instances: their names with numbers of nodes, or a list", seen=value)
    found = [_given_instance(item) for item in value]
    twice = [name for name, times in Counter(one.name for one in found).items() if times > 1]
    if twice:
        raise BadValue("each instance once", seen=twice[0])
    total = sum(len(one.servers) for one in found)
    if total > MAX_NODES:
        raise BadValue(f"at most {MAX_NODES} nodes", seen=total)
    return found


def _given_instance(item: Any) -> GivenInstance:
    if not isinstance(item, Mapping) or "name" not in item or not set(item) <= {"name", "nodes", "chips"}:
        raise BadValue("an instance with name, nodes and chips", seen=item)
    name, nodes, chips = item["name"], item.get("nodes", 1), item.get("chips")
    if not isinstance(name, str) or not instance_allowed(name):
        raise BadValue(f"the name of an instance of {INSTANCE_EXPECTED}", seen=name)
    if isinstance(nodes, (list, tuple)):
        if not nodes or not all(isinstance(node, str) and host_allowed(node) for node in nodes):
            raise BadValue("nodes to be a number or the names of servers", seen=nodes)
        servers = tuple(str(node) for node in nodes)
    else:
        # No server of the inventory has a slash in its name.
        servers = tuple(f"{name}/{rank}" for rank in range(count("a number of nodes", nodes)))
    return GivenInstance(str(name), servers, None if chips is None else read_chips(chips))


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
