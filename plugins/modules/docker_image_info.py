#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_info
short_description: Tell whether an image is on a server, and what the server has to get it
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Looks for an image by name and, if given, digest; for the archive from which it could be loaded; and for
    what an interrupted transfer has left.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
options:
  image:
    description: The image, with tag or digest.
    type: str
    required: true
  digest:
    description: C(sha256:…) that it must have. Empty takes any.
    type: str
    default: ""
  kinds:
    description:
      - Which digests count, V(repository) for those by which registries call the image (also as noted when it
        came to this server by M(ascend.pd_rollout.docker_image_transfer)), V(id) for the image's ID.
    type: list
    elements: str
    choices: [repository, id]
    default: [repository, id]
  archive:
    description: An archive on this server to look for.
    type: path
  directory:
    description: Where transfers keep what has come.
    type: path
    default: /var/lib/pd_rollout/image
  keep:
    description: How many images of the same repository may stay besides; V(-1) does not look for more.
    type: int
    default: -1
  docker:
    description:
      - Return what M(ascend.pd_rollout.docker_info) returns as well. Then it is no failure if no Docker
        Engine answers, and an empty O(image) asks for no image. RV(docker) and RV(image) are all that is
        returned in both cases.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Look at the image
  ascend.pd_rollout.docker_image_info:
    image: registry.example:5000/ascend/vllm-ascend:v0.13.0-a3
  register: image
"""

RETURN = r"""
docker:
  description: What M(ascend.pd_rollout.docker_info) returns.
  returned: if O(docker=true)
  type: dict
image:
  description: The image asked for.
  returned: always
  type: str
id:
  description: The image's ID, empty if it is not there.
  returned: always
  type: str
size:
  description: Bytes of its layers.
  returned: always
  type: int
digests:
  description: Its digests of the kinds that count.
  returned: always
  type: list
  elements: str
right:
  description: Whether it is there with the right digest.
  returned: always
  type: bool
archive:
  description: The archive, null if none was asked for.
  returned: always
  type: dict
  contains:
    exists:
      description: Whether it is a file.
      type: bool
    shared:
      description: Whether it lies on a network file system.
      type: bool
leftover:
  description: Whether a transfer has left something.
  returned: always
  type: bool
old:
  description: Names of older images of the repository beyond O(keep), that no container uses.
  returned: always
  type: list
  elements: str
"""

from ..module_utils._module import run
from ..module_utils._transfer import image_entry


def main() -> None:
    run(image_entry.ARGUMENTS, image_entry.state)


if __name__ == "__main__":
    main()
