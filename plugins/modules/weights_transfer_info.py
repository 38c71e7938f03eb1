#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_transfer_info
short_description: Report the progress of a transfer of weights
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights). Reports the progress of the process of
    M(ascend.pd_rollout.weights_transfer), or of a download in a container. The action plugin
    M(ascend.pd_rollout.weights_wait) calls it repeatedly.
  - Each call shows the process that the run is still waiting for it.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.weights
options:
  container:
    description: The container that downloads the weights, to report its progress instead.
    type: str
  hold:
    description: Seconds after which it returns if the transfer has not ended before.
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Report the progress of the transfer
  ascend.pd_rollout.weights_transfer_info:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    hold: 2
"""

RETURN = r"""
status:
  description: The progress of the transfer.
  returned: success
  type: dict
  contains:
    phase:
      description: >-
        V(waiting), V(fetching), V(verifying), V(complete), V(failed), or V(gone) without a process.
      type: str
    source:
      description: The server from which it fetches; empty where it has none.
      type: str
    done:
      description: Bytes that are complete.
      type: int
    total:
      description: Total bytes; null while unknown.
      type: int
    rate:
      description: Bytes a second, over the last seconds.
      type: float
    received:
      description: Bytes received over the network in this run.
      type: int
    finding:
      description: Why it failed, with code, path, seen, expected and cure.
      type: dict
    log:
      description: The last lines of the log, if it failed.
      type: list
      elements: str
"""

from ..module_utils._module import run
from ..module_utils._transfer import weights_entry


def main() -> None:
    run(weights_entry.INFO_ARGUMENTS, weights_entry.transfer_info)


if __name__ == "__main__":
    main()
