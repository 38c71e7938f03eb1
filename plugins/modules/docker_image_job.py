#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_job
short_description: Run one server's part of bringing an image to many servers
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(docker). Starts or ends the background process that fetches an image's archive,
    serves it to other servers while it still comes in, and loads it. The action
    M(ascend.pd_rollout.docker_image_transfer) uses it, and shows the progress.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: none
  diff_mode:
    support: none
options:
  state:
    description: Whether the process runs, or is ended and what it has left removed.
    type: str
    choices: [present, absent]
    default: present
  wait:
    description:
      - With O(state=present), do not start the process. Hand O(sources) and O(incoming) to the one that runs,
        and return when its status changes, at the latest after O(hold).
    type: bool
    default: false
  directory:
    description: Where it keeps its things.
    type: path
    default: /var/lib/pd_rollout/image
  kind:
    description: Where it gets the archive.
    type: str
    choices: [registry, archive, controller, docker, peers]
    default: peers
  image:
    description: The name that the image has with the Docker Engine.
    type: str
    default: ""
  address:
    description: The address of this server at which it serves.
    type: str
    default: 127.0.0.1
  token:
    description: What the servers of one run know.
    type: str
    default: ""
  archive:
    description: The file, for V(archive).
    type: path
  digest:
    description: The digest that the manifest must have, for V(registry).
    type: str
    default: ""
  places:
    description: Registries in the order in which they are tried, for V(registry).
    type: list
    elements: dict
    default: []
    suboptions:
      base:
        description: Scheme, name and port, of a mirror also a path.
        type: str
        required: true
      username:
        description: Who logs in.
        type: str
        default: ""
      password:
        description: The password.
        type: str
        default: ""
      ca:
        description: Certificates (PEM) to trust besides the system's.
        type: str
        default: ""
  hashes:
    description: SHA-256 of the archive's chunks, for V(controller).
    type: list
    elements: str
    default: []
  size:
    description: Bytes of the archive, for V(controller).
    type: int
    default: 0
  packed:
    description: Whether the archive is compressed, for V(controller).
    type: bool
    default: false
  incoming:
    description: A file on this server with a piece of the archive from the controller. With O(wait=true).
    type: path
  number:
    description: The chunk with which the piece begins.
    type: int
    default: -1
  idle:
    description: Seconds after which it ends if nobody has asked.
    type: int
    default: 300
  patience:
    description: Seconds without news from any other server.
    type: int
    default: 60
  load_timeout:
    description: Seconds without progress of the Docker Engine's loading.
    type: int
    default: 1800
  sources:
    description: Name, address and port of servers to take from, best first. With O(wait=true).
    type: list
    elements: list
  hold:
    description: Seconds to wait for news. With O(wait=true).
    type: float
    default: 2.0
  keep_part:
    description: Keep what has come, so that the next run goes on from there. For O(state=absent).
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: End what an interrupted transfer left
  ascend.pd_rollout.docker_image_job:
    state: absent
"""

RETURN = r"""
status:
  description: How far the transfer is.
  returned: always
  type: dict
  contains:
    phase:
      description: One of waiting, fetching, loading, complete, failed, gone.
      type: str
    source:
      description: Where the image comes from; empty before that is known.
      type: str
    done:
      description: Bytes that are there.
      type: int
    total:
      description: Bytes of the whole; null while that is not known.
      type: int
    rate:
      description: Bytes a second.
      type: float
    kept:
      description: Bytes that were there from an earlier run.
      type: int
    fetched:
      description: Bytes that came from a registry or a Docker Engine.
      type: int
    served:
      description: Bytes that went to other servers.
      type: int
    wanted:
      description: The chunk that it waits for, from the controller.
      type: int
    finding:
      description: Why it failed, with code, seen, expected and cure; null unless it has.
      type: dict
removed:
  description: Whether there was something to remove.
  returned: with O(state=absent)
  type: bool
"""

from ..module_utils._module import run
from ..module_utils._transfer import job_entry


def main() -> None:
    run(job_entry.ARGUMENTS, job_entry.job, check_mode=False)


if __name__ == "__main__":
    main()
