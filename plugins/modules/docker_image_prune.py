#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_prune
short_description: Remove old images of a repository
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Removes images of the same repository as O(image), the oldest first, that no container uses, running or
    not. The registry in front of the name does not matter. Other images are not touched.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  image:
    description: The image that is needed. It stays.
    type: str
    required: true
  keep:
    description: How many others stay.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Keep the image and the one before
  ascend.pd_rollout.docker_image_prune:
    image: registry.example:5000/ascend/vllm-ascend:v0.13.0-a3
    keep: 1
"""

RETURN = r"""
removed:
  description: The names removed.
  returned: always
  type: list
  elements: str
  sample: ["registry.example:5000/ascend/vllm-ascend:v0.12.0-a3"]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._docker.client import DockerError
from ..module_utils._docker.images import Images, old_names


def main() -> None:
    module = AnsibleModule(
        argument_spec={"image": {"type": "str", "required": True}, "keep": {"type": "int", "required": True}},
        supports_check_mode=True,
    )
    wanted, keep = module.params["image"], module.params["keep"]
    images = Images()
    try:
        found = images.inspect(wanted)
        if found is None:
            module.fail_json(msg=f"{wanted} is not on this server: nothing is removed before it is.")
            return
        old = old_names(images.listed(), images.in_use(), wanted, found["Id"], keep)
        for name in [] if module.check_mode else old:
            images.untag(name)
    except DockerError as error:
        module.fail_json(msg=f"an old image cannot be removed: {error}")
    module.exit_json(
        changed=bool(old), removed=old, diff={"before": "".join(f"{name}\n" for name in old), "after": ""}
    )


if __name__ == "__main__":
    main()
