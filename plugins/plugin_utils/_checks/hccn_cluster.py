# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the NPU network across servers: comparison of their results, the ping mesh, the table.

Pure functions over the results of hccn_check and hccn_ping; they run on the controller, once for all servers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...module_utils._findings import Finding, ordered
from ...module_utils._hccn.catalogue import HCCN_CHECKS, chip_words
from .host_cluster import python_old

MESHES = ("none", "ring", "pairs", "full")


@dataclass(frozen=True, eq=False)
class Server:
    """The part of one server's hccn_check result that is compared with other servers."""

    name: str
    fabric: str
    driver: str | None
    chips: tuple[Mapping[str, Any], ...]
    codes: frozenset[str]

    @classmethod
    def of(cls, name: str, result: Mapping[str, Any]) -> Server:
        return cls(
            name,
            result.get("fabric", "hccs"),
            result.get("driver"),
            tuple(result.get("chips") or ()),
            frozenset(finding["code"] for finding in result.get("findings") or ()),
        )

    def common(self, key: str) -> object:
        """Return the value that most chips have; None if no chip reports it."""
        values = Counter(chip[key] for chip in self.chips if chip.get(key) is not None)
        return values.most_common(1)[0][0] if values else None

    @property
    def has_roce(self) -> bool:
        """Whether every chip has a RoCE address and a link."""
        return bool(self.chips) and all(chip.get("ip") and chip.get("link") == "UP" for chip in self.chips)

    def address(self, chip: Mapping[str, Any]) -> str | None:
        """Return the address by which peers reach the chip; None if there is none, which has its own finding.

        If traffic uses both fabrics, RoCE is tested: the environment requires it in addition.
        """
        if self.fabric != "hccs":
            return chip.get("ip")
        return chip.get("vnic") if chip.get("vnic_status") == "UP" else None


def _names(servers: Iterable[Server]) -> str:
    return ", ".join(server.name for server in servers)


def _by(servers: Iterable[Server], key: str) -> list[tuple[object, list[Server]]]:
    """Group servers by a value of their chips, the most frequent first; without those that report none."""
    groups: dict[object, list[Server]] = defaultdict(list)
    for server in servers:
        value = server.driver if key == "driver" else server.common(key)
        if value is not None:
            groups[value].append(server)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def fabric_of(servers: Sequence[Server]) -> str:
    """Return the fabric that most servers report."""
    seen = Counter(server.fabric for server in servers)
    return seen.most_common(1)[0][0] if seen else "hccs"


def compare(servers: Sequence[Server]) -> list[Finding]:
    """Return the findings about differences between servers; each names the servers of the minority."""
    fabric = fabric_of(servers)
    found: list[Finding] = []
    seen_fabrics = {server.fabric for server in servers}
    if len(seen_fabrics) > 1:
        odd = [server for server in servers if server.fabric != fabric]
        found.append(
            HCCN_CHECKS.finding(
                "hccn-fabric-differs",
                f"{_names(odd)}: fabric {odd[0].fabric}, the others {fabric}",
                fabric=fabric,
                host=_names(odd),
                seen=odd[0].fabric,
                expected=fabric,
            )
        )
    # A server whose chips disagree, or that does not match the declaration, has its own finding for that.
    agreed = [s for s in servers if not s.codes & {"hccn-tls-mixed", "hccn-tls-unexpected"}]
    found += _differs("hccn-tls-differs", fabric, "TLS switch", _by(agreed, "tls"), with_chips=True)
    placed = [s for s in servers if not s.codes & {"hccn-super-pod-mixed", "hccn-super-pod-unexpected"}]
    # If RoCE is available too, HCCL uses it between super pods.
    pods = "roce" if fabric == "both" else fabric
    apart = _by(placed, "super_pod")
    over_roce = fabric == "hccs" and all(server.has_roce for _pod, members in apart for server in members)
    found += _differs(
        "hccn-super-pod-differs",
        pods,
        "Super Pod ID",
        apart,
        severity="warning" if over_roce else None,
        note="; traffic between them uses RoCE" if over_roce else "",
        cure="ansible-playbook playbooks/check.yml -e hccn_check_fabric=roce  # pings over RoCE"
        if over_roce
        else None,
    )
    found += _differs("npu-driver-differs", fabric, "driver", _by(servers, "driver"))
    for pod, members in _by(servers, "super_pod"):
        found += _duplicates(fabric, pod, members)
    carrier = "roce" if len(apart) > 1 else fabric
    found += _double("hccn-ip-duplicate", carrier, "RoCE address", "ip", servers, set())
    return ordered(found)


def _differs(
    code: str,
    fabric: str,
    name: str,
    groups: list[tuple[object, list[Server]]],
    with_chips: bool = False,
    severity: str | None = None,
    note: str = "",
    cure: str | None = None,
) -> list[Finding]:
    if len(groups) < 2:
        return []
    usual = groups[0][0]
    odd = [server for _value, members in groups[1:] for server in members]
    chips = {chip["chip"] for server in odd for chip in server.chips} if with_chips else set()
    seen = "; ".join(f"{name} {value} on {_names(members)}" for value, members in groups)
    message = f"{_names(odd)}: {name} differs from {_names(groups[0][1])}{note}"
    return [
        HCCN_CHECKS.finding(
            code,
            message,
            fabric=fabric,
            chips=chips,
            seen=seen,
            expected=f"{name} {usual} everywhere",
            host=_names(odd),
            severity=severity,
            cure=cure,
        )
    ]


def _duplicates(fabric: str, pod: object, members: Sequence[Server]) -> list[Finding]:
    """Return findings about values that must be unique in a super pod. The same Server Index on two servers
    explains equal SDIDs and vNIC addresses."""
    found = []
    explained: set[frozenset[str]] = set()
    for index, same in _by(members, "server_index"):
        if len(same) > 1:
            explained |= {frozenset((a.name, b.name)) for a in same for b in same if a is not b}
            found.append(
                HCCN_CHECKS.finding(
                    "hccn-server-index-duplicate",
                    f"{_names(same)} have the same Server Index, {index}",
                    fabric=fabric,
                    host=_names(same),
                    seen=f"Server Index {index} on {_names(same)} in super pod {pod}",
                )
            )
    found += _double("hccn-sdid-duplicate", fabric, "SDID", "sdid", members, explained)
    found += _double("hccn-vnic-duplicate", fabric, "vNIC address", "vnic", members, explained)
    return found


def _double(
    code: str, fabric: str, name: str, key: str, servers: Sequence[Server], explained: set[frozenset[str]]
) -> list[Finding]:
    """Return one finding for each pair of servers that share a value; ``explained`` pairs are left out."""
    holders: dict[object, list[tuple[str, int]]] = defaultdict(list)
    for server in servers:
        for chip in server.chips:
            if chip.get(key) is not None:
                holders[chip[key]].append((server.name, chip["chip"]))
    pairs: dict[tuple[str, str], list[tuple[object, int, int]]] = defaultdict(list)
    for value, places in holders.items():
        for at, (first, first_chip) in enumerate(places):
            for second, second_chip in places[at + 1 :]:
                if first != second and frozenset((first, second)) not in explained:
                    pairs[(first, second)].append((value, first_chip, second_chip))
    return [
        HCCN_CHECKS.finding(
            code,
            f"{first} {chip_words(c for _v, c, _o in same)} and "
            f"{second} {chip_words(o for _v, _c, o in same)} have the same {name}",
            fabric=fabric,
            chips=[c for _v, c, _o in same],
            host=f"{first}, {second}",
            seen=f"{same[0][0]} on both{f' and {len(same) - 1} more' if len(same) > 1 else ''}",
        )
        for (first, second), same in pairs.items()
    ]


# What ansible-core reports if a login or becoming root is refused (2.16 to 2.19).
_NO_SUDO = re.compile(r"\bsudo\b|become|privilege|password is required|not in the sudoers", re.IGNORECASE)
_NO_SSH = re.compile(r"\bssh\b|unreachable|could not be sent|Permission denied \(", re.IGNORECASE)


def why_not_checked(reason: str) -> str:
    """Return how a server refuses, judged by the message of the task that failed."""
    if _NO_SUDO.search(reason):
        return "sudo is refused: nothing could be checked"
    if not reason or _NO_SSH.search(reason):
        return "the server cannot be reached: nothing could be checked"
    return "the server could not be checked"


def not_checked(names: Iterable[str], reasons: Mapping[str, str]) -> list[Finding]:
    """Return a finding for each server without a result; ``reasons``: messages of failed tasks by server."""
    return [
        python_old(name, reasons.get(name) or "")
        or HCCN_CHECKS.finding(
            "hccn-not-checked",
            why_not_checked(reasons.get(name) or ""),
            host=name,
            seen=reasons.get(name) or "no result: unreachable, or an earlier task failed",
        )
        for name in names
    ]


# ---- The mesh


@dataclass(frozen=True)
class Target:
    """One ping: from a chip of a server to an address, which belongs to a chip of another server."""

    chip: int
    address: str
    peer: str
    peer_chip: int


def mesh(servers: Sequence[Server], kind: str) -> dict[str, list[Target]]:
    """Return the pings of each server, in the order in which each chip sends them.

    ``kind``: ``full``: every chip pings every chip of the other servers. ``pairs``: every chip pings the chip
    in the same position on every other server. ``ring``: as ``pairs``, but only on the next and the previous
    server, so the work per chip does not grow with the number of servers. Both directions are always tested.
    Every server starts with the next one, and every chip with its own counterpart, so that no chip is pinged
    by many at once.

    Chips without an address and servers in another super pod are left out: they already have a finding.
    """
    made: dict[str, list[Target]] = {server.name: [] for server in servers}
    if kind == "none":
        return made
    for at, server in enumerate(servers):
        rotated = [*servers[at + 1 :], *servers[:at]]
        if kind == "ring":
            rotated = list(dict.fromkeys((rotated[0], rotated[-1]))) if rotated else []
        for peer in rotated:
            if not _connected(server, peer):
                continue
            reachable = [(chip["chip"], peer.address(chip)) for chip in peer.chips]
            made[server.name] += _between(server, peer.name, [(c, a) for c, a in reachable if a], kind)
    return made


def _connected(server: Server, peer: Server) -> bool:
    if server.fabric != peer.fabric:
        return False
    return server.fabric != "hccs" or server.common("super_pod") == peer.common("super_pod")


def _between(server: Server, peer: str, reachable: Sequence[tuple[int, str]], kind: str) -> list[Target]:
    if not reachable:
        return []
    able = [chip["chip"] for chip in server.chips if server.address(chip)]
    by_chip = dict(reachable)
    targets = []
    for place, chip in enumerate(able):
        if kind == "full":
            first = place % len(reachable)
            order = [*reachable[first:], *reachable[:first]]
        elif chip in by_chip:
            order = [(chip, by_chip[chip])]
        elif len(by_chip) != len(able):
            # Instances of different size: a chip without a counterpart gets one in turn.
            order = [reachable[place % len(reachable)]]
        else:
            order = [reachable[place]]
        targets += [Target(chip, address, peer, peer_chip) for peer_chip, address in order]
    return targets


def judge_mesh(
    targets: Mapping[str, Sequence[Target]],
    results: Mapping[str, Mapping[str, Any]],
    required: Mapping[str, Iterable[str]] | None,
    fabric: str,
) -> list[Finding]:
    """Return the findings about pings, one for each pair of servers that fails.

    ``targets``: the pings of each server; ``results``: the results of hccn_ping by server; ``required``: the
    peers that each server must reach (None: all); ``fabric``: ``hccs``, ``roce`` or ``both``.
    """
    failed: dict[tuple[str, str], list[tuple[Target, str]]] = defaultdict(list)
    unknown: dict[tuple[str, str], list[tuple[Target, str]]] = defaultdict(list)
    tried: Counter[tuple[str, str]] = Counter()
    for name, result in results.items():
        bad = {(ping["chip"], ping["address"]): ping for ping in result.get("failed_pings") or ()}
        for target in targets.get(name, ()):
            tried[(name, target.peer)] += 1
            ping = bad.get((target.chip, target.address))
            if ping is not None:
                kind = unknown if ping.get("unknown") else failed
                kind[(name, target.peer)].append((target, ping["seen"]))
    found = [_not_made(name, seen, of_them, fabric) for (name, seen), of_them in _by_words(unknown).items()]
    for (name, peer), pairs in failed.items():
        needed = required is None or peer in required.get(name, ()) or name in required.get(peer, ())
        chips = sorted({target.chip for target, _seen in pairs})
        first, seen = pairs[0]
        command = f"hccn_tool -i {first.chip} -{ping_kind(fabric)} -g address {first.address}  # on {name}"
        back = "" if (peer, name) in failed or not tried[(peer, name)] else "; the other direction works"
        found.append(
            HCCN_CHECKS.finding(
                "hccn-ping-failed" if needed else "hccn-ping-optional",
                f"{name} {chip_words(chips)} → {peer}: "
                f"{len(pairs)} of {tried[(name, peer)]} pings fail{back}",
                fabric=fabric,
                chips=chips,
                host=name,
                seen=seen,
                command=command,
            )
        )
    return ordered(found)


def _by_words(
    unknown: Mapping[tuple[str, str], Sequence[tuple[Target, str]]],
) -> dict[tuple[str, str], list[Target]]:
    """Group the pings that were not sent by server and the tool's message, whatever their target."""
    groups: dict[tuple[str, str], list[Target]] = defaultdict(list)
    for (name, _peer), pairs in unknown.items():
        for target, seen in pairs:
            groups[(name, seen)].append(target)
    return groups


def _not_made(name: str, seen: str, targets: Sequence[Target], fabric: str) -> Finding:
    chips = sorted({target.chip for target in targets})
    first = targets[0]
    return HCCN_CHECKS.finding(
        "hccn-ping-unknown",
        f"{chip_words(chips)}: {len(targets)} pings were not sent",
        fabric=fabric,
        chips=chips,
        host=name,
        seen=seen,
        command=f"hccn_tool -i {first.chip} -{ping_kind(fabric)} -g address {first.address}  # on {name}",
    )


def ping_kind(fabric: str) -> str:
    """Return hccn_tool's name for a ping over this fabric."""
    return "hccs_ping" if fabric == "hccs" else "ping"


# ---- The report


def superseded(findings: Sequence[Finding]) -> list[Finding]:
    """Drop findings that another covers: "TLS is on", if it also differs between servers."""
    differs = any(finding.code == "hccn-tls-differs" for finding in findings)
    return [finding for finding in findings if not (differs and finding.code == "hccn-tls-on")]


def table(servers: Sequence[Server]) -> list[str]:
    """Return a table with one line for each server: the value of its chips, or how many have which."""
    rows: list[tuple[str, ...]] = [
        ("server", "chips", "link", "vNIC", "TLS", "super pod", "index", "NPU health", "driver")
    ]
    for server in servers:
        cells = [
            _cell(server, key)
            for key in ("link", "vnic_status", "tls", "super_pod", "server_index", "npu_health")
        ]
        rows.append((server.name, str(len(server.chips)), *cells, server.driver or "?"))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _cell(server: Server, key: str) -> str:
    values = Counter("?" if chip.get(key) is None else str(chip[key]) for chip in server.chips)
    if len(values) == 1:
        return next(iter(values))
    return " ".join(f"{number}×{value}" for value, number in values.most_common())
