#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_wait
short_description: Wait for the transfer of a model's weights to a server, and show its progress
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights).
  - Calls M(ascend.pd_rollout.weights_transfer_info) repeatedly, and shows a line every few seconds with MB,
    MB/s, the time left and the server from which the weights are copied.
  - Fails with the finding that ended the transfer.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Does not wait in check mode.
  diff_mode:
    support: none
options:
  path:
    description: The model's directory on the server.
    type: str
    required: true
  container:
    description: The container that downloads the weights, to wait for it instead.
    type: str
"""

EXAMPLES = r"""
- name: Wait for the weights
  ascend.pd_rollout.weights_wait:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
"""

RETURN = r"""
status:
  description: The last status, as returned by M(ascend.pd_rollout.weights_transfer_info).
  returned: always
  type: dict
seconds:
  description: Duration of the wait in seconds.
  returned: always
  type: float
findings:
  description: Why it failed, with code, path, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""
