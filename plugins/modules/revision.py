#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: revision
short_description: Keep a revision of a deployment on a server
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(rollout).
  - Writes a revision below C(history) in the deployment's directory, for root alone, unless it is there, and
    removes the oldest if there are more than ten.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
options:
  directory:
    description: The deployment's directory on the server.
    type: str
    required: true
  record:
    description: The record of the revision, from M(ascend.pd_rollout.revision_record).
    type: dict
    required: true
  folder:
    description: The revision's folder on the controller, from which the action takes the plan.
    type: str
    required: true
  plan:
    description: The plan as JSON. Set by the action.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Keep the revision
  ascend.pd_rollout.revision:
    directory: /etc/pd_rollout/pd
    record: "{{ rollout_revision.record }}"
    folder: "{{ rollout_revision.folder }}"
"""

RETURN = r"""
findings:
  description: Why the revision was not written, with code, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
"""

from ..module_utils._module import run
from ..module_utils._serving import history


def main() -> None:
    run(history.ARGUMENTS, history.keep)


if __name__ == "__main__":
    main()
