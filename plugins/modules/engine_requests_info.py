#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: engine_requests_info
short_description: Ask engines what they still have to do
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Reads from C(/metrics) how many requests an engine runs and keeps waiting, and how much of its KV cache a
    prefiller keeps for decoders that have not fetched it yet.
  - An engine that does not answer has nothing left to do.
  - Changes nothing.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.drained
options:
  nudge:
    description:
      - Whether a prefiller without requests that still keeps blocks is sent one of a single token.
      - Up to v0.18.0 a prefiller notices what was fetched only when it has a request.
    type: bool
    default: false
  hold:
    description: Seconds for which the answer is held back as long as something is left.
    type: float
    default: 0.0
"""

EXAMPLES = r"""
- name: Ask a prefiller what it still has to do
  ascend.pd_rollout.engine_requests_info:
    engines:
      - container: pd-prefill1
        instance: prefill1
        role: prefiller
        apis: ["198.51.100.11:8004"]
    model: deepseek_v3
"""

RETURN = r"""
engines:
  description: What each engine still has to do.
  returned: always
  type: list
  elements: dict
  contains:
    container:
      description: As given.
      type: str
      returned: always
    instance:
      description: As given.
      type: str
      returned: always
    role:
      description: As given.
      type: str
      returned: always
    apis:
      description: As given.
      type: list
      elements: str
      returned: always
    requests:
      description: Requests that run or wait.
      type: int
      returned: always
      sample: 3
    kv:
      description: The part of a prefiller's KV cache in use, from 0 to 1; 0 for a decoder.
      type: float
      returned: always
      sample: 0.02
    idle:
      description: Whether nothing is left.
      type: bool
      returned: always
"""

from ..module_utils._module import run
from ..module_utils._serving import engine_requests


def main() -> None:
    run(engine_requests.ARGUMENTS, engine_requests.result)


if __name__ == "__main__":
    main()
