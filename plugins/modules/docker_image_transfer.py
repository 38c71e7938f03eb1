# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_transfer
short_description: Bring an image to many servers, over the uplink once
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(docker).
  - Each server gets the image's archive as M(ascend.pd_rollout.docker_image_assignments) decided, one from a
    registry, an archive or its own Docker Engine, the others from each other, and loads it. They hand it
    on while it still comes in.
  - What came before a cut stays, and the next run goes on from there.
  - Starting and waiting are tasks of their own, so that all servers have started before one is waited for,
    whatever the forks.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.calls
attributes:
  check_mode:
    support: full
    details: Does nothing in check mode.
  diff_mode:
    support: none
options:
  state:
    description: With V(present) the transfer runs. With V(absent) it is ended, and what it has left removed.
    type: str
    choices: [present, absent]
    default: present
  wait:
    description:
      - With O(state=present), do not start the transfer. Wait until the one that a task without it has
        started has loaded the image, and show its progress.
    type: bool
    default: false
  assignments:
    description: Who gets it from where, as M(ascend.pd_rollout.docker_image_assignments) returned it.
    type: dict
    required: true
  image:
    description: The image.
    type: str
    required: true
  address:
    description: The address of this server at which others reach it.
    type: str
    default: 127.0.0.1
  archive:
    description:
      - The archive, on the server, or on the controller for a server that gets it from there. From the
        controller it comes in pieces, which are compared with their SHA-256 and kept when the way is cut.
    type: str
    default: ""
  digest:
    description: The digest that the registry must give.
    type: str
    default: ""
  mirrors:
    description: Registries to ask first, C(https://mirror.example:5000), also with a path.
    type: list
    elements: str
    default: []
  login:
    description:
      - C(username) and C(password) by the registry's name. They travel to the server over the connection of
        the task, and are kept in memory there.
    type: dict
    default: {}
  ca:
    description: Certificates (PEM) that the registries' may be signed with, besides the system's.
    type: str
    default: ""
  insecure:
    description: Names of registries without TLS. One on the server itself (127.0.0.0/8) needs none anyway.
    type: list
    elements: str
    default: []
  directory:
    description: Where the archive lies on the server until it is loaded.
    type: str
    default: /var/lib/pd_rollout/image
  idle:
    description: Seconds after which a server ends its part if neither the controller nor another server asks.
    type: int
    default: 300
  patience:
    description: Seconds without news from any other server.
    type: int
    default: 60
  load_timeout:
    description: Seconds without progress of loading.
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: Bring the image to all servers
  block:
    - name: Start
      ascend.pd_rollout.docker_image_transfer:
        assignments: "{{ image.assignments }}"
        image: registry.example:5000/ascend/vllm-ascend:v0.13.0-a3
        address: "{{ ansible_host }}"

    - name: Wait until it is there
      ascend.pd_rollout.docker_image_transfer:
        wait: true
        assignments: "{{ image.assignments }}"
        image: registry.example:5000/ascend/vllm-ascend:v0.13.0-a3
  always:
    - name: End
      ascend.pd_rollout.docker_image_transfer:
        state: absent
        assignments: "{{ image.assignments }}"
        image: registry.example:5000/ascend/vllm-ascend:v0.13.0-a3
"""

RETURN = r"""
port:
  description: Where this server gives it to others.
  returned: with O(state=present) and without O(wait)
  type: int
status:
  description: What the server's process told last, see M(ascend.pd_rollout.docker_image_job).
  returned: with O(wait=true)
  type: dict
loaded:
  description: Names that the archive held.
  returned: with O(wait=true), when it is loaded
  type: list
  elements: str
served:
  description: Bytes that went to other servers.
  returned: with O(state=absent)
  type: int
fetched:
  description: Bytes that came from a registry or a Docker Engine.
  returned: with O(state=absent)
  type: int
"""
