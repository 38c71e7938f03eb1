# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Rules about which connector is used: planned, registered but not planned, custom, or unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..connectors import Connector
from ..findings import ERROR, WARNING, Finding, Rule, shown
from ..launch.transfer import KV_FIELDS, computed_sizes, kv_extra_config
from ..model import KV_ROLES, Instance
from ..releases import load_release, release_names
from ..values import did_you_mean
from .base import Context, rule
from .transfer import OWN_SIDE, configured_sizes, nested, transferring

MULTI = "MultiConnector"
OTHER_HARDWARE = "other hardware"
# Connector names resemble each other: only a difference of one or two letters counts as a misspelling.
_NEAR = 0.93
_SLIPS = {"MooncakeConnector": "MooncakeConnectorV1"}


def _once(c: Context) -> Iterator[tuple[str | None, Instance, str]]:
    """Yield each connector without data in the collection once: the name of the instance that uses it (None
    if several do), the first such instance, and the connector's name."""
    users: dict[str, list[Instance]] = {}
    for instance, name in _unplanned(c):
        users.setdefault(name, []).append(instance)
    for name, instances in users.items():
        yield instances[0].name if len(instances) == 1 else None, instances[0], name


def _unplanned(c: Context) -> Iterator[tuple[Instance, str]]:
    """Yield the instances whose connector has no data in the collection, with the connector's name."""
    if c.cluster.colocated:
        return
    for instance in c.instances("pd_kv_connector", "pd_kv_transfer_config", "pd_profile"):
        name = instance.settings.connector
        if name not in c.cluster.release.connectors:
            yield instance, name


def _own(c: Context, instance: Instance) -> str | None:
    """The module from which the connector's class is imported; None if its registered name alone decides."""
    path = instance.settings.kv_transfer_config.get("kv_connector_module_path")
    owner = c.cluster.release.other_connectors.get(instance.settings.connector)
    read = owner is None or c.cluster.release.limits.module_path_first
    return path if isinstance(path, str) and path and read else None


@rule(
    "PD500",
    ERROR,
    "The release has the KV connector for Ascend",
    cure="correct pd_kv_connector: docs/releases.md lists the connectors of each release",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/__init__.py, A@v0.23.0:vllm_ascend/distributed/kv_transfer/"
        "__init__.py, V@0.13.0:vllm/distributed/kv_transfer/kv_connector/factory.py"
    ),
)
def connector_known(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    names = (*release.connectors, *release.other_connectors)
    for place, instance, name in _once(c):
        owner = release.other_connectors.get(name)
        if _own(c, instance) is not None or owner not in (None, OTHER_HARDWARE):
            continue
        if owner is not None:
            slip = _SLIPS.get(name)
            message = f"{shown(name, 60)} is vLLM's own, for other hardware" + (
                f"; vllm-ascend's is {slip}" if slip else ""
            )
        else:
            later = _has(c, name)
            hint = f"; {later} has it" if later else did_you_mean(name, names, _NEAR)
            message = f"{release.name} registers no connector {shown(name, 60)}{hint}"
        yield r.at(
            message,
            instance=place,
            variable="pd_kv_connector",
            seen=name,
            expected=" or ".join(release.connectors),
        )


def _has(c: Context, name: str) -> str | None:
    """The first release that has a connector with that name; None if none has."""
    releases = (load_release(other) for other in release_names())
    return next((o.name for o in releases if name in o.connectors or name in o.other_connectors), None)


@rule(
    "PD515",
    WARNING,
    "The collection plans and checks the KV connector",
    cure="set the connector's keys in pd_kv_extra_config, and check yourself what is not checked here",
    source="plugins/plugin_utils/rollout/data/connectors, other_connectors in data/releases",
)
def connector_planned(r: Rule, c: Context) -> Iterator[Finding]:
    """Such a connector is started with pd_kv_extra_config, merged over the sizes of both sides."""
    release = c.cluster.release
    for place, instance, name in _once(c):
        owner, path = release.other_connectors.get(name), _own(c, instance)
        if path is None and owner in (None, OTHER_HARDWARE):
            continue
        what = f"of {path}" if path else f"of {owner} that this collection does not plan"
        yield r.at(
            f"{shown(name, 60)} is a connector {what}: its ports are neither planned nor checked, and its "
            "keys and the settings of both sides are not compared",
            instance=place,
            variable="pd_kv_connector",
            seen=name,
            expected="no change, if this is intended",
        )


@rule(
    "PD526",
    ERROR,
    "MultiConnector has a valid list of connectors",
    cure=(
        "list them in connectors of pd_kv_extra_config, each with kv_connector, kv_role, kv_port and "
        "kv_connector_extra_config, and without engine_id"
    ),
    source="V@0.13.0:vllm/distributed/kv_transfer/kv_connector/v1/multi_connector.py:146-156",
)
def multi_has_connectors(r: Rule, c: Context) -> Iterator[Finding]:
    users = [instance for instance, name in _unplanned(c) if name == MULTI]
    empty = [instance for instance in users if not instance.settings.kv_extra_config.get("connectors")]
    for instance in users:
        if instance.unread & {"pd_kv_extra_config"} or (len(empty) > 1 and instance in empty[1:]):
            continue
        given = instance.settings.kv_extra_config.get("connectors")
        listed = given if isinstance(given, list) else []
        problems = [
            f"connectors[{i}]: {problem}"
            for i, entry in enumerate(listed)
            if (problem := _problem(c, entry)) is not None
        ]
        if not listed:
            problems = [f"connectors: {shown(given, 60)}"]
        for problem in problems:
            yield r.at(
                f"{MULTI} fails when vLLM creates it"
                + (", without a list of connectors" if not listed else ""),
                instance=None if len(empty) > 1 and not listed else instance.name,
                variable="pd_kv_extra_config",
                seen=problem,
                expected="connectors: a list of mappings, each as in --kv-transfer-config",
            )


def _problem(c: Context, entry: Any) -> str | None:
    if not isinstance(entry, Mapping):
        return shown(entry, 60)
    missing = [key for key in ("kv_connector", "kv_role") if not entry.get(key)]
    if missing:
        return f"no {' and no '.join(missing)}"
    if entry["kv_role"] not in ("kv_producer", "kv_consumer", "kv_both"):
        return f"kv_role: {shown(entry['kv_role'], 40)}"
    if "engine_id" in entry:
        return "engine_id is set twice"
    release, name = c.cluster.release, str(entry["kv_connector"])
    path = entry.get("kv_connector_module_path")
    owner = release.other_connectors.get(name)
    if not path and name not in release.connectors and owner in (None, OTHER_HARDWARE):
        return f"{release.name} has no connector {shown(name, 60)} for Ascend"
    # Releases in which KVTransferConfig rejects unknown fields.
    fields = release.json_keys.get("kv-transfer-config", frozenset(entry))
    if others := sorted(str(key) for key in entry if key not in fields):
        return f"--kv-transfer-config has no field {shown(others[0], 60)}"
    return _missing(c, name, path)


@rule(
    "PD529",
    ERROR,
    "Connectors inside MultiConnector have the plan's sizes and the kv_role of their side",
    cure="set their kv_role, prefill and decode to the expected values",
    source=(
        "A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1175-1199; check_kv_extra_config "
        "(A@v0.13.0:vllm_ascend/utils.py:1111) looks at the outermost level only"
    ),
)
def nested_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for instance, name in _unplanned(c):
        if name != MULTI or instance.unread & {"pd_kv_extra_config", "pd_parallel", "pd_engine_env"}:
            continue
        expected = computed_sizes(c.cluster, instance)
        listed = nested(kv_extra_config(c.cluster, instance, instance.head))
        for number, entry in enumerate(listed):
            inner = entry.get("kv_connector")
            connector = release.connectors.get(inner) if isinstance(inner, str) else None
            if connector is None:
                continue
            role = KV_ROLES[instance.role]
            if not _takes_role(connector, entry.get("kv_role"), role):
                yield r.at(
                    f"{inner} uses its own kv_role, but {instance.name} is a {instance.role}: no cache "
                    "would be transferred from a prefiller to a decoder",
                    instance=instance.name,
                    variable="pd_kv_extra_config",
                    seen=f"connectors[{number}] kv_role: {shown(entry.get('kv_role'), 40)}",
                    expected=f"kv_role: {role}",
                )
            extra = entry.get("kv_connector_extra_config")
            for side in ("prefill", "decode"):
                configured = extra.get(side) if isinstance(extra, Mapping) else None
                needs, shared = connector.needs.get(side, frozenset()), connector.shared.get(side, ())
                keys = dict.fromkeys([*sorted(needs), *shared])
                wrong = [key for key in keys if not _same(configured, expected[side], key, key in needs)]
                if wrong and connector.needs:
                    yield r.at(
                        f"{inner} reads the {side} sizes from its own kv_connector_extra_config, and nothing "
                        "compares them with the engines",
                        instance=instance.name,
                        variable="pd_kv_extra_config",
                        seen=f"connectors[{number}] {side}: {shown(configured, 80)}",
                        expected=f"{side}: {shown(expected[side], 80)}",
                    )


def _takes_role(connector: Connector, given: object, role: str) -> bool:
    """Whether a connector with kv_role ``given`` acts in ``role``: with kv_both, connectors that pull act in
    neither (A@v0.13.0:vllm_ascend/distributed/mooncake_connector.py:1298-1333). Invalid roles are left to
    PD526."""
    if given == "kv_both":
        return connector.listener == "decoder"
    return given == role or given not in KV_ROLES.values()


def _same(configured: Any, expected: Mapping[str, Any], key: str, needed: bool) -> bool:
    """Whether a configured size is the planned one; dp_size only has to be present."""
    if not isinstance(configured, Mapping):
        return not needed and key not in expected
    if key == "dp_size":
        return key in configured
    default = 1 if key == "pp_size" else None
    return bool(configured.get(key, default) == expected.get(key, default))


@rule(
    "PD530",
    ERROR,
    "pd_kv_transfer_config has only fields that vLLM knows and that the plan does not write",
    cure="remove it, or set the variable that the message names",
    source="V@0.13.0:vllm/config/kv_transfer.py",
)
def transfer_fields(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    known = release.kv_fields | release.idle_kv_fields
    if c.cluster.colocated:
        return
    for instance in c.instances("pd_kv_transfer_config"):
        for name, value in instance.settings.kv_transfer_config.items():
            wanted = KV_FIELDS.get(name)
            policy = name == "kv_load_failure_policy" and value not in ("recompute", "fail")
            lost = _lost(c, instance) if name == "kv_connector_module_path" else None
            if wanted is not None:
                message, expected = f"the plan sets {name} itself, from {wanted}", wanted
            elif policy:
                message, expected = f"{shown(value, 40)} is not a policy", "recompute or fail"
            elif lost is not None:
                message, expected = lost, "not set"
            elif name not in known:
                message = f"vLLM has no such field: {shown(name, 60)}{_belongs(c, instance, name)}"
                expected = ", ".join(sorted(known))
            else:
                continue
            yield r.at(
                message,
                instance=instance.name,
                variable="pd_kv_transfer_config",
                seen=f"{name}: {shown(value, 40)}",
                expected=expected,
            )


def _lost(c: Context, instance: Instance) -> str | None:
    """Why a connector's class is not found in its module: the class has another name, or the release has no
    such module. None if it is found."""
    settings = instance.settings
    path = settings.kv_transfer_config["kv_connector_module_path"]
    return _missing(c, settings.connector, path)


def _missing(c: Context, name: str, path: Any) -> str | None:
    """Python's error for a module path that the release imports and that is known to fail, else None."""
    release = c.cluster.release
    registered = name in release.connectors or name in release.other_connectors
    if not isinstance(path, str) or (registered and not release.limits.module_path_first):
        return None
    here = {connector.module for connector in release.connectors.values()}
    elsewhere = {
        connector.module for other in release_names() for connector in load_release(other).connectors.values()
    }
    if path in elsewhere - here:
        return f"No module named {shown(path, 80)}"
    planned = release.connectors.get(name)
    if planned is not None and planned.name != planned.class_name and path == planned.module:
        return f"Class {name} not found in {path}"
    return None


def _belongs(c: Context, instance: Instance, name: str, place: str = "") -> str:
    """Return a hint for a key that is not read at its place: where it is read, or which key may be meant."""
    release = c.cluster.release
    connector = release.connectors.get(instance.settings.connector)
    places = [inner for inner, keys in connector.reads.items() if name in keys] if connector else []
    if connector and name in connector.reads:
        return "; it is read in pd_kv_extra_config itself"
    if places:
        return f"; it is read in {' and '.join(places)} of pd_kv_extra_config"
    if name in release.kv_extra_keys:
        return "; it is read in pd_kv_extra_config itself"
    if name in KV_FIELDS:
        return f"; the plan sets it in --kv-transfer-config itself, from {KV_FIELDS[name]}"
    if name in release.kv_fields | release.idle_kv_fields:
        return "; it is a field of --kv-transfer-config: pd_kv_transfer_config"
    if not place:
        keys = [*(connector.reads if connector else ()), *release.kv_extra_keys, *release.kv_fields]
    else:
        keys = list(connector.reads.get(place, ())) if connector else []
    return did_you_mean(name, keys, 0.8)


@rule(
    "PD523",
    WARNING,
    "Every key of kv_connector_extra_config is at a level where it is read",
    cure="move the key to the level where it is read, or remove it from pd_kv_extra_config",
    source="reads in plugins/plugin_utils/rollout/data/connectors, kv_extra_keys in data/releases",
)
def extra_keys_read(r: Rule, c: Context) -> Iterator[Finding]:
    release = c.cluster.release
    for instance, connector in transferring(c, "pd_kv_extra_config"):
        given = instance.settings.kv_extra_config
        unread = [("", name) for name in given if name not in connector.reads]
        for place, keys in connector.reads.items():
            inner = given.get(place)
            if isinstance(inner, Mapping):
                unread.extend((place, name) for name in inner if name not in keys)
        for place, name in unread:
            if not place and name in release.kv_extra_keys | release.idle_kv_keys:
                continue
            where = f" in {place}" if place else ""
            yield r.at(
                f"{connector.name} of {release.name} reads no {shown(name, 60)}{where}"
                f"{_belongs(c, instance, name, place)}",
                instance=instance.name,
                variable="pd_kv_extra_config",
                seen=f"{place}.{name}" if place else name,
                expected="not set there",
            )


@rule(
    "PD524",
    WARNING,
    "Sizes in kv_connector_extra_config that no engine relies on match the plan",
    cure="remove it from pd_kv_extra_config: the sizes are computed from pd_parallel",
    source="shared in plugins/plugin_utils/rollout/data/connectors",
)
def idle_sizes(r: Rule, c: Context) -> Iterator[Finding]:
    """Such a size does no harm, but misleads readers."""
    for instance, connector in transferring(c, "pd_parallel", "pd_kv_extra_config", "pd_profile"):
        if not instance.settings.kv_extra_config:
            continue
        extra, planned = (
            kv_extra_config(c.cluster, instance, instance.head),
            computed_sizes(c.cluster, instance),
        )
        nothing = connector.tensor_order == "at_request" and instance.settings.profile.attention == "mla"
        for side in ("prefill", "decode"):
            trusted = () if nothing else connector.shared.get(side, ())
            for key in ("tp_size", "dp_size"):
                value, expected = configured_sizes(extra, side).get(key), planned[side][key]
                if side != OWN_SIDE[instance.role] and key not in trusted and value != expected:
                    yield r.at(
                        f"the plan has {expected}, and nothing uses this value",
                        instance=instance.name,
                        variable="pd_kv_extra_config",
                        seen=f"{side}.{key}: {shown(value, 40)}",
                        expected=f"{side}.{key}: {expected}",
                    )


@rule(
    "PD538",
    ERROR,
    "No option replaces the planned connector",
    cure="remove it from pd_engine_args",
    source="V@0.13.0:vllm/config/vllm.py:471-511, V@0.18.0:vllm/config/vllm.py:622-656",
)
def offloading(r: Rule, c: Context) -> Iterator[Finding]:
    """Engines of both roles would start, but no cache would be transferred from a prefiller to a decoder."""
    if c.cluster.colocated:
        return
    option = c.cluster.release.limits.offloading_option
    for instance in c.instances("pd_engine_args"):
        value = instance.head.flag(option)
        if value is not None:
            yield r.at(
                f"with {option} vLLM sets a connector for host memory and kv_role kv_both, over what "
                "--kv-transfer-config says",
                instance=instance.name,
                variable="pd_engine_args",
                seen=f"{option}: {shown(value, 40)}",
                expected="not set",
            )


_CUDA_SEGMENTS = "PYTORCH_CUDA_ALLOC_CONF"


@rule(
    "PD539",
    ERROR,
    "Expandable segments for CUDA are not set with a KV transfer if vLLM refuses the combination",
    cure=f"remove {_CUDA_SEGMENTS} from pd_engine_env: NPUs have PYTORCH_NPU_ALLOC_CONF",
    source="V@0.23.0:vllm/config/vllm.py:804-844",
)
def cuda_segments(r: Rule, c: Context) -> Iterator[Finding]:
    if c.cluster.colocated or not c.cluster.release.limits.cuda_segments_refused:
        return
    for instance, node in c.nodes("pd_engine_env", "pd_engine_args"):
        value = node.env.get(_CUDA_SEGMENTS, "")
        exempt = any(node.flag(name) is True for name in ("enable-cumem-allocator", "enable-sleep-mode"))
        if "expandable_segments:True" in value and not exempt:
            yield r.at(
                f"KV connector {instance.settings.connector} is incompatible with "
                f"{_CUDA_SEGMENTS}=expandable_segments:True unless enable_cumem_allocator is also enabled.",
                host=node.host if len(instance.nodes) > 1 else None,
                instance=instance.name,
                variable="pd_engine_env",
                seen=f"{_CUDA_SEGMENTS}={shown(value, 60)}",
                expected="not set",
            )
