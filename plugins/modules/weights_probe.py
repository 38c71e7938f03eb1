#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_probe
short_description: Find the servers that share the file system of a model's weights
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights). Writes a small hidden file of this server next to O(path), and
    lists the files of all servers that it finds there.
  - The list is complete once the module has run on all servers, so call it twice.
  - M(ascend.pd_rollout.weights_transfer) with O(ascend.pd_rollout.weights_transfer#module:state=absent)
    removes the file.
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
  run:
    description: Identifies this rollout.
    type: str
    required: true
  name:
    description: The server's name in the inventory.
    type: str
    required: true
  address:
    description: The server's service address, returned unchanged.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Write a file next to the weights
  ascend.pd_rollout.weights_probe: &probe
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    run: 0123456789ab
    name: "{{ inventory_hostname }}"

- name: List the servers that share the file system
  ascend.pd_rollout.weights_probe: *probe
  register: probe
"""

RETURN = r"""
address:
  description: The service address, as given in O(address).
  returned: success
  type: str
writable:
  description: Whether the file could be written. Without write access to the directory it stays unseen.
  returned: success
  type: bool
seen:
  description: The servers whose files were found, including this one if it can write.
  returned: success
  type: list
  elements: str
  sample: [prefill1, prefill2]
"""

from ..module_utils._module import run
from ..module_utils._transfer import weights_entry


def main() -> None:
    run(weights_entry.PROBE_ARGUMENTS, weights_entry.probe, check_mode=False)


if __name__ == "__main__":
    main()
