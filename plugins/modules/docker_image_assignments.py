# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_image_assignments
short_description: Decide which server gets an image from where
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Internal to the role C(docker).
  - Reads what M(ascend.pd_rollout.docker_image_info) found on the hosts of the play. If one of them has the
    image, it gives it to the others. If none has, the first gets it, and the others take it from there.
  - To be run once for all hosts.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
options:
  states:
    description: The name under which the results were registered.
    type: str
    required: true
  source:
    description: Where the image comes from if no host has it.
    type: str
    choices: [registry, pull, archive, none]
    required: true
  digest:
    description: The digest that it must have.
    type: str
    default: ""
  archive:
    description: The archive.
    type: str
    default: ""
  archive_on_server:
    description: Whether the archive lies on the servers.
    type: bool
    default: true
  spread:
    description: Whether servers give it to each other. If not, each gets it from the source.
    type: bool
    default: true
  mirrors:
    description: Registries that are asked first.
    type: list
    elements: str
    default: []
  allow_unqualified:
    description: Allow an image whose name has no registry.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Decide who gets the image from where
  ascend.pd_rollout.docker_image_assignments:
    states: image_info
    source: registry
  run_once: true
  register: image
"""

RETURN = r"""
assignments:
  description: What each host does, by its name. A host with nothing to do is left out.
  returned: always
  type: dict
  sample: {prefill1: {kind: registry, order: []}, prefill2: {kind: peers, order: [prefill1]}}
findings:
  description: Why the image cannot be provided.
  returned: failure
  type: list
  elements: dict
  sample:
    - code: image-registry-unnamed
      severity: error
      host: null
      instance: null
      variable: pd_image
      chips: []
      path: null
      files: []
      message: The image's name has no registry
      seen: vllm-ascend:v0.13.0-a3
      expected: a registry in the image's name, or a mirror
      cure: "pd_image_registry: registry.example:5000"
      source: this collection
"""
