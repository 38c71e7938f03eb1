#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: host_reserved_ports
short_description: Reserve ports, so that outgoing connections do not use them
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Adds ports to C(net.ipv4.ip_local_reserved_ports), immediately and for the next boot. Ports that are
    already reserved stay reserved.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  ports:
    description:
      - Ports and ranges, separated by commas, as returned by P(ascend.pd_rollout.reserved_ports#filter).
    type: str
    required: true
  path:
    description: The file that sets the reserved ports at boot.
    type: path
    default: /etc/sysctl.d/90-pd-rollout.conf
  proc:
    description: The kernel's file that sets the reserved ports now.
    type: path
    default: /proc/sys/net/ipv4/ip_local_reserved_ports
"""

EXAMPLES = r"""
- name: Reserve the ports of the plan
  ascend.pd_rollout.host_reserved_ports:
    ports: "{{ pd_plan | ascend.pd_rollout.reserved_ports(inventory_hostname) }}"
  become: true
"""

RETURN = r"""
reserved:
  description: All ports that are reserved after the task.
  type: str
  returned: always
  sample: 7001,8004-8005,36100-36115,60000-60031
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._host import parsers

KEY = "net.ipv4.ip_local_reserved_ports"
HEAD = "# Written by ascend.pd_rollout: ports of the plan, and what was reserved before.\n"


def content(ranges: str) -> str:
    """Return the content of the file below /etc/sysctl.d."""
    return f"{HEAD}{KEY} = {ranges}\n"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "str", "required": True},
            "path": {"type": "path", "default": "/etc/sysctl.d/90-pd-rollout.conf"},
            "proc": {"type": "path", "default": "/proc/sys/net/ipv4/ip_local_reserved_ports"},
        },
        supports_check_mode=True,
    )
    path, proc = Path(module.params["path"]), Path(module.params["proc"])
    try:
        present = parsers.parse_ranges(proc.read_text())
        before = path.read_text() if path.exists() else ""
    except OSError as error:
        module.fail_json(msg=f"The reserved ports cannot be read: {error}")
    wanted = parsers.merged_ranges([*present, *parsers.parse_ranges(module.params["ports"])])
    text = parsers.range_text(wanted)
    changed = wanted != parsers.merged_ranges(present) or before != content(text)
    if changed and not module.check_mode:
        try:
            proc.write_text(text + "\n")
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            part.write_text(content(text))
            part.chmod(0o644)
            part.replace(path)
        except OSError as error:
            module.fail_json(msg=f"The ports {text} cannot be reserved: {error}")
    module.exit_json(
        changed=changed,
        reserved=text,
        diff={
            "before_header": str(path),
            "after_header": str(path),
            "before": before,
            "after": content(text),
        },
    )


if __name__ == "__main__":
    main()
