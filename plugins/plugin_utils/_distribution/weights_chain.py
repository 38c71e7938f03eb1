# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Who needs the weights, who has them, and who takes them from whom. Pure functions; no Ansible.

A chain: every server takes from the one before it. What one of them sends crosses its NIC once, whatever
their number, and since files go on as they come, the last server is only a few files behind the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...module_utils._findings import Finding, errors_of
from ...module_utils._transfer.catalogue import TRANSFER_CHECKS

# What another copy of the weights cures. Anything else is the matter of whoever owns the server.
CURED_BY_COPY = frozenset(
    {
        "weights-path-missing",
        "weights-absent",
        "weights-incomplete-download",
        "weights-index-missing",
        "weights-index-invalid",
        "weights-index-mismatch",
        "weights-shard-missing",
        "weights-shard-truncated",
        "weights-shard-oversized",
        "weights-shard-corrupt",
        "weights-shard-lfs-pointer",
        "weights-config-missing",
        "weights-config-invalid",
        "weights-tokenizer-missing",
        "weights-tokenizer-invalid",
        "weights-quant-description-missing",
        "weights-hash-mismatch",
    }
)
# Sources outside of the servers, and what each needs to be named.
OUTSIDE = {
    "modelscope": "model_weights_id",
    "huggingface": "model_weights_id",
    "controller": "model_weights_directory",
}
# How many servers of the chain behind the nearest one are asked when that one dies, and the first at last.
FALLBACKS = 3


@dataclass(frozen=True)
class Server:
    """What the look at one server's weights gave."""

    name: str
    fingerprint: str
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> list[Finding]:
        return [replace(error, host=self.name) for error in errors_of(self.findings)]

    @property
    def whole(self) -> bool:
        return not self.errors

    @property
    def curable(self) -> bool:
        return all(finding.code in CURED_BY_COPY for finding in self.errors)

    @property
    def damaged(self) -> list[str]:
        """Files that are there and not what they should be."""
        return sorted(
            {
                name
                for finding in self.errors
                if finding.code not in ("weights-shard-missing", "weights-index-missing")
                for name in finding.files
            }
        )


@dataclass(frozen=True)
class Need:
    """Who gets the weights, and where they come from."""

    wanted: tuple[str, ...] = ()
    seed: str = ""
    # Whether the seed has to be given them first, from outside.
    outside: bool = False
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Chain:
    """Who takes from whom: a server's sources, nearest first; and who sees another's file system."""

    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    @property
    def members(self) -> list[str]:
        return list(self.sources)

    def clients(self, name: str) -> list[str]:
        """The servers that may take from this one."""
        return [other for other, sources in self.sources.items() if name in sources]


def need(servers: Sequence[Server], source: str, named: Mapping[str, str], seed: str = "") -> Need:
    """Decide from the look at all servers; every reason against it at once.

    C(named) has the values of what OUTSIDE asks for; C(seed) is the server that shall have them first.
    """
    wanted = tuple(server.name for server in servers if not server.whole)
    if not wanted:
        return Need(findings=tuple(_different(servers)))
    findings = [error for server in servers if not server.curable for error in server.errors]
    findings += _different(servers)
    whole = [server.name for server in servers if server.whole]
    names = [server.name for server in servers]
    if seed and seed not in names:
        findings.append(
            TRANSFER_CHECKS.finding(
                "weights-seed-unknown",
                variable="model_weights_seed",
                seen=f'"{seed}", which this play does not reach',
                expected=f"one of {', '.join(names)}",
            )
        )
    if not whole and source in OUTSIDE and not named.get(OUTSIDE[source]):
        findings.append(
            TRANSFER_CHECKS.finding(
                "weights-source-unnamed",
                variable=OUTSIDE[source],
                seen=f"nothing, and pd_weights_source is {source}",
                cure=f"set {OUTSIDE[source]}",
            )
        )
    if not whole and source not in OUTSIDE:
        seen = f"{source}, and the weights are complete on none of {', '.join(names)}"
        findings.append(TRANSFER_CHECKS.finding("weights-no-source", variable="pd_weights_source", seen=seen))
        findings += [error for server in servers if server.curable for error in server.errors]
    if findings:
        return Need(wanted=wanted, findings=tuple(findings))
    if whole:
        return Need(wanted=wanted, seed=seed if seed in whole else whole[0])
    return Need(wanted=wanted, seed=seed or wanted[0], outside=True)


def _different(servers: Sequence[Server]) -> list[Finding]:
    """Servers whose weights are whole, and not the same."""
    by_print: dict[str, list[str]] = {}
    for server in servers:
        if server.whole:
            by_print.setdefault(server.fingerprint, []).append(server.name)
    if len(by_print) < 2:
        return []
    groups = sorted(by_print.values(), key=len, reverse=True)
    return [
        TRANSFER_CHECKS.finding(
            "weights-differ",
            host=", ".join(group),
            seen=f"complete weights that are not those of {', '.join(groups[0])}",
        )
        for group in groups[1:]
    ]


def groups(seen: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """For each server the first of those that share its file system: itself, if it shares with none.

    C(seen) has, for each server, the servers whose files it sees beside its weights.
    """
    first = {name: name for name in seen}

    def root(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    for name, others in seen.items():
        for other in others:
            if other in first:
                nearer, farther = sorted((root(name), root(other)), key=list(seen).index)
                first[farther] = nearer
    return {name: root(name) for name in seen}


def chain(wanted: Sequence[str], seed: str, seen: Mapping[str, Sequence[str]]) -> Chain:
    """The seed, and behind it one server of each file system that lacks the weights."""
    order = [seed, *(name for name in wanted if name != seed)]
    group = groups({name: seen.get(name, ()) for name in order})
    members = [name for name in order if group[name] == name]
    shared = {name: group[name] for name in order if group[name] != name}
    sources: dict[str, tuple[str, ...]] = {}
    for position, name in enumerate(members):
        before = members[:position][::-1]
        near = before[:FALLBACKS]
        sources[name] = tuple(near if seed in near or not before else [*near, seed])
    return Chain(sources=sources, shared=shared)
