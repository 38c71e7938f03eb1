#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_push
short_description: Copy a model's weights from the controller to one server
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights).
  - Copies every file that is not hidden with M(ansible.builtin.copy), one after the other. Each is compared
    by its hash and renamed atomically, so an interrupted run resumes with the file that it was copying.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.calls
options:
  source:
    description: The directory on the controller.
    type: str
    required: true
  destination:
    description: The directory on the server, which must exist.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Copy the weights to the first server
  ascend.pd_rollout.weights_push:
    source: /srv/models/DeepSeek-V3.1_w8a8mix_mtp
    destination: /root/.cache/.DeepSeek-V3.1_w8a8mix_mtp.incoming
"""

RETURN = r"""
bytes:
  description: Size of all files in bytes.
  returned: success
  type: int
sent:
  description: Size of the files that had to be sent, in bytes.
  returned: success
  type: int
"""
