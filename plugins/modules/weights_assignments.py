#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_assignments
short_description: Decide which servers get a model's weights, and from where
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights).
  - An action that runs on the controller. One task with C(run_once) decides for all servers, from what
    M(ascend.pd_rollout.model_weights) has seen on each.
  - Weights that are whole are left alone. A server gets them from another that has them, and only if none
    has from outside, once for the site.
  - It fails with everything that stands against it, such as whole weights of two different models, or
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
    description: Where the weights come from if no server has them.
    type: str
    required: true
  id:
    description: The model's name at the hub.
    type: str
    default: ""
  directory:
    description: The directory on the controller.
    type: str
    default: ""
  seed:
    description: The server that gets them first. By default the first that has them, or that lacks them.
    type: str
    default: ""
  manifest:
    description: A file on the controller with SHA-256 sums, made by C(make bundle) or by C(sha256sum).
    type: str
    default: ""
  result:
    description: Name of the variable with each server's result of M(ascend.pd_rollout.model_weights).
    type: str
    required: true
  probes:
    description:
      - Name of the variable with each server's result of M(ascend.pd_rollout.weights_probe), of which the
        address is read.
    type: str
  listed:
    description:
      - Name of the variable with each server's result of M(ascend.pd_rollout.weights_probe), called again
        after it had run on all servers. With it, the result says who takes from whom.
    type: str
"""

EXAMPLES = r"""
- name: Decide who gets the weights
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
  description: The servers that get the weights.
  returned: success
  type: list
  elements: str
  sample: [prefill2, decode1]
bring:
  description: Whether there is anything to bring, and this is not check mode.
  returned: success
  type: bool
seed:
  description: The server from which they go to the others.
  returned: success
  type: str
  sample: prefill1
outside:
  description: Whether that one has to be given them first.
  returned: success
  type: bool
servers:
  description: All that take part.
  returned: success
  type: list
  elements: str
damaged:
  description: By server, the files that are there and not what they should be.
  returned: success
  type: dict
run:
  description: What distinguishes this run from others.
  returned: if a server gets weights
  type: str
hashes:
  description: SHA-256 by file name, of the manifest.
  returned: if a server gets weights
  type: dict
jobs:
  description: By server, its address, those from which it takes, nearest first, and those that take from it.
  returned: with O(listed)
  type: dict
shared:
  description: By server, the one whose file system it shares.
  returned: with O(listed)
  type: dict
secret:
  description: The secret of this run's transfers.
  returned: with O(listed)
  type: str
findings:
  description: All that stands against it.
  returned: failure
  type: list
  elements: dict
"""
