"""The screen output of the repository's commands (scripts/ui.py), under the names used here."""

from __future__ import annotations

from scripts.ui import Step, UserError, colour, run_shown, say, step

__all__ = ["SimError", "Step", "colour", "run_shown", "say", "step"]

SimError = UserError
"""Something the user can act upon; its text is the whole message."""
