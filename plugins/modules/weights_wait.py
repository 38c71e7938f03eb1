#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_wait
short_description: Wait until a model's weights have come to a server, with progress on the screen
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights).
  - Asks M(ascend.pd_rollout.weights_transfer_info) again and again, and shows a line every few seconds with
    MB, MB/s, the time left and the server from which they come.
  - It fails with the finding that ended the transfer.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Waits for nothing in check mode.
  diff_mode:
    support: none
options:
  path:
    description: The model's directory on the server.
    type: str
    required: true
  container:
    description: The container that downloads, to wait for it instead.
    type: str
"""

EXAMPLES = r"""
- name: Wait for the weights
  ascend.pd_rollout.weights_wait:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
"""

RETURN = r"""
status:
  description: The last state, as M(ascend.pd_rollout.weights_transfer_info) gives it.
  returned: always
  type: dict
seconds:
  description: Seconds that it took.
  returned: always
  type: float
findings:
  description: What ended it, with code, path, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""
