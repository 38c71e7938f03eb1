# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The guards of all servers of a run: what they have in common, and whether all are as planned."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


def shared_secret(found: Iterable[str]) -> str:
    """Return the secret of the deployment: that of the most servers, of several the first; else a new one.

    found: what each server has, in the order of the run; empty where there is none.
    """
    known = Counter(secret for secret in found if secret)
    return known.most_common(1)[0][0] if known else secrets.token_hex(32)


def unsettled(plan: Mapping[str, Any], looks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the servers whose guard is not as planned; all that have one if their secrets differ.

    looks: results of deployment_info by host.
    """
    planned = [host for host in looks if (plan["hosts"].get(host) or {}).get("guard")]
    found = {host: look.get("guard") or {} for host, look in looks.items()}
    ids = {found[host]["secret_id"] for host in planned if found[host].get("secret_id")}
    return [
        host for host in looks if not found[host].get("settled", True) or (len(ids) > 1 and host in planned)
    ]
