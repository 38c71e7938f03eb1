#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: guard_secret_info
short_description: Read the secret by which the guards of a deployment recognize each other
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(guard). Use C(no_log).
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
options:
  directory:
    description: The deployment's directory on the server.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Read the secret of the guard on this server
  ascend.pd_rollout.guard_secret_info:
    directory: /etc/pd_rollout/pd
  no_log: true
  register: guard_found
"""

RETURN = r"""
secret:
  description: The secret; empty if there is none, or if others than root may have read it.
  returned: success
  type: str
findings:
  description: Why it failed, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""

from ..module_utils._module import run
from ..module_utils._serving import guard_unit


def main() -> None:
    run(guard_unit.SECRET_ARGUMENTS, guard_unit.secret)


if __name__ == "__main__":
    main()
