# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The error that ends the work on a front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._findings import RolloutError
from .catalogue import FRONT_CHECKS


class FrontError(RolloutError):
    """The front could not be brought into the state of the plan."""


def failed(code: str, front: Mapping[str, Any], seen: str, **words: Any) -> FrontError:
    """Return the error with one finding about a front."""
    check = FRONT_CHECKS.finding(code, seen=seen, unit=front["unit"], **words)
    return FrontError(check)
