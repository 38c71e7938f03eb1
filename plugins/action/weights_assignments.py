# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The action plugin behind ascend.pd_rollout.weights_assignments; documented in plugins/modules."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleError

from ..module_utils._findings import Finding, counted, text_of
from ..module_utils._weights import inspection
from ..plugin_utils._distribution import weights_chain
from ..plugin_utils._run.action import ControllerAction


def hashes_of(text: str) -> dict[str, str]:
    """SHA-256 by file name: the bundle's manifest (JSON), or what sha256sum prints."""
    if text.lstrip().startswith("{"):
        files = json.loads(text)["files"]
        return {name: entry["sha256"] for name, entry in files.items() if entry.get("sha256")}
    hashes = {}
    for line in text.splitlines():
        if line.strip():
            value, name = line.split(maxsplit=1)
            hashes[name.lstrip("*").removeprefix("./")] = value
    return hashes


class ActionModule(ControllerAction):
    """Decides for all servers in one go, on the controller."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "servers": {"type": "list", "elements": "str", "required": True},
        "source": {"type": "str", "required": True},
        "id": {"type": "str", "default": ""},
        "directory": {"type": "str", "default": ""},
        "seed": {"type": "str", "default": ""},
        "manifest": {"type": "str", "default": ""},
        "result": {"type": "str", "required": True},
        "probes": {"type": "str"},
        "listed": {"type": "str"},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        hostvars = task_vars["hostvars"]
        looks = {name: hostvars[name].get(options["result"]) for name in options["servers"]}
        servers = [
            weights_chain.Server(
                name, look.get("fingerprint", ""), tuple(map(Finding.from_dict, look.get("findings", ())))
            )
            for name, look in looks.items()
            if look and "findings" in look
        ]
        named = {"model_weights_id": options["id"], "model_weights_directory": options["directory"]}
        found = weights_chain.need(servers, options["source"], named, options["seed"])
        findings = list(found.findings)
        if found.outside and options["source"] == "controller":
            findings += self._look_at(options["directory"])
        if findings:
            head = f"The weights cannot be transferred: {counted(findings)}."
            found_dicts = [finding.to_dict() for finding in findings]
            return {**result, "failed": True, "findings": found_dicts, "msg": text_of(findings, head)}
        result.update(
            changed=bool(found.wanted),
            bring=bool(found.wanted) and not self._task.check_mode,
            wanted=list(found.wanted),
            seed=found.seed,
            outside=found.outside,
            servers=sorted({*found.wanted, found.seed} - {""}),
            damaged={server.name: server.damaged for server in servers if not server.whole},
        )
        if found.wanted:
            result["run"] = secrets.token_hex(6)
            result["hashes"] = self._hashes(options["manifest"])
            source = options["source"] if found.outside else found.seed
            result["diff"] = {
                "before": "".join(f"{name}: weights not whole\n" for name in found.wanted),
                "after": "".join(f"{name}: whole, from {source}\n" for name in found.wanted),
            }
        if options["listed"]:
            result.update(self._chain(found, hostvars, options))
        return result

    def _chain(self, found: weights_chain.Need, hostvars: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Who takes from whom, now that it is known who shares a file system."""
        everyone = [found.seed, *(name for name in found.wanted if name != found.seed)]
        missing = [name for name in everyone if "seen" not in (hostvars[name].get(options["listed"]) or {})]
        if missing:
            raise AnsibleError(f"not known which file systems {', '.join(missing)} see")
        seen = {name: hostvars[name][options["listed"]]["seen"] for name in everyone}
        address = {name: hostvars[name][options["probes"]]["address"] for name in everyone}
        chain = weights_chain.chain(found.wanted, found.seed, seen)
        jobs = {
            name: {
                "address": address[name],
                "sources": [{"name": other, "address": address[other]} for other in sources],
                "clients": [address[other] for other in chain.clients(name)],
            }
            for name, sources in chain.sources.items()
        }
        return {
            "changed": False,
            "jobs": jobs if len(jobs) > 1 else {},
            "shared": dict(chain.shared),
            "secret": secrets.token_urlsafe(24),
            "_ansible_no_log": True,
        }

    @staticmethod
    def _hashes(manifest: str) -> dict[str, str]:
        if not manifest:
            return {}
        try:
            return hashes_of(Path(manifest).expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AnsibleError(
                f"model_weights_manifest: {manifest} cannot be used: {error}. It is a manifest of the "
                "bundle, or what sha256sum prints."
            ) from error

    @staticmethod
    def _look_at(directory: str) -> list[Finding]:
        report = inspection.inspect(str(Path(directory).expanduser()), dtype=None)
        return [replace(error, host="controller") for error in report.errors]
