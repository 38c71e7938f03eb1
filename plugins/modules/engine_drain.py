#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_drain
short_description: Wait until engines have finished their last requests
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Waits until an engine that no router lists any longer runs no request and keeps none waiting, and until a
    prefiller keeps no blocks for its decoders.
  - What is left when the time is up is a warning, not an error.
  - An action that polls M(ascend.pd_rollout.engine_requests_info) from the controller.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.drained
options:
  timeout:
    description: Seconds for the requests.
    type: float
    default: 600.0
  kv_timeout:
    description: Seconds for the blocks of a prefiller, after its last request. Nobody fetches what a client
      that gave up has left; the engine frees it after 480 seconds.
    type: float
    default: 30.0
"""

EXAMPLES = r"""
- name: Wait for the last requests of a decoder
  ascend.pd_rollout.engine_drain:
    engines:
      - container: pd-decode1
        instance: decode1
        role: decoder
        apis: ["198.51.100.13:8004"]
    model: deepseek_v3
"""

RETURN = r"""
left:
  description: What was left when the time was up.
  returned: success
  type: list
  elements: str
  sample: ["prefill1 has 2.0% of its KV cache in use"]
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 1.2
findings:
  description: The warning about requests that are cut, with code, seen, expected and cure.
  returned: when requests are left
  type: list
  elements: dict
"""
