# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A secret of one run, the same for all servers, by which they know each other.

It stands in the run's own temporary folder on the controller, which only its user may open and which Ansible
removes at the end. It is in no result, no variable, no log and on no command line.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ansible import constants

NAME = "pd_rollout_token"


def run_token(folder: str | None = None) -> str:
    """The secret of this run; the first worker that asks makes it."""
    place = Path(folder or constants.DEFAULT_LOCAL_TMP) / NAME
    with suppress(FileNotFoundError):
        return place.read_text(encoding="ascii")
    draft = place.with_name(f"{NAME}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        # Whole or not at all, and never a second one: workers ask at the same time.
        with suppress(FileExistsError):
            os.link(draft, place)
    finally:
        draft.unlink()
    return place.read_text(encoding="ascii")
