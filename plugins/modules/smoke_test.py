#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
short_description: Send two requests to a prefill/decode deployment and verify the answers
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Sends a completion and a streamed chat completion through the proxy and verifies their text, not the
    status code. The text must not be empty or degenerate, and must begin like the decoder's own answer when
    the decoder computes the prompt itself, without a transfer of the KV cache.
  - Prefiller and decoder must both have served the requests, according to their metrics.
  - If one engine does both, without a proxy, the requests go to that engine, and there is no answer to
    compare with.
  - A request without an answer is sent directly to each engine, and their answers are shown, because the
    proxy's status does not show the cause; upstream's proxy answers 500 for a request that the prefiller
    refuses with 400.
  - All problems are reported together, each with what to check.
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
  proxy_url:
    description: Base URL of the front, of a router, or of the engine that does both.
    type: str
    required: true
  model:
    description: Name of the model in the API.
    type: str
    required: true
  prefillers: &backends
    description:
      - The engines' head nodes behind the proxy, as listed in the plan's C(proxy). No prefillers means that
        one engine does both and gets the requests.
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
    description: File on the server with the engines' API key. Without it no key is sent.
    type: path
  front:
    description:
      - Whether O(proxy_url) is the front. Then what else clients see is tested as well. A wrong key gets the
        status 401, a closed path gets 404, both with an error in the form of the OpenAI API, and
        C(/v1/models) lists the model.
      - Without it O(proxy_url) is one router, or an engine.
    type: bool
    default: false
  client_key:
    description: API key of a client for the front. Empty if it asks for none.
    type: str
    default: ""
  ca:
    description: Authorities in PEM with which the front's certificate is verified. Empty for those of the
      server's operating system.
    type: str
    default: ""
  name:
    description: Name or address for which the front's certificate is verified, while the connection goes to
      O(proxy_url). Empty to verify its authority only.
    type: str
    default: ""
  prompt:
    description: Prompt of the completion. Choose a text whose continuation is unambiguous.
    type: str
    default: "The capital of France is"
  chat_prompt:
    description: Prompt of the chat completion.
    type: str
    default: "Name the capital of France in one sentence."
  max_tokens:
    description: Maximum length of each answer in tokens.
    type: int
    default: 24
  match_words:
    description:
      - Number of words at the beginning of the completion that must match the decoder's own answer. V(0)
        skips the comparison, as does a deployment without prefillers.
      - Kernels of prefiller and decoder round differently, so later words may differ in a healthy
        deployment.
    type: int
    default: 2
  expect:
    description: Regular expression that the completion's text must match anywhere.
    type: str
  timeout:
    description: Timeout of each request in seconds.
    type: float
    default: 120
"""

EXAMPLES = r"""
- name: Query the deployment
  ascend.pd_rollout.smoke_test:
    proxy_url: http://192.0.0.1:8005
    model: deepseek_v3
    prefillers: [{host: 192.0.0.1, port: 8004}]
    decoders: [{host: 192.0.0.3, port: 8004}]
    expect: Paris

- name: Query the deployment as a client
  ascend.pd_rollout.smoke_test:
    proxy_url: https://192.0.0.1:8443
    front: true
    client_key: "{{ pd_front_api_keys.values() | first }}"
    name: models.example.org
    model: deepseek_v3
    prefillers: [{host: 192.0.0.1, port: 8004}]
    decoders: [{host: 192.0.0.3, port: 8004}]
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
  description: Duration of each request; for the streamed one also the time until its first byte.
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
