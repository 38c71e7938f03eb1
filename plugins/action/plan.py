# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.plan; its documentation stands in plugins/modules/plan.py."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, cast

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.inventory.host import Host
from ansible.plugins.action import ActionBase
from ansible.release import __version__ as ansible_version
from ansible.utils.display import Display
from ansible.vars.hostvars import HostVarsVars

from ..module_utils._findings import render_text

# Not for its name: it is the first of ours that a run loads, and from then on the run's workers end with it.
from ..plugin_utils._run import (
    parent,  # noqa: F401
    role_arguments,
    vaults,
)
from ..plugin_utils._run.screen import COLOURS, show
from ..plugin_utils._serving import deployed_hosts
from ..plugin_utils.rollout import plan as planner
from ..plugin_utils.rollout import render, secrecy
from ..plugin_utils.rollout.findings import HINT, Finding, PlanError
from ..plugin_utils.rollout.inventory import GroupShape, RawInventory, Unreadable, raw_inventory
from ..plugin_utils.rollout.model import ROLES
from ..plugin_utils.rollout.plan_dict import KEYS, PlanDict

display = Display()

# Before 2.19, hostvars gives an expression that refers to nothing back as it stands.
_KEEPS_UNDEFINED = tuple(int(part) for part in ansible_version.split(".")[:2]) < (2, 19)


class ActionModule(ActionBase):
    """Plans the whole inventory once, on the controller, and touches no host."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "write": {"type": "bool", "default": False},
        "topology": {"type": "str"},
        "dest": {"type": "path"},
        "fact": {"type": "bool", "default": True},
        "every_deployment": {"type": "bool", "default": False},
        "made": {"type": "dict"},
    }
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        _, options = self.validate_argument_spec(self.ARGUMENTS)
        result: dict[str, Any] = super().run(tmp, task_vars)
        # With -v the whole plan would be printed; plan.json has it.
        result["_ansible_verbose_override"] = True
        if options["made"]:
            made = options["made"]
            result.update(changed=False, files=[])
            directory = Path(options["dest"] or made["directory"]).expanduser().absolute()
            # Only the inventory says which values are secret, and only a difference would show them.
            secrets = frozenset[str]()
            if made.get("revision"):
                # An earlier inventory's are not known.
                self._task.diff = False
            elif self._task.diff:
                secrets = _secrets(task_vars or {})
            self._write(directory, cast("PlanDict", {key: made[key] for key in KEYS}), secrets, result)
            return result
        try:
            plans = _make_all(task_vars or {}, options["topology"])
        except PlanError as error:
            _show(shown(error.findings))
            result.update(
                failed=True,
                msg=f"{error}. Every finding is printed above; nothing was written and no host was touched.",
            )
            return result
        result.update(changed=False, files=[])
        wanted = _wanted(plans, (task_vars or {}).get("ansible_play_hosts_all") or [])
        if len(wanted) > 1 and not options["every_deployment"]:
            result.update(failed=True, msg=_one_at_a_time(wanted))
            return result
        contents = {name: plan.to_dict() for name, plan in wanted.items()}
        for plan in wanted.values():
            _show(shown(plan.findings))
        if len(contents) == 1:
            (content,) = contents.values()
            result.update(hash=content["hash"])
            # Ansible copies a host's facts, with the whole plan in them, for every task of the host. What a
            # task registered it does not copy.
            result.update({"ansible_facts": {"pd_plan": content}} if options["fact"] else content)
        # Callbacks that write down results do so with the plan. The differences of files show no secret.
        if not (options["write"] and self._task.diff) and any(
            secrecy.values_of(plan.cluster) for plan in wanted.values()
        ):
            result["_ansible_no_log"] = True
        for name, plan in wanted.items():
            declared = plan.cluster.declaration
            directory = Path(options["dest"] or declared.plan_dir or Path("plans") / declared.cluster)
            below = (directory / name if len(plans) > 1 else directory).expanduser().absolute()
            result["directory"] = str(below)
            result["outside"] = deployed_hosts.outside(deployed_hosts.read(below), contents[name])
            result["unnoted"] = deployed_hosts.unnoted(below, contents[name])
            if options["write"]:
                self._write(below, contents[name], secrecy.values_of(plan.cluster), result)
        return result

    def _write(
        self, directory: Path, content: PlanDict, secrets: frozenset[str], result: dict[str, Any]
    ) -> None:
        dry_run = bool(self._task.check_mode)
        try:
            changes = render.write(directory, content, dry_run=dry_run)
        except OSError as error:
            raise AnsibleActionFail(f"cannot write the plan to {directory}: {error.strerror}") from error
        result.update(
            changed=result["changed"] or bool(changes),
            directory=str(directory),
            files=[*result["files"], *sorted(changes)],
        )
        if self._task.diff:
            result["diff"] = result.get("diff", []) + [
                {
                    "before_header": name,
                    "after_header": name,
                    "before": secrecy.masked(before, secrets),
                    "after": secrecy.masked(after, secrets),
                }
                for name, (before, after) in sorted(changes.items())
            ]
        show(render.summary(content, str(directory), sorted(changes), dry_run=dry_run))


def _make_all(task_vars: Mapping[str, Any], topology: str | None) -> dict[str, planner.Plan]:
    """Plan every deployment; PlanError carries what the roles would refuse as well."""
    refused: list[Finding] = []
    raw = read_inventory(task_vars, refused)
    try:
        plans = planner.make_all(raw, topology)
    except PlanError as error:
        raise PlanError([*error.findings, *refused]) from None
    if refused:
        raise PlanError(refused)
    return plans


def _wanted(plans: Mapping[str, planner.Plan], hosts: Iterable[str]) -> Mapping[str, planner.Plan]:
    """The deployments that have a host in the play; all where it has none of theirs."""
    in_play = set(hosts)
    wanted = {
        name: plan
        for name, plan in plans.items()
        if not in_play.isdisjoint(plan.cluster.declaration.addresses)
    }
    return wanted or plans


def _one_at_a_time(plans: Mapping[str, planner.Plan]) -> str:
    lines = [
        f"  --limit {','.join(plan.cluster.declaration.addresses)}   # {name}" for name, plan in plans.items()
    ]
    return "\n".join(
        [
            f"The inventory has the deployments {', '.join(plans)}, and one run is about one of them. "
            "Choose it by its hosts, or by a group of them:",
            *lines,
        ]
    )


def shown(findings: Iterable[Finding]) -> list[Finding]:
    """What is worth a place on the screen: hints only with -v, topology.md has them."""
    return [finding for finding in findings if finding.severity != HINT or display.verbosity > 0]


def _show(findings: Iterable[Finding]) -> None:
    """Print findings in blocks of one severity's colour."""
    for severity, same in groupby(findings, key=lambda finding: finding.severity):
        show("\n".join(render_text(same, "the whole inventory")) + "\n", color=COLOURS[severity])


def read_inventory(task_vars: Mapping[str, Any], refused: list[Finding] | None = None) -> RawInventory:
    """The inventory as the planner wants it: groups, and each host's pd_ variables, evaluated.

    refused: where it is given, gets a finding for each variable of a role that the role would refuse.
    """
    hostvars = task_vars["hostvars"]
    # Child groups stand in no variable; the inventory behind hostvars has them (ansible-core 2.16 to 2.19).
    groups = hostvars._inventory.groups
    shapes: dict[str, GroupShape] = {}
    for name in (*ROLES, "proxy"):
        if name in groups:
            shapes[name] = _shape(groups[name])
            shapes.update(
                {child.name: _shape(child) for child in groups[name].child_groups if name != "proxy"}
            )
    names = dict.fromkeys(host for shape in shapes.values() for host in shape.all_hosts)
    views = {name: hostvars[name] for name in names}
    hosts = {name: _variables(view) for name, view in views.items()}
    if refused is not None:
        refused += role_arguments.findings(views, _evaluated)
    cluster = cluster_name(hostvars._inventory._sources or ())
    return raw_inventory(cluster, shapes, hosts, _member_variables(hostvars, shapes, hosts))


def _shape(group: Any) -> GroupShape:
    return GroupShape(
        hosts=tuple(host.name for host in group.hosts),
        all_hosts=tuple(host.name for host in group.get_hosts()),
        children=tuple(child.name for child in group.child_groups),
    )


def cluster_name(sources: Iterable[str]) -> str:
    """A name for what the options -i give, another one for another inventory: that of the folder; of several
    joined."""
    paths = [Path(source).absolute() for source in sources if "," not in source]
    names = dict.fromkeys(_source_name(path) for path in paths if path.exists())
    name = "+".join(names) or "cluster"
    if len(name.encode()) > 200:
        name = f"{name[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name


def _source_name(source: Path) -> str:
    """The folder's name, of one that is called inventory that of the one above. Of a file beside other
    inventories, its own behind that."""
    folder = source if source.is_dir() else source.parent
    name = (folder.parent if folder.name == "inventory" else folder).name or "cluster"
    if source.is_dir() or source == _main(folder, source):
        return name
    twins = any(path.stem == source.stem for path in _beside(folder, source))
    return f"{name}-{source.name if twins else source.stem}"


def _main(folder: Path, source: Path) -> Path | None:
    """The file that stands for its folder: the one called hosts, or as the folder; any, if there is no other
    inventory."""
    for name in ("hosts.yml", "hosts.yaml", "hosts", "hosts.ini", "hosts.json"):
        if (folder / name).is_file():
            return folder / name
    others = _beside(folder, source)
    named = [path for path in sorted([source, *others]) if path.stem == folder.name]
    return named[0] if named else None if others else source


def _beside(folder: Path, source: Path) -> list[Path]:
    """The other inventories in a folder."""
    try:
        return [path for path in folder.iterdir() if path != source and _is_inventory(path)]
    except OSError:
        return []


def _is_inventory(path: Path) -> bool:
    """Whether a file may be an inventory with the collection's groups: by its text, or as it makes one."""
    if path.name.startswith(".") or path.name.endswith(tuple(constants.INVENTORY_IGNORE_EXTS)):
        return False
    try:
        if not path.is_file():
            return False
        if os.access(path, os.X_OK):
            return True
        with path.open(encoding="utf-8", errors="replace") as stream:
            return _GROUPS.search(stream.read(1_000_000)) is not None
    except OSError:
        return False


_GROUPS = re.compile(r"""(?m)^\s*["'\[{]*(prefiller|decoder)\b""")


def _secrets(task_vars: Mapping[str, Any]) -> frozenset[str]:
    """All that looks like a secret in the inventory."""
    plans = planner.make_all(read_inventory(task_vars))
    return frozenset().union(*(secrecy.values_of(plan.cluster) for plan in plans.values()))


def plan_folder(hostvars: Any, host: str) -> Path:
    """Where the files of the plan go by a host's variables, where there may be no valid plan."""
    named = hostvars[host].get("pd_plan_dir") if host else None
    folder = named or Path("plans") / cluster_name(hostvars._inventory._sources or ())
    return Path(folder).expanduser().absolute()


def servers_of(hostvars: Any) -> dict[str, None]:
    """Return the names of all servers of the inventory, in its order."""
    groups = hostvars._inventory.groups
    found = (host.name for name in (*ROLES, "proxy") if name in groups for host in groups[name].get_hosts())
    return dict.fromkeys(found)


def names_of_deployments(hostvars: Any, servers: Iterable[str]) -> list[str]:
    """Return the names of the deployments to which servers belong, each once."""
    return list(dict.fromkeys(str(hostvars[name].get("pd_deployment") or "pd") for name in servers))


def deployment_folder(hostvars: Any, host: str, deployment: str) -> Path:
    """Return where the files of a deployment's plan go, without a plan: of several in one inventory, each has
    a folder of its own."""
    folder = plan_folder(hostvars, host)
    several = len(names_of_deployments(hostvars, servers_of(hostvars))) > 1
    return folder / deployment if several else folder


def _variables(hostvars: Any) -> dict[str, Any]:
    """The variables that the planner reads. One that cannot be evaluated is a finding, not a traceback."""
    result: dict[str, Any] = {}
    for name in list(hostvars):
        if (
            name != "ansible_host" and not (isinstance(name, str) and name.startswith("pd_"))
        ) or name == "pd_plan":
            continue
        try:
            result[str(name)] = _evaluated(hostvars[name])
        except Exception as error:  # any filter or lookup can raise anything
            result[str(name)] = Unreadable(str(error))
    return result


def _evaluated(value: Any) -> Any:
    """Containers may evaluate on access: take them apart here, where an error can still be told."""
    if vaults.is_encrypted(value):
        return vaults.decrypted(value)
    if isinstance(value, Mapping):
        return {key: _evaluated(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_evaluated(item) for item in value]
    if type(value).__name__ in ("AnsibleUndefined", "UndefinedMarker"):
        raise ValueError(str(value))
    if _KEEPS_UNDEFINED and isinstance(value, str) and "{{" in value and not hasattr(value, "__UNSAFE__"):
        raise ValueError(f"{value} refers to something that is not defined")
    return value


def _member_variables(
    hostvars: Any, shapes: Mapping[str, GroupShape], hosts: Mapping[str, Mapping[str, Any]]
) -> Callable[[str, str], Mapping[str, Any]]:
    """Variables as one instance sees them.

    A host of two instances has merged variables in which one instance's groups hide the other's. Ansible is
    asked again for a host of the same name that is in that instance's group only.
    """
    instances = {name for role in ROLES if role in shapes for name in (shapes[role].children or (role,))}
    counts: dict[str, int] = {}
    for name in instances:
        for host in shapes[name].all_hosts:
            counts[host] = counts.get(host, 0) + 1

    def variables(instance: str, host: str) -> Mapping[str, Any]:
        if counts.get(host, 0) < 2:
            return hosts[host]
        real = hostvars._inventory.get_host(host)
        shadow = Host(host)
        shadow.vars = real.vars
        shadow.add_group(hostvars._inventory.groups[instance])
        manager = hostvars._variable_manager
        merged = manager.get_vars(host=shadow, include_hostvars=False)
        try:
            view = HostVarsVars(merged, loader=hostvars._loader, host=host)
        except TypeError:  # ansible-core 2.16 to 2.18
            view = HostVarsVars(merged, loader=hostvars._loader)
        return _variables(view)

    return variables
