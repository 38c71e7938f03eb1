#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
short_description: Ask a prefill/decode deployment two questions and judge the answers
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Sends a completion and a streamed chat completion through the proxy and looks at their text, not at the
    status code.
    The text must not be empty or degenerate, and must begin as the decoder's own answer does when it
    computes
    the prompt itself, without a transfer of the KV cache.
  - Prefiller and decoder must both have served the requests, as their metrics tell.
  - Where one engine does both, without a proxy, it is asked itself, and there is nothing to compare with.
  - A request that has no answer is sent to each engine itself, and their answers are shown. The proxy's
    status is not the cause; upstream's says 500 for a request that the prefiller refuses with 400.
  - Everything that is wrong is reported together, each with what to look at.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
    details: Sends no request in check mode.
  diff_mode:
    support: none
options:
  proxy_url:
    description: Base URL of the proxy, or of the engine that does both.
    type: str
    required: true
  model:
    description: Name of the model in the API.
    type: str
    required: true
  prefillers: &backends
    description:
      - The engines' heads that the proxy asks, as the plan's C(proxy) lists them. No prefillers means that
        one engine does both, and that it is the one that is asked.
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
  decoders: *backends
  api_key_file:
    description: File on the server that holds the engines' API key. Without it no key is sent.
    type: path
  prompt:
    description: What the completion continues. Take a text whose continuation leaves no doubt.
    type: str
    default: "The capital of France is"
  chat_prompt:
    description: What the chat completion answers.
    type: str
    default: "Name the capital of France in one sentence."
  max_tokens:
    description: Length of each answer.
    type: int
    default: 24
  match_words:
    description:
      - Number of words at the beginning of the completion that must be those of the decoder's own answer.
        V(0) asks for none, nor does a deployment without prefillers.
      - Kernels of prefiller and decoder round differently, so later words may differ in a healthy
        deployment.
    type: int
    default: 2
  expect:
    description: Regular expression that the completion's text must contain.
    type: str
  timeout:
    description: Seconds for each request.
    type: float
    default: 120
"""

EXAMPLES = r"""
- name: Ask the deployment
  ascend.pd_rollout.smoke_test:
    proxy_url: http://192.0.0.1:8005
    model: deepseek_v3
    prefillers: [{host: 192.0.0.1, port: 8004}]
    decoders: [{host: 192.0.0.3, port: 8004}]
    expect: Paris
"""

RETURN = r"""
completion:
  description: Text of the completion through the proxy.
  returned: when it answered
  type: str
  sample: " Paris, a city on the Seine."
chat:
  description: Text of the streamed chat completion through the proxy.
  returned: when it answered
  type: str
reference:
  description: Text of the completion by the decoder alone.
  returned: when it answered
  type: str
seconds:
  description: How long each request took, until its first byte for the streamed one as well.
  returned: success
  type: dict
  sample: {completion: 0.2, chat: 0.2, chat_first_byte: 0.1, reference: 0.1}
problems:
  description: Everything that is wrong.
  returned: failure
  type: list
  elements: str
"""

from ..module_utils._module import run
from ..module_utils._serving import smoke_test


def main() -> None:
    run(smoke_test.ARGUMENTS, smoke_test.result)


if __name__ == "__main__":
    main()
