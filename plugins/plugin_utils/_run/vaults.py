# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Values that an inventory has encrypted on the spot, with ``!vault``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def is_encrypted(value: Any) -> bool:
    """Return whether this is such a value; before ansible-core 2.19 it is not a str."""
    return bool(getattr(type(value), "__ENCRYPTED__", False))


def decrypted(value: Any) -> Any:
    """Return a value with what is encrypted in it as text. Raises AnsibleError without the password."""
    if is_encrypted(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: decrypted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [decrypted(item) for item in value]
    return value
