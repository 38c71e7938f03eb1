# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The steps from what runs to what is planned: which instance is changed when, and what that costs.

    looks at the servers ─► seen: one entry an instance ─► steps: their order ─► execution: what a host does
                                                                  └─► table: for people

Pure: it knows no Ansible, and no server.
"""

from __future__ import annotations
