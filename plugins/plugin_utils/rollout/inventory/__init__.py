# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Reading an inventory: raw variables in, typed settings and findings out.

Nothing here raises on bad input: a value that cannot be read is reported and replaced by its default, so
that the rules can check the rest and all findings are reported at once.
"""

from __future__ import annotations

from .declaration import read
from .deployments import shared_servers, split
from .raw import GroupShape, RawGroup, RawInventory, RawMember, Unreadable, raw_inventory

__all__ = [
    "GroupShape",
    "RawGroup",
    "RawInventory",
    "RawMember",
    "Unreadable",
    "raw_inventory",
    "read",
    "shared_servers",
    "split",
]
