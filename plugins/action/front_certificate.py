# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reads what the front needs and the plan does not contain; documented in plugins/modules."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleError, AnsibleFileNotFound

from ..module_utils._findings import ERROR, Finding, text_of
from ..plugin_utils._front.catalogue import CERTIFICATE_CHECKS
from ..plugin_utils._front.certificate import CA, CERTIFICATE, KEY, UTC, Checked, Given, Host, check, digests
from ..plugin_utils._run import vaults
from ..plugin_utils._run.action import ControllerAction
from ..plugin_utils.rollout.values import is_pem


class ActionModule(ControllerAction):
    """Reads files of the controller, and returns what the servers get of them."""

    ARGUMENTS: ClassVar[dict[str, Any]] = {
        "plan": {"type": "dict", "required": True},
        "certificate": {"type": "str", "default": ""},
        "certificate_key": {"type": "str", "default": "", "no_log": True},
        "ca": {"type": "str", "default": ""},
        "api_keys": {"type": "dict", "default": {}, "no_log": True},
        "fail": {"type": "bool", "default": True},
    }

    def work(self, options: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        fronts = {
            name: share["front"]
            for name, share in options["plan"]["hosts"].items()
            if share.get("front") is not None
        }
        checked = Checked()
        if any(front["tls"] for front in fronts.values()):
            checked = self._checked(options, fronts, task_vars)
        elif fronts:
            checked.names = {name: front["name"] or front["host"] for name, front in fronts.items()}
        errors = [finding for finding in checked.findings if finding.severity == ERROR]
        result: dict[str, Any] = {
            "findings": [finding.to_dict() for finding in checked.findings],
            "names": checked.names,
            "not_after": checked.not_after,
        }
        if errors and options["fail"]:
            return {
                **result,
                "failed": True,
                "msg": text_of(errors, "The front cannot have this certificate."),
            }
        return {
            **result,
            "pem": checked.pem,
            "digest": checked.digest,
            "ca": checked.ca,
            "api_keys": digests(vaults.decrypted(options["api_keys"])) if fronts else {},
            # With it, whoever reads a log has the private key.
            "_ansible_no_log": True,
        }

    def _checked(
        self, options: dict[str, Any], fronts: dict[str, dict[str, Any]], task_vars: dict[str, Any]
    ) -> Checked:
        given: dict[str, Given] = {}
        missing: list[Finding] = []
        for variable, option in ((CERTIFICATE, "certificate"), (KEY, "certificate_key"), (CA, "ca")):
            found = self._given(variable, options[option], str(task_vars.get("inventory_dir") or ""))
            if isinstance(found, Finding):
                missing.append(found)
            else:
                given[variable] = found
        if missing:
            return Checked(findings=missing)
        return check(
            given[CERTIFICATE],
            given[KEY],
            given[CA],
            {
                name: Host(front["host"], front["name"], (front.get("shared") or {}).get("address"))
                for name, front in fronts.items()
            },
            datetime.datetime.now(UTC),
        )

    def _given(self, variable: str, value: str, inventory: str) -> Given | Finding:
        """Return the text itself or that of the file, which may be encrypted with ansible-vault."""
        text = value.strip()
        if not text or is_pem(text):
            return Given(text)
        named = Path(text).expanduser()
        path = str(named)
        if not named.is_absolute() and inventory and (Path(inventory) / named).is_file():
            path = str(Path(inventory) / named)
        try:
            path = self._find_needle("files", path)
            # A file of ansible-vault is decrypted to a temporary one, which is removed.
            real = self._loader.get_real_file(path)
            try:
                return Given(Path(real).read_text(encoding="ascii", errors="replace"), path)
            finally:
                self._loader.cleanup_tmp_file(real)
        except AnsibleFileNotFound:
            seen = "no such file"
        except (AnsibleError, OSError) as error:
            seen = str(getattr(error, "strerror", None) or getattr(error, "message", None) or error)
        return CERTIFICATE_CHECKS.finding(
            "front-certificate-missing",
            f"The file of {variable} cannot be read",
            variable=variable,
            path=path,
            seen=f"{path}: {seen}",
        )
