# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Under load, every engine is changed without a request that fails, is cut, is empty or wrong."""

from __future__ import annotations

import re

import pytest
import yaml


def engines(site):
    """The engines that run: (server, container) → its ID."""
    return {
        (name, line.split()[0]): line.split()[1]
        for name in site.names
        for line in site.server(name)
        .check_output(
            "docker ps --no-trunc --filter name=pd-prefill --filter name=pd-decode"
            " --format '{{.Names}} {{.ID}}'"
        )
        .splitlines()
    }


def steps(output):
    """The table of the steps: what each one does, and how many of each role serve meanwhile."""
    found = re.findall(r"^\d+ +(.+?)  +(\d of \d|-) +(\d of \d|-) ", output, re.MULTILINE)
    return [tuple(row) for row in found]


def arguments(site, **more):
    known = yaml.safe_load((site.inventory / "group_vars" / "all.yml").read_text())["pd_engine_args"]
    return {"pd_engine_args": {**known, **more}}


@pytest.mark.parametrize("router", ["vllm_router", "upstream"])
def test_every_engine_is_made_anew(changing, under_load, router):
    changing.set(pd_router=router)
    changing.deploy("--tags", "proxy")
    before = engines(changing)
    assert len(before) == 4
    changing.set(**arguments(changing, **{"max-num-seqs": 32 if router == "upstream" else 48}))
    with under_load():
        output = changing.deploy("--skip-tags", "check")
    assert steps(output) == [
        ("make anew prefill_a, decode_a", "1 of 2", "1 of 2"),
        ("make anew prefill_b, decode_b", "1 of 2", "1 of 2"),
        ("list all", "2 of 2", "2 of 2"),
    ]
    after = engines(changing)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
