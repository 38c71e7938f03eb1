#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_directory
short_description: Create or remove the directory of a deployment
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Refuses a path that could affect anything else. The path must be absolute and without C(..), its last part
    must be a valid name of a deployment, and its parent must not be a directory of the operating system. On
    the server, only root may be able to write to the directories above it, and it must not be a link.
    Otherwise the module fails and changes nothing.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.changes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
options:
  path:
    description: The directory.
    type: str
    required: true
  state:
    description:
      - With V(named), only the path is checked, without the server. Without O(deployment) it may be any path
        that is not a directory of the operating system.
      - With V(present), the directory is created, accessible to root alone. An existing one is used only if
        it is empty or contains files of a deployment.
      - With V(absent), launch scripts, records of starts, the API key, modules of routers and revisions are
        removed, and the directory if it is empty then. Other files are kept.
    type: str
    choices: [named, present, absent]
    default: present
  deployment:
    description: The name of the deployment. If set, it must be a valid name.
    type: str
  variable:
    description: How messages refer to O(path), such as the name of the variable that sets it.
    type: str
    default: path
"""

EXAMPLES = r"""
- name: Remove the directory of the deployment pd
  ascend.pd_rollout.deployment_directory:
    path: /etc/pd_rollout/pd
    state: absent
"""

RETURN = r"""
findings:
  description: Why the directory was refused, with code, variable, seen, expected and cure.
  returned: failure
  type: list
  elements: dict
path:
  description: The directory.
  returned: success
  type: str
  sample: /etc/pd_rollout/pd
left:
  description: Files in it that no deployment has written. They are kept, and so is the directory then.
  returned: success
  type: list
  elements: str
  sample: [notes.txt]
"""

from ..module_utils._module import run
from ..module_utils._serving import entry


def main() -> None:
    run(entry.FOLDER_ARGUMENTS, entry.folder)


if __name__ == "__main__":
    main()
