# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Options that several modules have."""

from __future__ import annotations


class ModuleDocFragment:
    """One option, or a pair of them, each."""

    SERVERS = r"""
options:
  servers:
    description: The servers, by their inventory names.
    type: list
    elements: str
    required: true
"""

    PLAN = r"""
options:
  plan:
    description: The plan of M(ascend.pd_rollout.plan).
    type: dict
    required: true
"""

    LOOKS = r"""
options:
  result:
    description: Name of the variable in which each server's result of M(ascend.pd_rollout.deployment_info)
      is registered.
    type: str
    required: true
"""

    FAIL = r"""
options:
  fail:
    description:
      - Whether findings of severity C(error) fail the task.
      - Without it they are only returned, for M(ascend.pd_rollout.check_report) or
        M(ascend.pd_rollout.hccn_report) to report on all servers together.
    type: bool
    default: true
"""

    DRAINED = r"""
options:
  engines:
    description: The engines on this server.
    type: list
    elements: dict
    required: true
    suboptions:
      container:
        description: Name of the container.
        type: str
        required: true
      instance:
        description: Name of the instance.
        type: str
        required: true
      role:
        description: Its role.
        type: str
        choices: [prefiller, decoder]
        required: true
      apis:
        description: Where it serves, as C(address:port).
        type: list
        elements: str
        required: true
  model:
    description: Name of the model in the API.
    type: str
    required: true
  api_key_file:
    description: File with the engines' API key on the server.
    type: path
"""

    DOCKER = r"""
options:
  docker_socket:
    description: Socket of the Docker Engine.
    type: path
    default: /var/run/docker.sock
"""

    HCCN_TOOL = r"""
options:
  hccn_tool:
    description: Path of C(hccn_tool).
    type: path
    default: /usr/local/Ascend/driver/tools/hccn_tool
"""

    DRIVER = r"""
options:
  npu_smi:
    description: Path of C(npu-smi).
    type: path
    default: /usr/local/bin/npu-smi
  version_info:
    description: Path of the file with the version of the driver.
    type: path
    default: /usr/local/Ascend/driver/version.info
"""

    WEIGHTS = r"""
options:
  path:
    description: The model's directory on the server.
    type: path
    required: true
"""
