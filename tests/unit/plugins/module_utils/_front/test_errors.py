# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The texts of the front's findings, as a server that does not know its name in the inventory fills them."""

from __future__ import annotations

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front.catalogue import FRONT_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._front.errors import failed


@pytest.mark.parametrize("code", FRONT_CHECKS)
def test_every_place_is_filled(code: str) -> None:
    found = failed(code, {"unit": "pd-front"}, "seen", path="/run/pd-front").finding
    text = f"{found.message} {found.expected} {found.cure}"
    assert not any(left in text for left in ("{", "}", "PATH", "on all"))
    assert "pd-front" in text or "{" not in FRONT_CHECKS[code].cure
