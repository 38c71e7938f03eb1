# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
from ansible import constants
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._run import screen


@pytest.mark.parametrize(
    ("callback", "stream"),
    [
        ("default", "out"),
        ("ansible.builtin.default", "out"),
        ("community.general.yaml", "out"),
        ("minimal", "out"),
        ("json", "err"),
        ("ansible.posix.json", "err"),
        ("ansible.posix.jsonl", "err"),
        ("community.general.null", "err"),
        ("awx_display", "err"),
    ],
)
def test_lines_stay_out_of_an_output_that_programs_read(callback, stream, monkeypatch, capsys):
    monkeypatch.setattr(constants, "DEFAULT_STDOUT_CALLBACK", callback, raising=False)
    screen.show("a table")
    seen = capsys.readouterr()
    assert getattr(seen, stream) == "a table\n"
    assert seen.out + seen.err == "a table\n"
