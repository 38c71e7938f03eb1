# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What a server must fulfil: the plan's requirements, and the limits that the role's variables set.

The filter host_requirements makes the requirements from the plan, and the module host_check reads them again;
between the two they are a JSON object with the names of the fields as keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


def _given(cls: type, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a dataclass that a JSON object has; unknown keys and null values are left out."""
    return {known.name: value[known.name] for known in fields(cls) if value.get(known.name) is not None}


@dataclass(frozen=True)
class PlannedPorts:
    """A row of the plan's port table; ``first`` and ``last`` are both included.

    ``instance``: the one that the ports belong to, or None; ``bound``: a process of the deployment listens on
    every port, otherwise a library picks some of them.
    """

    first: int
    last: int
    purpose: str
    instance: str | None = None
    bound: bool = False

    def covers(self, port: int) -> bool:
        """Return whether the port is one of these."""
        return self.first <= port <= self.last

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PlannedPorts:
        """Return the row from a JSON object; unknown keys are ignored."""
        return cls(**_given(cls, value))


@dataclass(frozen=True)
class RankHealth:
    """The health check of a data-parallel rank that has an API server of its own."""

    rank: int
    health_url: str


@dataclass(frozen=True)
class PlannedContainer:
    """A planned container, an engine's or the proxy's, and how to check that it serves.

    ``title``: its name in findings; ``instance``: None for the proxy; ``group``: whether it is one of several
    nodes of its instance; ``health_url``: None if it has no API server; ``expect``: what the answer must
    contain; ``ranks``: the ranks with an API server each, whose health checks replace ``health_url``;
    ``colour``: of one of the two routers behind a front, of which only the active one must run.
    """

    container: str
    title: str
    script_path: str
    instance: str | None = None
    group: bool = False
    health_url: str | None = None
    expect: Mapping[str, Any] = field(default_factory=dict)
    ranks: tuple[RankHealth, ...] = ()
    colour: str | None = None

    @property
    def health_urls(self) -> list[str]:
        """The URLs of all health checks; empty if the container serves no API."""
        if self.ranks:
            return [rank.health_url for rank in self.ranks]
        return [self.health_url] if self.health_url else []

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**vars(self), "expect": dict(self.expect), "ranks": [asdict(rank) for rank in self.ranks]}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PlannedContainer:
        """Return the container from a JSON object; unknown keys are ignored."""
        ranks = tuple(RankHealth(**_given(RankHealth, rank)) for rank in value.get("ranks") or ())
        return cls(**{**_given(cls, value), "ranks": ranks})


@dataclass(frozen=True)
class PlannedFront:
    """The planned front: its directory on the server, its units without the suffix, and what it needs of the
    operating system's packages, which have the names of their programs."""

    directory: str
    units: tuple[str, ...]
    packages: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**vars(self), "units": list(self.units), "packages": list(self.packages)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PlannedFront:
        """Return the front from a JSON object; unknown keys are ignored."""
        given = _given(cls, value)
        return cls(**{**given, "units": tuple(given["units"]), "packages": tuple(given["packages"])})


@dataclass(frozen=True)
class PlannedGuard:
    """The planned guard: its unit without the suffix, and the directory in which it says what it sees."""

    unit: str
    run: str

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PlannedGuard:
        """Return the guard from a JSON object; unknown keys are ignored."""
        return cls(**_given(cls, value))


@dataclass(frozen=True)
class HostRequirements:
    """The plan's requirements for one server, reduced to what its check needs.

    ``address``: its service address; ``directory``: of the launch scripts; ``paths``: what the containers
    mount; ``peers``: the addresses of the servers that it must reach, by name; ``interface``: the declared
    NIC, or None; ``driver``, ``firmware``: the versions that the release recommends, or None; ``npu_smi``:
    its path in the containers' mounts, or None; ``clients``: the servers that connect to its ports; ``shm``:
    the containers' shared memory in bytes; ``advertise``: the address that each engine advertises, None if
    the engine determines it by itself; ``serving``: the containers; ``front``, ``guard``: None if none is
    planned.
    """

    address: str
    directory: str
    chips: tuple[int, ...]
    devices: tuple[str, ...]
    paths: tuple[str, ...]
    ports: tuple[PlannedPorts, ...]
    peers: Mapping[str, str]
    name: str = ""
    deployment: str = ""
    image: str = ""
    interface: str | None = None
    driver: str | None = None
    firmware: str | None = None
    npu_smi: str | None = None
    clients: tuple[str, ...] = ()
    shm: int = 0
    advertise: tuple[str | None, ...] = ()
    serving: tuple[PlannedContainer, ...] = ()
    front: PlannedFront | None = None
    guard: PlannedGuard | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return them as a JSON object.

        Not by ``asdict``, which copies mappings: those of Ansible's templates refuse that.
        """
        plain = {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()
        }
        return {
            **plain,
            "ports": [asdict(row) for row in self.ports],
            "peers": dict(self.peers),
            "serving": [container.to_dict() for container in self.serving],
            "front": self.front.to_dict() if self.front else None,
            "guard": asdict(self.guard) if self.guard else None,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> HostRequirements:
        """Return the requirements from a JSON object; unknown keys are ignored.

        Raises TypeError if a key without a default is absent.
        """
        given = _given(cls, value)
        for name, item in given.items():
            if isinstance(item, list):
                given[name] = tuple(item)
        if "ports" in given:
            given["ports"] = tuple(map(PlannedPorts.from_dict, given["ports"]))
        if "serving" in given:
            given["serving"] = tuple(map(PlannedContainer.from_dict, given["serving"]))
        if "front" in given:
            given["front"] = PlannedFront.from_dict(given["front"])
        if "guard" in given:
            given["guard"] = PlannedGuard.from_dict(given["guard"])
        return cls(**given)


@dataclass(frozen=True)
class Limits:
    """What the role's variables require, in GB (10^9 bytes); 0 disables the check."""

    image_gigabytes: float = 0.0
    weights_gigabytes: float = 0.0
    weights_path: str = ""
    memory_gigabytes: float = 0.0
    image_archive: str = ""
    # The oldest firmware that is accepted; empty: the one listed for the release, if any.
    firmware_minimum: str = ""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Limits:
        """Return the limits from the options of host_check."""
        return cls(**_given(cls, options))
