#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: weights_directory
short_description: Prepare the directory into which a model's weights are transferred, or complete it
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(model_weights). Weights are written to a hidden directory next to O(path),
    C(.NAME.incoming), which is renamed atomically when they are complete. An interrupted run leaves them
    there, and the next run resumes.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
  - ascend.pd_rollout.options.weights
attributes:
  check_mode:
    support: none
  diff_mode:
    support: none
options:
  state:
    description:
      - With V(staged) the hidden directory exists. Incomplete weights at O(path) become that directory.
      - With V(present) the download in it is verified, also by the hub's hashes, and moved to O(path).
    type: str
    choices: [staged, present]
    required: true
  damaged:
    description: Files that are known to be damaged. Used with O(state=staged).
    type: list
    elements: str
    default: []
  hashes:
    description: SHA-256 by relative file name. Used with O(state=present).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Prepare the directory for the download
  ascend.pd_rollout.weights_directory:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    state: staged

- name: Verify the download and move it into place
  ascend.pd_rollout.weights_directory:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    state: present
"""

RETURN = r"""
staging:
  description: The hidden directory into which the weights are written.
  returned: success
  type: str
  sample: /root/.cache/.DeepSeek-V3.1_w8a8mix_mtp.incoming
"""

from ..module_utils._module import run
from ..module_utils._transfer import weights_entry


def main() -> None:
    run(weights_entry.DIRECTORY_ARGUMENTS, weights_entry.directory, check_mode=False)


if __name__ == "__main__":
    main()
