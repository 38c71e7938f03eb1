#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: model_weights
short_description: Verify a model's weights and set the dtype in its C(config.json)
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - Inspects a model directory in safetensors format on the server and reports everything that would stop an
    engine minutes after its start, all at once.
  - Every shard listed in any C(*.safetensors.index.json) must exist (quantized models have an index of their
    own, such as C(quant_model_weight_w8a8_dynamic.safetensors.index.json)), and its size must match its
    header. Only the headers are read, a few kilobytes each, never the tensors.
  - There must be no files of an unfinished download. C(config.json) and the tokenizer must be readable, and a
    quantized model must have its quantization description.
  - The dtype in C(config.json) (V(torch_dtype), or V(dtype) in newer models) is set to O(dtype) if it is one
    of O(replaceable). Only that value's text changes. The original is kept next to it as
    C(config.json.orig), and the new file replaces it atomically. Nothing is changed while there is any other
    error.
  - Several servers may do this at the same time in a shared directory.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes
  - ascend.pd_rollout.attributes.fast_path
  - ascend.pd_rollout.attributes.server
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows the changed line of C(config.json).
options:
  path:
    description: The model's directory on the server.
    type: path
    required: true
  dtype:
    description:
      - The dtype that C(config.json) must have. If empty, the dtype is not checked.
    type: str
    default: bfloat16
  replaceable:
    description: Values that may be replaced by O(dtype). Any other value is a finding.
    type: list
    elements: str
    default: [float16]
  patch:
    description: Whether C(config.json) may be changed. If not, a dtype that should be replaced is a finding.
    type: bool
    default: true
  quantization:
    description:
      - Whether C(quant_model_description.json) must exist. V(ascend) requires it, V(none) does not check it,
        V(auto) requires it if the directory has files of a quantized model (C(quant_model_*)).
    type: str
    choices: [auto, ascend, none]
    default: auto
  hashes:
    description:
      - V(full) reads every byte and returns the SHA-256 of every file. This takes minutes for hundreds of
        gigabytes and detects damage that sizes and headers do not show. Files are compared with lists in the
        directory in the format of C(sha256sum) (C(SHA256SUMS), C(*.sha256)).
    type: str
    choices: [none, full]
    default: none
  leftovers:
    description:
      - Files that exist only while weights are transferred, such as a token. RV(leftover) reports whether a
        killed run has left one of them.
    type: list
    elements: path
    default: []
  fail_on_findings:
    description:
      - Whether a finding of severity V(error) fails the task. If not, the findings are only returned.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Verify the weights and set their dtype to bfloat16
  ascend.pd_rollout.model_weights:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp

- name: Verify the weights without changing or failing
  ascend.pd_rollout.model_weights:
    path: /root/.cache/DeepSeek-V3.1_w8a8mix_mtp
    patch: false
    fail_on_findings: false
  register: weights
"""

RETURN = r"""
findings:
  description: Everything that is wrong; an empty list if the weights can be served.
  returned: always
  type: list
  elements: dict
  contains:
    code:
      description: The kind of finding, stable between versions.
      type: str
    severity:
      description: V(error) or V(warning).
      type: str
    path:
      description: The file or directory.
      type: str
    message:
      description: The finding in one sentence.
      type: str
    seen:
      description: What was seen.
      type: str
    expected:
      description: What was expected.
      type: str
    cure:
      description: What to do.
      type: str
    source:
      description: Source of this information.
      type: str
    files:
      description: All affected files, if there are several. Omitted if the task fails.
      type: list
      elements: str
  sample:
    - code: weights-shard-missing
      severity: error
      path: /weights/model.safetensors.index.json
      message: "/weights/model.safetensors.index.json: 1 of 163 shards missing ..."
      seen: "1 of 163 shards missing: model-00007-of-00163.safetensors"
      expected: all 163 shards listed in the index
      cure: copy or download these files again
      source: "vllm-ascend v0.13.0: docs/source/tutorials/..."
      files: [model-00007-of-00163.safetensors]
indexes:
  description: The indexes that were read.
  returned: always
  type: list
  elements: str
  sample: [model.safetensors.index.json]
shards:
  description: Number of safetensors files.
  returned: always
  type: int
  sample: 163
bytes:
  description: Bytes in the complete safetensors files.
  returned: always
  type: int
dtype:
  description: The dtype in C(config.json) after the task, or as it would be in check mode. Null if none.
  returned: always
  type: str
  sample: bfloat16
leftover:
  description:
    - Whether a transfer of weights, its secret, its marker files next to the weights or one of O(leftovers)
      exists. All of them are needed only while weights are transferred.
  returned: always
  type: bool
leftover_files:
  description: The files of O(leftovers) that exist.
  returned: always
  type: list
  elements: str
fingerprint:
  description:
    - Equal on all servers that have the same model. Computed from names, sizes, shard headers and the
      contents of the small files, with the dtype as it is after this task. The tensors are not read.
    - Empty if the directory cannot be read.
  returned: always
  type: str
hashes:
  description: The SHA-256 of every file of the model, with C(config.json) as it is after the task.
  returned: if O(hashes=full)
  type: dict
  sample: {config.json: 5d41402abc4b2a76b9719d911017c592ae1f1d2b3c4d5e6f708192a3b4c5d6e7}
original:
  description: Path of the original C(config.json).
  returned: if C(config.json) was changed
  type: str
"""

from ..module_utils._module import run
from ..module_utils._transfer import weights_verification


def main() -> None:
    run(weights_verification.ARGUMENTS, weights_verification.verify)


if __name__ == "__main__":
    main()
