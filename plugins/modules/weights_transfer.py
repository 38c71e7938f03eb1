#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_transfer
short_description: Run one server's part of copying a model's weights from server to server
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights). Starts or stops the background process that copies weights to this
    server and serves them to others. M(ascend.pd_rollout.weights_transfer_info) reports its progress.
  - The servers form a chain. During the rollout each runs its own rsync daemon on its service address, with a
    secret generated for this run, which only accepts the servers behind it in the chain. It ends with the
    run, or by itself after O(job.idle) seconds without a query or a client.
  - Needs C(rsync) on the server.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.weights
attributes:
  check_mode:
    support: none
  diff_mode:
    support: none
options:
  state:
    description:
      - With V(present) the process runs. It serves and, if O(job.sources) lists servers, copies.
      - With V(absent) the process is stopped, and its secret and the files of
        M(ascend.pd_rollout.weights_probe) are removed.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: The server's name in the inventory.
    type: str
    required: true
  job:
    description: This server's part of the transfer. Required with O(state=present).
    type: dict
    suboptions:
      address:
        description: The address on which it serves.
        type: str
        required: true
      port:
        description: The port on which all servers of the chain serve.
        type: int
        required: true
      secret:
        description: The secret of this run.
        type: str
        required: true
      sources:
        description: The servers from which it copies, the nearest first. Empty on the one that has all files.
        type: list
        elements: dict
        default: []
      clients:
        description: The addresses of the servers that may copy from it.
        type: list
        elements: str
        default: []
      bandwidth:
        description: Maximum rate at which it copies, in MB/s. V(0) means no limit.
        type: float
        default: 0
      patience:
        description: Seconds without an answer after which it switches to the next source.
        type: float
        default: 60
      idle:
        description: Seconds without a query and without a client after which it ends.
        type: float
        default: 120
      hashes:
        description: SHA-256 by relative file name.
        type: dict
        default: {}
"""

EXAMPLES = r"""
- name: Start copying the weights from another server
  ascend.pd_rollout.weights_transfer:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    name: decode1
    job:
      address: 10.0.0.13
      port: 18730
      secret: "{{ secret }}"
      sources:
        - name: prefill1
          address: 10.0.0.11

- name: Stop the transfer
  ascend.pd_rollout.weights_transfer:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    name: decode1
    state: absent
"""

RETURN = r"""
status:
  description: The last status, as RV(ascend.pd_rollout.weights_transfer_info#module:status).
  returned: with O(state=absent)
  type: dict
"""

from ..module_utils._module import run
from ..module_utils._transfer import weights_entry


def main() -> None:
    run(weights_entry.TRANSFER_ARGUMENTS, weights_entry.transfer, check_mode=False)


if __name__ == "__main__":
    main()
