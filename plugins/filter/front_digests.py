# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Filter front_digests: what a server's front must hold, without its secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: front_digests
short_description: SHA-256 of the files of a front, by which a server finds those that differ
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors
description:
  - Internal to the role C(proxy). Takes the front of a server in the plan and its secrets, and returns what
    M(ascend.pd_rollout.deployment_info) compares, in which no secret can be read.
options:
  _input:
    description: The front in the plan, C(pd_plan.hosts[inventory_hostname].front); empty without one.
    type: dict
    required: true
  certificate:
    description: The certificate with its chain and its private key, in PEM.
    type: str
    required: true
  keys:
    description: The SHA-256 of the clients' API keys, by their names.
    type: dict
    required: true
  engine_key:
    description: The API key of the engines.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show which files the front of this server has
  ansible.builtin.debug:
    msg: >-
      {{ (pd_plan.hosts[inventory_hostname].front
          | ascend.pd_rollout.front_digests(certificate='', keys={}, engine_key='')).digests.keys() | list }}
  # => ['haproxy.cfg', 'front.pem', 'keys.lua', 'keys.map', 'engines.map', 'keepalived.conf', 'serves.py']
"""

RETURN = r"""
_value:
  description: C(digests) of the front's files, empty for one that must not exist, which no log may have, as a
    short key can be found out from its digest by trying. And C(front) with the digests of its C(units), its
    C(packages), its C(unit), C(host) and C(port), and the configuration of a C(shared) address, into which
    the server fills its NIC. Empty without a front.
  type: dict
"""

from typing import Any

from ..module_utils._front import files
from ..plugin_utils._filters import guarded


class FilterModule:
    """Digests of the front's files."""

    def filters(self) -> dict[str, Any]:
        return {"front_digests": front_digests}


@guarded
def front_digests(front: Any, certificate: Any, keys: Any, engine_key: Any) -> dict[str, Any]:
    """Return the SHA-256 of the front's files; empty without a front.

    front: the front in the plan.
    certificate: its certificate and private key in PEM.
    keys: the SHA-256 of the API keys by their names.
    engine_key: the key of the engines.
    """
    if not front:
        return {}
    texts = files.wanted(front, str(certificate), files.by_digest(keys), str(engine_key))
    return {
        "front": {
            "unit": front["unit"],
            "host": front["host"],
            "port": front["port"],
            "packages": front["packages"],
            # Into this one the server fills its NIC.
            "shared": texts[files.SHARED],
            "units": files.digests(files.units(front)),
        },
        "digests": files.digests(texts),
    }
