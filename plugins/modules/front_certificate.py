#!/usr/bin/python
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: front_certificate
short_description: Check the certificate of the front, and return what its servers get
version_added: 0.1.0
author:
  - The ascend.pd_rollout authors (!UNKNOWN)
description:
  - An action that runs on the controller, before anything on a server is changed. It reads the certificate,
    its key and its authorities, and finds what clients or HAProxy would refuse. For example a key that does
    not belong to the certificate, a date or a name for which it is not valid.
  - A file is looked for beside the inventory, then as Ansible looks for files. It may be encrypted with
    C(ansible-vault). Ansible takes every file in the folder of an inventory for an inventory, so keep it
    elsewhere if the inventory is a folder.
  - Without a front in the plan everything is empty.
  - To be run once for all hosts. The result contains the private key, so it is never written to a log.
extends_documentation_fragment:
  - ascend.pd_rollout.attributes.info
  - ascend.pd_rollout.attributes.controller
  - ascend.pd_rollout.options.plan
  - ascend.pd_rollout.options.fail
options:
  certificate:
    description: C(pd_front_certificate), the certificate followed by its intermediate ones. A file on the
      controller, or the text in PEM.
    type: str
    default: ""
  certificate_key:
    description: C(pd_front_certificate_key), its private key. A file on the controller, or the text in PEM.
    type: str
    default: ""
  ca:
    description: C(pd_front_ca), the authorities that clients trust. A file on the controller, or the text in
      PEM.
    type: str
    default: ""
  api_keys:
    description: C(pd_front_api_keys), the keys of clients by name.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Check the certificate of the front
  ascend.pd_rollout.front_certificate:
    plan: "{{ pd_plan }}"
    certificate: "{{ pd_front_certificate | default('', true) }}"
    certificate_key: "{{ pd_front_certificate_key | default('', true) }}"
    ca: "{{ pd_front_ca | default('', true) }}"
    api_keys: "{{ pd_front_api_keys | default({}, true) }}"
  run_once: true
  register: front_certificate
"""

RETURN = r"""
pem:
  description: Certificates and private key in one text, as HAProxy reads it. Empty without TLS.
  returned: success
  type: str
  sample: "-----BEGIN CERTIFICATE-----\n…"
digest:
  description: SHA-256 of RV(pem). Empty without TLS.
  returned: success
  type: str
  sample: f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2
ca:
  description: The authorities in PEM with which a client verifies the certificate. Those of O(ca), else a
    self-signed certificate with which O(certificate) ends. Empty if a client uses those of its operating
    system.
  returned: success
  type: str
  sample: "-----BEGIN CERTIFICATE-----\n…"
api_keys:
  description: The SHA-256 of the API keys, by their names.
  returned: success
  type: dict
  sample: {alice: 2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90}
names:
  description: For each host with a front the name or address to verify the certificate for. Empty where the
    certificate is valid for none that is known. Without TLS, the name or address that clients use.
  returned: always
  type: dict
  sample: {proxy1: models.example.org}
not_after:
  description: When the certificate ends. Empty without TLS.
  returned: always
  type: str
  sample: "2027-01-31T12:00:00Z"
findings:
  description: What is wrong with the certificate, for M(ascend.pd_rollout.check_report).
  returned: always
  type: list
  elements: dict
  sample:
    - code: front-certificate-ends
      severity: warning
      host: null
      instance: null
      variable: pd_front_certificate
      chips: []
      path: null
      files: []
      message: The front's certificate ends soon
      seen: ends on 2027-01-31 12:00 UTC
      expected: a certificate that is valid for 30 days or more
      cure: "renew the certificate, then playbooks/deploy.yml: no request fails meanwhile"
      source: this collection, docs/front.md
"""
