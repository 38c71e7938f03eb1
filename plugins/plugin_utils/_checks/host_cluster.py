# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the checks of servers need from the plan, and the checks that compare servers.

Pure functions; they run on the controller, once for all servers.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...module_utils._findings import ERROR, WARNING, Finding, errors_of, numbers, ordered
from ...module_utils._host.catalogue import HOST_CHECKS
from ...module_utils._host.parsers import closes, concerns
from ...module_utils._host.requirements import (
    HostRequirements,
    PlannedFront,
    PlannedGuard,
    PlannedPorts,
)
from ...module_utils._serving.guard_unit import unit_of
from .._distribution.weights_chain import CURED_BY_COPY
from .._run import server_python
from .._serving.health import planned_container

# hccn_check has findings of its own for these.
_CHECKED_BY_HCCN = frozenset(
    {
        "/etc/hccn.conf",
        "/usr/local/Ascend/driver/tools/hccn_tool",
        "/usr/local/bin/npu-smi",
        "/usr/local/Ascend/driver/version.info",
    }
)
_SIZES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_API, _HANDSHAKE, _GUARD = "API", "KV handshake", "guard"
# The routers; and what only those who are outside of the plan connect to.
_ROUTERS = ("proxy", "blue router", "green router")
_OUTSIDE = (*(f"{router}'s metrics" for router in _ROUTERS), "front", "front's metrics")


def requirements(
    plan: Mapping[str, Any],
    share: Mapping[str, Any],
    name: str,
    driver: str | None,
    firmware: str | None = None,
) -> HostRequirements:
    """Return the plan's requirements for one server, reduced to what its check needs.

    ``plan``: the whole plan; ``share``: the server's part of it; ``name``: the server's; ``driver`` and
    ``firmware``: the versions that the release recommends, or None.
    """
    engines = share["engines"]
    model = {engine.get("model_path") for engine in engines}
    paths = dict.fromkeys(mount["source"] for engine in engines for mount in engine["mounts"])
    below = str(share["directory"]).rstrip("/") + "/"
    planned = [engine for engine in engines if engine.get("container")]
    # Of the two routers behind a front, the server knows which one must run.
    planned += [router for router in share["routers"] if router.get("container")]
    # Plans of earlier revisions know no guard.
    front, guard = share["front"], share.get("guard")
    callers = {caller for row in share["ports"] for caller in clients(plan, {**row, "host": name})}
    return HostRequirements(
        name=name,
        address=share["address"],
        interface=share["interface"],
        directory=share["directory"],
        deployment=plan["deployment"],
        image=plan["image"],
        driver=driver,
        firmware=firmware,
        chips=tuple(share["chips"]),
        devices=tuple(dict.fromkeys(device for engine in engines for device in engine["devices"])),
        paths=tuple(
            path
            for path in paths
            if path not in _CHECKED_BY_HCCN and path not in model and not path.startswith(below)
        ),
        # Unlike the others it may be elsewhere; the check of the chips still finds it there.
        npu_smi=next((path for path in paths if path.endswith("/npu-smi")), None),
        ports=tuple(PlannedPorts.from_dict(row) for row in share["ports"]),
        clients=tuple(sorted(callers)),
        peers={peer: plan["hosts"][peer]["address"] for peer in share["peers"]},
        shm=sum(size(engine["shm_size"]) for engine in engines),
        advertise=tuple(engine["env"].get("VLLM_HOST_IP") for engine in engines),
        serving=tuple(map(planned_container, planned)),
        front=None if front is None else _front(front),
        guard=None if guard is None else PlannedGuard(guard["unit"], guard["run"]),
    )


def _front(front: Mapping[str, Any]) -> PlannedFront:
    """Return what the check of a server needs of its front."""
    shared = front.get("shared")
    units = (front["unit"], *((shared["unit"],) if shared else ()))
    return PlannedFront(front["directory"], units, tuple(front["packages"]))


def outside(plan: Mapping[str, Any]) -> list[Finding]:
    """Return findings about servers with containers of the deployment that left the inventory."""
    return [
        HOST_CHECKS.finding(
            "host-deployed-outside",
            f"{name} ({entry['address']}) is not in the inventory and may still run "
            f"{', '.join(entry['containers'])}",
            host=name,
            seen="launched from this controller and not stopped since"
            if entry.get("launched", True)
            else "in the last plan; whether it was launched is unknown",
            severity=None if entry.get("launched", True) else "hint",
            address=entry["address"],
            containers=" ".join(entry["containers"]),
            # Otherwise it would start them again.
            unit=unit_of(entry["directory"]),
            directory=entry["directory"],
            file=f"{plan['directory']}/deployed.json",
        )
        for name, entry in (plan.get("outside") or {}).items()
    ]


def size(text: object) -> int:
    """Return a Docker size (``1g``, ``512m``, ``64k``, bytes) in bytes; 0 if it is not one."""
    match = re.fullmatch(r"\s*(\d+)\s*([bkmgt]?)b?\s*", str(text).lower())
    return int(match.group(1)) * _SIZES[match.group(2)] if match else 0


def clients(plan: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Return the servers that will connect to a row of the port table, without the row's own."""
    own, purpose = row["host"], row["purpose"]
    instances = {instance["name"]: instance for instance in plan["instances"]}
    if purpose in _ROUTERS:
        found: Iterable[str] = _proxy_callers(plan, instances)
    elif purpose in _OUTSIDE:
        found = ()
    elif purpose == _GUARD:
        found = (name for name, share in plan["hosts"].items() if own in _guarded(share))
    elif purpose == _API:
        found = (name for name, share in plan["hosts"].items() if share["proxy"] is not None)
    elif purpose == _HANDSHAKE:
        role = instances[row["instance"]]["role"]
        found = (
            node for instance in instances.values() if instance["role"] != role for node in instance["nodes"]
        )
    elif row["instance"] is not None:
        found = instances[row["instance"]]["nodes"]
    else:
        found = plan["hosts"][own]["peers"]
    return [name for name in dict.fromkeys(found) if name != own]


def _guarded(share: Mapping[str, Any]) -> Collection[str]:
    """Return the servers that the guard of a server talks to; none in a plan of an earlier release."""
    guard = share.get("guard")
    return guard["config"]["servers"] if guard else ()


def _proxy_callers(plan: Mapping[str, Any], instances: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the planned servers that call the proxy.

    Its clients are outside the plan, but decoders that wait for a pushed cache ask it for a prefiller
    (A@v0.13.0:examples/disaggregated_prefill_v1, /v1/metaserver).
    """
    rows = [row for share in plan["hosts"].values() for row in share["ports"] if row["bound"]]
    waiting = {
        row["instance"]
        for row in rows
        if row["purpose"] == _HANDSHAKE and instances[row["instance"]]["role"] == "decoder"
    }
    return [row["host"] for row in rows if row["purpose"] == _API and row["instance"] in waiting]


def targets(
    plan: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Return the ports that each server tries: those with a listener, from servers that have a result."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, result in results.items():
        listening = set(result.get("listening") or ())
        for row in plan["hosts"].get(name, {}).get("ports", ()):
            ports = sorted(port for port in listening if row["first"] <= port <= row["last"])
            for client in clients(plan, {**row, "host": name}):
                if client in results:
                    found[client] += [
                        {"server": name, "address": plan["hosts"][name]["address"], "port": port}
                        for port in ports
                    ]
    return {
        name: list({(target["server"], target["port"]): target for target in ports_tried}.values())
        for name, ports_tried in found.items()
    }


def judge_reach(
    plan: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    reached: Mapping[str, Mapping[str, Any]],
) -> list[Finding]:
    """Return findings about ports that do not answer: one for each server, kind of failure and set of ports.

    ``plan``: the whole plan; ``results``: the results of host_check by server; ``reached``: those of
    host_reach.
    """
    groups: dict[tuple[str, str, str, tuple[int, ...]], list[str]] = defaultdict(list)
    for client, result in reached.items():
        failed: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for row in result.get("unreachable_ports") or ():
            failed[(row["server"], row["problem"], row["seen"])].append(row["port"])
        for (server, problem, seen), unreachable in failed.items():
            groups[(server, problem, seen, tuple(sorted(unreachable)))].append(client)
    found = []
    for (server, problem, seen, ports), callers in groups.items():
        address = plan["hosts"][server]["address"]
        if problem == "other":
            found.append(
                HOST_CHECKS.finding(
                    "host-port-other-server",
                    f"at {server}'s address {address} a different server answers {', '.join(callers)}",
                    host=server,
                    seen=f"port {numbers(ports)}: {seen}",
                    address=address,
                )
            )
            continue
        all_ports = len(results.get(server, {}).get("listening") or ()) == len(ports)
        subject = "no port" if all_ports else f"port{'s' * (len(ports) > 1)} {numbers(ports)}"
        verb = "can be reached" if all_ports else "cannot be reached"
        firewall = firewall_of(plan, results, server, callers, ports)
        found.append(
            HOST_CHECKS.finding(
                "host-port-unreachable",
                f"{subject} of {server} {verb} from {', '.join(callers)}",
                host=server,
                seen=f"{seen}{'; ' + firewall if firewall else ''}",
            )
        )
    return found


def firewall_of(
    plan: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    server: str,
    callers: Sequence[str],
    ports: Sequence[int],
) -> str:
    """Return the firewall rules that may block the ports, as far as the servers show them; empty if none.

    ``results``: the results of host_check by server; ``server``: whose ports they are; ``callers``: the
    servers that cannot reach them.
    """
    addresses = [str(plan["hosts"][name]["address"]) for name in (server, *callers)]
    for name in (server, *callers):
        rules = (results.get(name, {}).get("facts") or {}).get("firewall") or ()
        # Rules of firewalld and ufw are not listed here; those of iptables name ports, or apply to all.
        blocking = [
            rule
            for rule in rules
            if ": " not in rule or (concerns(rule, addresses) and any(closes(rule, port) for port in ports))
        ]
        if blocking:
            more = f" and {len(blocking) - 2} more" if len(blocking) > 2 else ""
            return f"firewall on {name}: {'; '.join(blocking[:2])}{more}"
    return ""


def compare(results: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return findings about values that differ between servers; each names the servers of the minority."""
    found = []
    mtus = _group_by(results, lambda facts: facts.get("mtu"))
    if len(mtus) > 1:
        usual = mtus[0][0]
        odd = [name for _mtu, names in mtus[1:] for name in names]
        found.append(
            HOST_CHECKS.finding(
                "host-mtu-differs",
                f"MTU on {', '.join(odd)} differs from {', '.join(mtus[0][1])}",
                host=", ".join(odd),
                seen=_values_text("MTU", mtus),
                expected=f"MTU {usual} everywhere",
                mtu=usual,
            )
        )
    firmware = _group_by(results, lambda facts: ", ".join(facts.get("firmware") or ()) or None)
    mixed = [name for value, names in firmware if "," in str(value) for name in names]
    if len(firmware) > 1 or mixed:
        odd = list(dict.fromkeys([*mixed, *(name for _value, names in firmware[1:] for name in names)]))
        found.append(
            HOST_CHECKS.finding(
                "host-firmware-differs",
                f"{', '.join(odd)}: firmware differs",
                host=", ".join(odd),
                seen=_values_text("firmware", firmware),
            )
        )
    return found


def images(
    results: Mapping[str, Mapping[str, Any]], image: str, source: str, archive: str = ""
) -> list[Finding]:
    """Return a finding for each server without the image: an error only if no source for it exists.

    ``image``: its name; ``source``: pd_image_source; ``archive``: the archive's path on the servers.
    """
    facts = {name: result.get("facts") or {} for name, result in results.items()}
    missing = [name for name, found in facts.items() if found.get("image") is False]
    on_a_server = _any(facts, "image")
    no_source, cure = "", None
    if source == "none" and not on_a_server:
        no_source = "no server has it, and pd_image_source is none"
        cure = "docker load --input FILE  # on one server, or set pd_image_source"
    elif source == "archive" and archive and not on_a_server and not _any(facts, "image_archive"):
        no_source = f"its archive {archive} is on no server"
        cure = f"ls -l {archive}  # put it there, or set pd_image_archive_remote_src: false"
    origins = {"archive": "the archive"}
    origin = "another server" if on_a_server else origins.get(source, "the registry")
    outlook = f": {no_source}" if no_source else f"; deploy.yml transfers it from {origin}"
    return [
        HOST_CHECKS.finding(
            "host-image-absent",
            f"{image} is missing{outlook}",
            host=name,
            seen="not in the Docker Engine",
            severity="error" if no_source else None,
            cure=cure,
        )
        for name in missing
    ]


def _any(facts: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    return any(found.get(key) for found in facts.values())


def weights(results: Mapping[str, Mapping[str, Any]], path: str, source: str = "present") -> list[Finding]:
    """Return what the role model_weights would find, and whether all servers have the same weights.

    ``results``: the results of model_weights by server; ``path``: the model's directory; ``source``:
    pd_weights_source. Weights that deployment will transfer from there are not an error yet.
    """
    by_server = {name: _weights_findings(name, result) for name, result in results.items()}
    complete = [name for name, findings in by_server.items() if not errors_of(findings)]
    transferred = source != "present" and (source != "server" or bool(complete))
    found = [
        _as_warning(finding, source) if transferred and _curable(findings) else finding
        for findings in by_server.values()
        for finding in findings
    ]
    # Those with findings differ anyway.
    fingerprints = {
        name: {"facts": {"weights": result.get("fingerprint") or None}}
        for name, result in results.items()
        if name in complete
    }
    groups = _group_by(fingerprints, lambda facts: facts["weights"])
    if len(groups) > 1:
        odd = [name for _value, names in groups[1:] for name in names]
        found.append(
            HOST_CHECKS.finding(
                "host-weights-differ",
                f"the weights at {path} on {', '.join(odd)} differ from {', '.join(groups[0][1])}",
                host=", ".join(odd),
                seen="; ".join(f"{value[:12]} on {', '.join(names)}" for value, names in groups)
                + _differing_files(results, groups),
                path=path,
            )
        )
    return found


def _weights_findings(name: str, result: Mapping[str, Any]) -> list[Finding]:
    """Return the findings about one server's weights."""
    return [
        replace(Finding.from_dict(finding), host=name, files=()) for finding in result.get("findings") or ()
    ]


def _curable(findings: Iterable[Finding]) -> bool:
    """Return whether a fresh copy of the weights would cure all errors."""
    return all(finding.code in CURED_BY_COPY for finding in errors_of(findings))


def _as_warning(finding: Finding, source: str) -> Finding:
    """Return the finding as a warning that deployment will cure."""
    if finding.severity != ERROR:
        return finding
    origin = {"server": "another server", "controller": "the controller"}.get(source, source)
    return replace(
        finding,
        severity=WARNING,
        message=f"{finding.message}; deploy.yml transfers the weights from {origin}",
        cure="ansible-playbook playbooks/deploy.yml --tags plan,weights",
    )


def _differing_files(
    results: Mapping[str, Mapping[str, Any]], groups: Sequence[tuple[Any, Sequence[str]]]
) -> str:
    """Return the names of the files that differ, as text; empty without hashes of all files.

    ``results``: the results of model_weights by server; ``groups``: fingerprints, each with its servers.
    """
    first, *others = (results[names[0]].get("hashes") or {} for _value, names in groups)
    if not first:
        return ""
    differ = sorted(
        {name for other in others for name in {*first, *other} if first.get(name) != other.get(name)}
    )
    more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
    return f"; {', '.join(differ[:3])}{more}"


def _group_by(results: Mapping[str, Mapping[str, Any]], value_of: Any) -> list[tuple[Any, list[str]]]:
    groups: dict[Any, list[str]] = defaultdict(list)
    for name, result in results.items():
        value = value_of(result.get("facts") or {})
        if value is not None:
            groups[value].append(name)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _values_text(name: str, groups: Sequence[tuple[Any, Sequence[str]]]) -> str:
    return "; ".join(f"{name} {value} on {', '.join(names)}" for value, names in groups)


def judge_clocks(reached: Mapping[str, Mapping[str, Any]], bound: float) -> list[Finding]:
    """Return a finding for each server whose clock is off, which is the one that most others disagree with.

    ``reached``: the results of host_reach by server; ``bound``: the largest difference allowed, in seconds.
    """
    off: list[tuple[str, str, float]] = []
    for client, result in reached.items():
        for server, (difference, uncertainty) in (result.get("clocks") or {}).items():
            if abs(difference) - uncertainty > bound:
                off.append((client, server, difference))
    if not off:
        return []
    blamed = Counter(name for client, server, _difference in off for name in (client, server))
    found: dict[str, tuple[str, float]] = {}
    for client, server, difference in off:
        odd, other = (server, client) if blamed[server] >= blamed[client] else (client, server)
        signed = difference if odd == server else -difference
        if odd not in found or abs(signed) > abs(found[odd][1]):
            found[odd] = (other, signed)
    return [
        HOST_CHECKS.finding(
            "host-clock-differs",
            f"the clock of {odd} is {abs(difference):.1f} s "
            f"{'ahead of' if difference > 0 else 'behind'} {other}'s",
            host=odd,
            seen=f"{difference:+.1f} s",
            expected=f"less than {bound:g} s",
        )
        for odd, (other, difference) in found.items()
    ]


def not_checked(names: Iterable[str], reasons: Mapping[str, str]) -> list[Finding]:
    """Return a finding for each server without a result; ``reasons``: messages of failed tasks by server."""
    return ordered(_not_checked(name, str(reasons.get(name) or "")) for name in names)


def _not_checked(name: str, reason: str) -> Finding:
    return python_old(name, reason) or HOST_CHECKS.finding(
        "host-not-checked",
        "the server could not be checked",
        host=name,
        seen=" ".join((reason or "no result: an earlier task failed").split())[:300],
    )


def python_old(name: str, reason: str) -> Finding | None:
    """Return the finding about a server's old Python if a task failed because of it, else None."""
    refusal = server_python.stated(reason)
    if refusal is None:
        return None
    return HOST_CHECKS.finding(
        "host-python-old",
        f"its Python is too old: {server_python.needed()} or newer is required",
        host=name,
        seen=refusal,
        expected=f"Python {server_python.needed()} or newer",
    )
