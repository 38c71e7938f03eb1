#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_directory
short_description: Make or remove the directory of a deployment
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Does so only where it can reach nothing else. The path must be absolute and without C(..), its last part
    a name as deployments have, and its parent not a directory of the operating system. On the server the way
    to it must be root's alone, and it must not be a link. Otherwise the module fails, and nothing is changed.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  path:
    description: The directory.
    type: str
    required: true
  state:
    description:
      - With V(named) only the path is judged, without the server. Without O(deployment) it may be any that is
        not a directory of the operating system.
      - With V(present) the directory is there, and root's alone. One that is there is only taken over if it
        holds nothing, or something of a deployment.
      - With V(absent) launch scripts, notes of starts and the API key are removed, and the directory if it is
        empty then.
        Other files stay.
    type: str
    choices: [named, present, absent]
    default: present
  deployment:
    description: The name of the deployment. If it is given, it must be one.
    type: str
  variable:
    description: What messages call O(path), such as the name of the variable that decides it.
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
path:
  description: The directory.
  returned: success
  type: str
  sample: /etc/pd_rollout/pd
left:
  description: Files in it that were not removed, as no deployment has written them. Then it stays.
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
