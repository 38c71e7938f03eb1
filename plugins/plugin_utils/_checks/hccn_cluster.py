# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What only shows between servers: comparison of their results, the ping mesh, and the report of all.

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
    """The result of hccn_check of one server, as far as servers are compared."""

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
            frozenset(one["code"] for one in result.get("findings") or ()),
        )

    def common(self, key: str) -> object:
        """The value that most chips have; None where no chip says it."""
        values = Counter(chip[key] for chip in self.chips if chip.get(key) is not None)
        return values.most_common(1)[0][0] if values else None

    @property
    def has_roce(self) -> bool:
        """Whether every chip has a RoCE address and a link."""
        return bool(self.chips) and all(chip.get("ip") and chip.get("link") == "UP" for chip in self.chips)

    def address(self, chip: Mapping[str, Any]) -> str | None:
        """What peers reach the chip by; None where nothing reaches it, which has its own finding.

        Where traffic goes over both, RoCE is tried: it is what the environment demands on top.
        """
        if self.fabric != "hccs":
            return chip.get("ip")
        return chip.get("vnic") if chip.get("vnic_status") == "UP" else None


def _names(servers: Iterable[Server]) -> str:
    return ", ".join(server.name for server in servers)


def _by(servers: Iterable[Server], key: str) -> list[tuple[object, list[Server]]]:
    """Servers by a value of their chips, the most frequent first; those that do not say it left out."""
    groups: dict[object, list[Server]] = defaultdict(list)
    for server in servers:
        value = server.driver if key == "driver" else server.common(key)
        if value is not None:
            groups[value].append(server)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def fabric_of(servers: Sequence[Server]) -> str:
    """The fabric that most servers see."""
    seen = Counter(server.fabric for server in servers)
    return seen.most_common(1)[0][0] if seen else "hccs"


def compare(servers: Sequence[Server]) -> list[Finding]:
    """What does not fit together, with the servers that are in the minority as the place."""
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
    # Servers that are at odds with themselves, or with what is declared, have their own finding for that.
    agreed = [s for s in servers if not s.codes & {"hccn-tls-mixed", "hccn-tls-unexpected"}]
    found += _differs("hccn-tls-differs", fabric, "TLS switch", _by(agreed, "tls"), with_chips=True)
    placed = [s for s in servers if not s.codes & {"hccn-super-pod-mixed", "hccn-super-pod-unexpected"}]
    # Where RoCE is there too, HCCL takes it between super pods.
    pods = "roce" if fabric == "both" else fabric
    apart = _by(placed, "super_pod")
    over_roce = fabric == "hccs" and all(server.has_roce for _pod, members in apart for server in members)
    found += _differs(
        "hccn-super-pod-differs",
        pods,
        "Super Pod ID",
        apart,
        severity="warning" if over_roce else None,
        note="; between them all goes over RoCE" if over_roce else "",
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
    seen = "; ".join(f"{name} {value} at {_names(members)}" for value, members in groups)
    message = f"{_names(odd)}: another {name} than {_names(groups[0][1])}{note}"
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
    """What may stand once in a super pod. One index at two servers explains equal SDIDs and vNICs."""
    found = []
    explained: set[frozenset[str]] = set()
    for index, same in _by(members, "server_index"):
        if len(same) > 1:
            explained |= {frozenset((a.name, b.name)) for a in same for b in same if a is not b}
            found.append(
                HCCN_CHECKS.finding(
                    "hccn-server-index-duplicate",
                    f"{_names(same)} have one Server Index, {index}",
                    fabric=fabric,
                    host=_names(same),
                    seen=f"Server Index {index} at {_names(same)} in super pod {pod}",
                )
            )
    found += _double("hccn-sdid-duplicate", fabric, "SDID", "sdid", members, explained)
    found += _double("hccn-vnic-duplicate", fabric, "vNIC address", "vnic", members, explained)
    return found


def _double(
    code: str, fabric: str, name: str, key: str, servers: Sequence[Server], explained: set[frozenset[str]]
) -> list[Finding]:
    """Values that two servers both have: one finding for each pair of servers."""
    holders: dict[object, list[tuple[str, int]]] = defaultdict(list)
    for server in servers:
        for chip in server.chips:
            if chip.get(key) is not None:
                holders[chip[key]].append((server.name, chip["chip"]))
    pairs: dict[tuple[str, str], list[tuple[object, int, int]]] = defaultdict(list)
    for value, places in holders.items():
        for at, (first, one) in enumerate(places):
            for second, other in places[at + 1 :]:
                if first != second and frozenset((first, second)) not in explained:
                    pairs[(first, second)].append((value, one, other))
    return [
        HCCN_CHECKS.finding(
            code,
            f"{first} {chip_words(c for _v, c, _o in same)} and "
            f"{second} {chip_words(o for _v, _c, o in same)} have one {name}",
            fabric=fabric,
            chips=[c for _v, c, _o in same],
            host=f"{first}, {second}",
            seen=f"{same[0][0]} at both{f' and {len(same) - 1} more' if len(same) > 1 else ''}",
        )
        for (first, second), same in pairs.items()
    ]


# What ansible-core says where a login or the way to root is refused (2.16 to 2.19).
_NO_SUDO = re.compile(r"\bsudo\b|become|privilege|password is required|not in the sudoers", re.IGNORECASE)
_NO_SSH = re.compile(r"\bssh\b|unreachable|could not be sent|Permission denied \(", re.IGNORECASE)


def why_not_checked(reason: str) -> str:
    """In which way a server refuses, from the words of the task that failed."""
    if _NO_SUDO.search(reason):
        return "sudo is refused: nothing could be checked"
    if not reason or _NO_SSH.search(reason):
        return "the server is not reached: nothing could be checked"
    return "the server could not be checked"


def not_checked(names: Iterable[str], reasons: Mapping[str, str]) -> list[Finding]:
    """Servers without a result."""
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
    """Who pings whom, in the order in which each chip does it.

    full: every chip every chip of the other servers. pairs: every chip its peer of the same place on every
    other server. ring: only on the next and on the previous server, so the work per chip does not grow with
    the servers. Both directions are always there. Every server begins with the one after it, and every chip
    with its own peer, so that no chip is pinged by many at once.

    Chips without an address and servers in another super pod are left out: those have a finding already.
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


def _connected(one: Server, other: Server) -> bool:
    if one.fabric != other.fabric:
        return False
    return one.fabric != "hccs" or one.common("super_pod") == other.common("super_pod")


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
            # Instances of different size: a chip without a peer of its id takes one in turn.
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
    """Failed pings by pair of servers. `required`: whom each server must talk to; None: all with all."""
    failed: dict[tuple[str, str], list[tuple[Target, str]]] = defaultdict(list)
    unknown: dict[tuple[str, str], list[tuple[Target, str]]] = defaultdict(list)
    tried: Counter[tuple[str, str]] = Counter()
    for name, result in results.items():
        bad = {(one["chip"], one["address"]): one for one in result.get("failed_pings") or ()}
        for target in targets.get(name, ()):
            tried[(name, target.peer)] += 1
            one = bad.get((target.chip, target.address))
            if one is not None:
                kind = unknown if one.get("unknown") else failed
                kind[(name, target.peer)].append((target, one["seen"]))
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
    """Pings that were none by server and the tool's words: whom they were for does not matter."""
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
        f"{chip_words(chips)}: {len(targets)} pings were not made",
        fabric=fabric,
        chips=chips,
        host=name,
        seen=seen,
        command=f"hccn_tool -i {first.chip} -{ping_kind(fabric)} -g address {first.address}  # on {name}",
    )


def ping_kind(fabric: str) -> str:
    """`hccn_tool`'s word for a ping over this fabric."""
    return "hccs_ping" if fabric == "hccs" else "ping"


# ---- The report


def superseded(findings: Sequence[Finding]) -> list[Finding]:
    """Without what another finding says better: TLS on, where it also differs between servers."""
    differs = any(one.code == "hccn-tls-differs" for one in findings)
    return [one for one in findings if not (differs and one.code == "hccn-tls-on")]


def table(servers: Sequence[Server]) -> list[str]:
    """One line a server: what its chips say, `3 of 16` where they do not agree."""
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
