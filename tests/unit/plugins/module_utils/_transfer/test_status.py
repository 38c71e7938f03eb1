# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The status of a transfer as its process writes it and others read it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.catalogue import TRANSFER_CHECKS
from ansible_collections.ascend.pd_rollout.plugins.module_utils._transfer.status import (
    ImageStatus,
    TransferStatus,
    WeightsStatus,
)

FOUND = TRANSFER_CHECKS.finding("image-disk-full", seen="1 MB free")


@pytest.mark.parametrize(
    "status",
    [
        TransferStatus(),
        ImageStatus(
            "fetching", "registry.example", 5, 10, 1.5, kept=3, fetched=2, served=1, port=80, wanted=0
        ),
        ImageStatus("complete", "a", 10, 10, names=["x:1"], loaded_id="sha256:1"),
        WeightsStatus("failed", "a", 5, None, finding=FOUND, received=7, log=["the last line"]),
    ],
    ids=["started", "image", "loaded", "failed"],
)
def test_a_status_is_read_as_it_was_written(status):
    assert type(status).from_dict(json.loads(json.dumps(status.to_dict()))) == status


def test_the_keys_of_a_status():
    """Whoever reads the results of the modules relies on them: what is not known yet is null or absent."""
    base = {"phase": "waiting", "source": "", "done": 0, "total": None, "rate": 0.0, "finding": None}
    assert TransferStatus().to_dict() == base
    assert ImageStatus().to_dict() == {**base, "kept": 0, "fetched": 0}
    assert WeightsStatus(received=0).to_dict() == {**base, "received": 0}


def test_keys_of_another_version_are_ignored():
    assert TransferStatus.from_dict({"phase": "gone", "mood": "good"}) == TransferStatus("gone")


@pytest.mark.parametrize(
    ("status", "number", "wants"),
    [
        (ImageStatus("fetching", wanted=0), -1, True),
        (ImageStatus("fetching", wanted=3), 3, False),
        (ImageStatus("fetching"), -1, False),
        (ImageStatus("loading", wanted=3), -1, False),
    ],
    ids=["the first", "the same", "none", "it has all"],
)
def test_when_a_chunk_is_wanted_from_the_controller(status, number, wants):
    assert status.wants_after(number) is wants
