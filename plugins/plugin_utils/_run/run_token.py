# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""A secret of one run, the same for all servers, by which they authenticate each other.

It is kept in the run's temporary folder on the controller, which only its user can open and which Ansible
removes at the end. It appears in no result, variable, log or command line.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from ansible import constants

NAME = "pd_rollout_token"


def run_token(folder: str | None = None) -> str:
    """Return the secret of this run; the first worker that needs it creates it."""
    place = Path(folder or constants.DEFAULT_LOCAL_TMP) / NAME
    with suppress(FileNotFoundError):
        return place.read_text(encoding="ascii")
    draft = place.with_name(f"{NAME}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        # Atomic, and never a second one, because workers run concurrently.
        with suppress(FileExistsError):
            os.link(draft, place)
    finally:
        draft.unlink()
    return place.read_text(encoding="ascii")
