#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: front
short_description: Run HAProxy in front of a deployment's routers, and choose the one that serves
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Writes HAProxy's configuration, the certificate and the API keys (as SHA-256), for root alone, and the
    systemd unit that runs HAProxy with them. An HAProxy of the site itself is not touched.
  - HAProxy verifies a new configuration before it replaces the one in use. A changed configuration or
    certificate is taken by a reload, changed API keys at once. Neither ends a connection.
  - With O(colour), waits until the front's own check finds that router up, and then has it get all new
    requests. Requests that run are finished by the router that has them.
  - If a run ends in between, the next one goes on where it was.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Of HAProxy's configuration, which holds no secret.
options:
  state:
    description: V(absent) stops the front and removes its unit and its files.
    type: str
    choices: [present, absent]
    default: present
  front:
    description: The front of the server in the plan, C(pd_plan.hosts[inventory_hostname].front). Required
      with O(state=present).
    type: dict
  directory:
    description: The deployment's directory on the server. Required with O(state=absent).
    type: str
  certificate:
    description: The certificate with its chain and its private key, in PEM.
    type: str
    default: ""
  keys:
    description: The SHA-256 of the clients' API keys, by their names.
    type: dict
    default: {}
  engine_key:
    description: The API key of the engines, which the front sends where it asks them itself.
    type: str
    default: ""
  drain:
    description: With O(state=absent), seconds for which the front may finish its requests. It accepts no
      others meanwhile.
    type: float
    default: 0.0
  colour:
    description: The router that gets the requests. Without it that stays as it is.
    type: str
    choices: [blue, green]
"""

EXAMPLES = r"""
- name: Run the front, with the green router behind it
  ascend.pd_rollout.front:
    front: "{{ pd_plan.hosts[inventory_hostname].front }}"
    certificate: "{{ lookup('ansible.builtin.file', 'front.pem') }}"
    keys: {alice: 5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5}
    colour: green

- name: Remove it
  ascend.pd_rollout.front:
    state: absent
    directory: /etc/pd_rollout/pd
"""

RETURN = r"""
done:
  description: What was done, in order.
  returned: success
  type: list
  elements: str
  sample: [wrote haproxy.cfg, reloaded, switched to green]
findings:
  description: Why it failed, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""

from ..module_utils._front import entry
from ..module_utils._module import run


def main() -> None:
    run(entry.ARGUMENTS, entry.result)


if __name__ == "__main__":
    main()
