#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: canary
short_description: Ask every pair of prefiller and decoder, and examine the answers
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Sends fixed prompts to each pair of prefiller and decoder, as a router would with this pair chosen, and
    to each decoder alone. Run it on a router's host; no router takes part, so instances that no router
    lists can be asked.
  - Finds engines without an answer, a prefiller that does not say where its KV cache is, and answers that
    are empty, repeated, cut, other than the decoder's own or than the last good revision's, or whose
    prompts the decoder computed itself instead of getting their KV cache. All findings come together, and
    each names its pair.
  - Pairs are asked at once, while the service goes on. Other requests do not make a good pair fail.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
    details: Sends no request in check mode.
  diff_mode:
    support: none
options:
  prefillers: &instances
    description: The instances of this role, with their APIs. Of several APIs each is asked.
    type: list
    elements: dict
    required: true
    suboptions:
      instance:
        description: Name of the instance.
        type: str
        required: true
      apis:
        description: Its APIs; with external data parallel one for each rank.
        type: list
        elements: dict
        required: true
        suboptions:
          host:
            description: Address of the API.
            type: str
            required: true
          port:
            description: Port of the API.
            type: int
            required: true
  decoders: *instances
  only:
    description: Names of instances; only pairs with one of them are asked. Empty for all pairs.
    type: list
    elements: str
    default: []
  protocol:
    description:
      - How the KV cache is handed over.
      - V(pull) for MooncakeConnectorV1, the prefiller is asked first; V(push) for
        MooncakeLayerwiseConnector, the decoder is asked first; V(none) for engines that do both, of which
        each is asked alone.
    type: str
    choices: [pull, push, none]
    required: true
  listen:
    description: Where decoders can reach the module while it runs. Required for V(push), unused otherwise.
    type: dict
    suboptions:
      host:
        description: Address of this server.
        type: str
        required: true
      port:
        description: A free port; V(0) for any.
        type: int
        default: 0
  release:
    description: Name of vllm-ascend's release, such as V(v0.13.0); it decides which metrics count
      transfers.
    type: str
    required: true
  model:
    description: Name of the model in the API.
    type: str
    required: true
  api_key_file:
    description: File on the server with the engines' API key. Without it no key is sent.
    type: path
  prompts:
    description: Prompts with continuations that are unambiguous. Without it three fixed ones, of which one
      is longer than a block of the KV cache.
    type: list
    elements: str
  max_tokens:
    description: Maximum length of each answer in tokens.
    type: int
    default: 16
  match_words:
    description:
      - Number of words at the beginning of each answer that must match the decoder's own and the last good
        revision's. V(0) compares nothing.
      - Kernels of prefiller and decoder round differently, so later words may differ in a healthy
        deployment.
    type: int
    default: 2
  known:
    description:
      - The texts of the last good revision, as RV(texts) returned them. Leave it out if release, image,
        model or profile have changed.
    type: dict
    default: {}
  attempts:
    description:
      - How often a pair that fails is asked. From v0.18.0 on the first request after a restart of a
        prefiller may fail, so use V(2) then.
    type: int
    default: 1
  timeout:
    description: Timeout of each request in seconds.
    type: float
    default: 60
  show:
    description: Whether the action shows the pairs as a table, and findings that are no errors.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Ask both pairs of a deployment with two prefillers
  ascend.pd_rollout.canary:
    prefillers:
      - {instance: prefill_a, apis: [{host: 192.0.0.1, port: 8004}]}
      - {instance: prefill_b, apis: [{host: 192.0.0.2, port: 8004}]}
    decoders:
      - {instance: decode, apis: [{host: 192.0.0.3, port: 8004}]}
    protocol: pull
    release: v0.13.0
    model: deepseek_v3

- name: Ask the pairs of a prefiller that was restarted, with the layerwise connector
  ascend.pd_rollout.canary:
    prefillers:
      - {instance: prefill_a, apis: [{host: 192.0.0.1, port: 8004}]}
    decoders:
      - {instance: decode_a, apis: [{host: 192.0.0.3, port: 8004}]}
      - {instance: decode_b, apis: [{host: 192.0.0.4, port: 8004}]}
    only: [prefill_a]
    protocol: push
    listen: {host: 192.0.0.1}
    release: v0.23.0
    model: deepseek_v3
    attempts: 2
"""

RETURN = r"""
pairs:
  description: What each pair answered. With several APIs to an instance the texts are those of the first
    ones.
  returned: unless the options are wrong
  type: list
  elements: dict
  contains:
    prefiller:
      description: Name of the instance; empty without prefillers.
      type: str
      sample: prefill_a
    decoder:
      description: Name of the instance.
      type: str
      sample: decode
    ok:
      description: Whether nothing is wrong with it. A hint is nothing wrong.
      type: bool
      sample: true
    texts:
      description: The answers, by prompt, up to the first that is missing.
      type: list
      elements: str
      sample: [" Paris, a city on the Seine."]
    transferred:
      description: Share of the prompts' tokens that the decoder got from the prefiller, at least; null
        if it is not known.
      type: float
      sample: 0.99
    seconds:
      description: Duration of all its requests.
      type: float
      sample: 0.4
texts:
  description: The texts of the good pairs by C(<prefiller> <decoder>), without prefillers by C(<decoder>);
    for O(known) of a later run.
  returned: unless the options are wrong
  type: dict
  sample: {"prefill_a decode": [" Paris, a city on the Seine."]}
suspects:
  description: Instances all of whose pairs fail. Not those whose pairs fail by the other side alone, such
    as the decoder of a prefiller that does not answer.
  returned: unless the options are wrong
  type: list
  elements: str
  sample: [decode]
findings:
  description: Everything that is wrong or not known, with code, severity, message, cure and source;
    C(instance) names the pair.
  returned: unless the options are wrong
  type: list
  elements: dict
"""

from ..module_utils._module import run
from ..module_utils._serving import canary


def main() -> None:
    run(canary.ARGUMENTS, canary.result)


if __name__ == "__main__":
    main()
