#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Merge options into Docker's daemon.json
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Merges O(config) into C(daemon.json). Options that are only in the file are kept.
  - Fails without changing the file if it is not a JSON object, if C(dockerd) has one of the options on its
    command line too (it would refuse to start), or if C(dockerd --validate) rejects the result, on engines
    that are new enough to support it.
  - The engine is neither reloaded nor restarted; the result shows which of the two the change requires.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  config:
    description:
      - Options of C(daemon.json). Objects are merged, other values (lists too) replaced, and null removes
        a key.
    type: dict
    required: true
  path:
    description: The file. Its directory is created if needed.
    type: path
    default: /etc/docker/daemon.json
  backup:
    description: Whether to keep a copy of the file before it changes.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Pull through a mirror, and rotate the containers' logs
  ascend.pd_rollout.docker_daemon_config:
    config:
      registry-mirrors: ["https://mirror.example"]
      log-driver: json-file
      log-opts: {max-size: 100m, max-file: "5"}
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
changed_keys:
  description: The options that changed.
  returned: always
  type: list
  elements: str
  sample: [log-opts, registry-mirrors]
restart_keys:
  description: Those of RV(changed_keys) that take effect only after a restart of the engine. The others
    need a reload.
  returned: always
  type: list
  elements: str
  sample: [log-opts]
backup_file:
  description: The copy of the file before the change.
  returned: if the file existed and changed
  type: str
"""

import os
import subprocess
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker import daemon_config, dockerd

VALIDATE_SECONDS = 30


def refusal(text: str) -> str | None:
    """Why dockerd would refuse this configuration.

    None if it would not, or is too old to be asked (before 23.0).
    """
    program = dockerd.dockerd_path()
    if program is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        try:
            run = subprocess.run(
                [program, "--validate", "--config-file", file.name],
                capture_output=True,
                text=True,
                timeout=VALIDATE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
    output = (run.stderr + run.stdout).strip().replace(file.name, "daemon.json")
    if run.returncode == 0 or "unknown flag" in output:
        return None
    return output


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "dict", "required": True},
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "backup": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"]).resolve()
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        merged = daemon_config.merge(before, module.params["config"])
    except daemon_config.BrokenConfig as error:
        module.fail_json(
            msg=f"{path} is broken: {error}. It was not touched. dockerd could not start with it either: "
            "repair it by hand, or move it away to have a new one made."
        )
    except (OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=f"{path} cannot be read: {error}")
    result = {
        "changed": bool(merged.changed),
        "path": str(path),
        "changed_keys": list(merged.changed),
        "restart_keys": list(merged.needs_restart),
    }
    if not merged.changed:
        module.exit_json(**result)

    wanted = daemon_config.parse(merged.text)
    arguments = dockerd.daemon_arguments(dockerd.daemon_pid())
    added = tuple(key for key in merged.changed if key in wanted)
    twice = daemon_config.given_as_flags(added, arguments)
    if twice:
        module.fail_json(
            msg=f"dockerd has {', '.join(twice)} on its command line already ({' '.join(arguments)}), and "
            f"refuses to start with an option in both places. {path} was not touched. Remove the flag from "
            "the service (a drop-in of docker.service, or /etc/default/docker), or the option from "
            "docker_daemon_config."
        )
    refused = refusal(merged.text)
    if refused:
        module.fail_json(
            msg=f"dockerd refuses the merged configuration, so {path} was not touched: {refused}"
        )

    result["diff"] = {
        "before_header": str(path),
        "after_header": str(path),
        "before": before,
        "after": merged.text,
    }
    if not module.check_mode:
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            existed = path.exists()
            if existed and module.params["backup"]:
                result["backup_file"] = module.backup_local(str(path))
            descriptor, new = tempfile.mkstemp(prefix=".daemon.json.", dir=path.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(merged.text)
            module.atomic_move(new, str(path))
            if not existed:
                path.chmod(0o644)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be written: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
