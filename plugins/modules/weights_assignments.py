#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_assignments
short_description: Decide which servers receive a model's weights, and from which source
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights).
  - An action that runs on the controller. One task with C(run_once) decides for all servers, based on the
    result of M(ascend.pd_rollout.model_weights) on each.
  - Complete weights are left alone. A server gets the weights from another server that has them. Only if none
    has them does one server get them from outside, once for the site.
  - It fails with everything that prevents the transfer, such as complete weights of two different models, or
    findings that another copy does not cure.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.servers
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  source:
    description: The source of the weights if no server has them.
    type: str
    required: true
  id:
    description: The model's name on the hub.
    type: str
    default: ""
  directory:
    description: The directory on the controller.
    type: str
    default: ""
  seed:
    description:
      - The server that gets the weights first. By default the first one that has them, or else the first one
        that lacks them.
    type: str
    default: ""
  manifest:
    description: A file on the controller with SHA-256 sums, written by C(make bundle) or C(sha256sum).
    type: str
    default: ""
  result:
    description: Name of the variable with each server's result of M(ascend.pd_rollout.model_weights).
    type: str
    required: true
  probes:
    description:
      - Name of the variable with each server's result of M(ascend.pd_rollout.weights_probe), which provides
        its address.
    type: str
  listed:
    description:
      - Name of the variable with each server's result of M(ascend.pd_rollout.weights_probe), called again
        after it had run on all servers. With it, the result says which server copies from which.
    type: str
"""

EXAMPLES = r"""
- name: Decide which servers receive the weights
  ascend.pd_rollout.weights_assignments:
    servers: "{{ ansible_play_hosts }}"
    result: model_weights_result
    source: modelscope
    id: Eco-Tech/DeepSeek-V3.1-w8a8
  run_once: true
  register: weights_assignments
"""

RETURN = r"""
wanted:
  description: The servers that receive the weights.
  returned: success
  type: list
  elements: str
  sample: [prefill2, decode1]
bring:
  description: Whether there are weights to transfer and this is not check mode.
  returned: success
  type: bool
seed:
  description: The server from which the others copy.
  returned: success
  type: str
  sample: prefill1
outside:
  description: Whether that server must get the weights from outside first.
  returned: success
  type: bool
servers:
  description: All servers that take part.
  returned: success
  type: list
  elements: str
damaged:
  description: By server, the files that exist but are damaged.
  returned: success
  type: dict
run:
  description: An identifier of this run.
  returned: if a server receives weights
  type: str
hashes:
  description: SHA-256 by file name, from the manifest.
  returned: if a server receives weights
  type: dict
jobs:
  description:
    - By server, its address, the servers from which it copies (nearest first), and those that copy from it.
  returned: with O(listed)
  type: dict
shared:
  description: By server, the server whose file system it shares.
  returned: with O(listed)
  type: dict
secret:
  description: The secret of this run's transfers.
  returned: with O(listed)
  type: str
findings:
  description: Everything that prevents the transfer.
  returned: failure
  type: list
  elements: dict
"""
