# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What all findings have in common: their catalogue, their JSON, their order, how they are put together and
printed. What one cause is stands in test_one_cause.py and test_report.py, with the findings of each."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import (
    ByFabric,
    Catalogue,
    Check,
    Finding,
    RolloutError,
    Severity,
    counted,
    grouped,
    ordered,
    render_markdown,
    render_text,
    text_of,
)

LINK = Check(
    "x-link-down",
    "The link of a chip is down",
    severity=ByFabric("warning", "error"),
    expected="link UP",
    cure="hccn_tool -i {chip} -link -g; ssh {host} # of {chips}",
    source="the driver",
    hccs_cure="nothing to do on {host}",
)
FILE = Check("x-file-missing", "A file is missing", expected="a file", cure="ls -l {path}", source="here")
CHECKS = Catalogue(LINK, FILE)


def test_a_code_stands_for_one_check() -> None:
    with pytest.raises(ValueError, match="x-link-down"):
        Catalogue(LINK, LINK)
    with pytest.raises(KeyError):
        CHECKS.finding("x-unknown")


@pytest.mark.parametrize(
    ("fabric", "severity"), [("hccs", "warning"), ("roce", "error"), ("both", "error"), ("", "warning")]
)
def test_severity_by_fabric(fabric: str, severity: Severity) -> None:
    assert CHECKS.finding("x-link-down", fabric=fabric).severity == severity
    assert CHECKS.finding("x-link-down", fabric=fabric, severity="hint").severity == "hint"


def test_words_of_the_cure_are_filled_in() -> None:
    found = CHECKS.finding("x-link-down", host="p1", chips=[7, 3, 3], fabric="roce")
    assert found.cure == "hccn_tool -i 3 -link -g; ssh p1 # of 3 7"
    assert CHECKS.finding("x-link-down", fabric="hccs").cure == "nothing to do on all"
    assert CHECKS.finding("x-link-down", cure="look at {host}", host="p1").cure == "look at p1"


def test_the_title_stands_for_a_message() -> None:
    assert CHECKS.finding("x-file-missing", path="/w").message == "A file is missing: /w"
    assert CHECKS.finding("x-file-missing").message == "A file is missing"
    assert CHECKS.finding("x-file-missing", "gone").message == "gone"


def test_values_are_one_line_and_not_endless() -> None:
    found = CHECKS.finding("x-file-missing", seen="a\nb\x1b[1m" + "c" * 5000, expected=0)
    assert found.seen is not None
    assert found.seen.startswith("a b [1mccc")
    assert len(found.seen) == FILE.limit
    assert found.expected == "0"


def test_json_and_back() -> None:
    found = CHECKS.finding("x-file-missing", host="p1, p2", chips=[1], path="/w", files=["a"], seen="none")
    value = json.loads(json.dumps(found.to_dict()))
    assert Finding.from_dict(value) == found
    assert Finding.from_dict({**value, "waived": {}}) == found
    assert found.hosts == ("p1", "p2")
    assert (found.instance, found.instances) == (None, ())


def test_worst_first_and_each_once() -> None:
    file, link = CHECKS.finding("x-file-missing"), CHECKS.finding("x-link-down", host="p2")
    other = replace(link, host="p1")
    assert ordered([link, other, file, link]) == [file, other, link]
    assert counted([link, other, file]) == "1 error, 2 warnings"
    assert counted([]) == "all good"


def test_an_error_carries_all_of_them() -> None:
    file, link = CHECKS.finding("x-file-missing"), CHECKS.finding("x-link-down", host="p2")
    error = RolloutError([link, file])
    assert error.findings == [file, link]
    assert error.finding == file
    assert str(RolloutError(CHECKS.finding("x-file-missing", path="/w", seen="none"))) == (
        "x-file-missing: A file is missing: /w (none); ls -l /w"
    )
    assert str(RolloutError(file, "no file")) == "no file"


@pytest.mark.parametrize(
    ("first", "second", "groups"),
    [
        ({"cure": "ps -fp 12"}, {"cure": "ps -fp 345"}, 1),
        ({"cure": "ssh p1"}, {"cure": "ssh p2"}, 1),
        ({"cure": "reboot"}, {"cure": "wait"}, 2),
        ({"message": "p1 → d1 fails", "seen": "0 of 3"}, {"message": "p2 → d1 fails", "seen": "0 of 3"}, 1),
        # From where to where is all that a finding between servers says.
        ({"message": "p1 → p2 fails"}, {"message": "p2 → p1 fails"}, 2),
        ({"chips": (1,)}, {"chips": (2,)}, 2),
        ({"seen": "a"}, {"seen": "b"}, 1),
    ],
)
def test_what_two_servers_have_in_common(
    first: dict[str, object], second: dict[str, object], groups: int
) -> None:
    same = Finding("x", "error", "it fails", cure="look", source="here")
    found = grouped([replace(same, host="p1", **first), replace(same, host="p2", **second)])  # type: ignore[arg-type]
    assert len(found) == groups
    assert [one.host for one in found] == (["p1, p2"] if groups == 1 else ["p1", "p2"])


def test_on_the_screen() -> None:
    found = [
        CHECKS.finding("x-file-missing", host=host, path="/w", seen=seen)
        for host, seen in (("p1", "no file"), ("p2", "a folder"))
    ]
    assert "\n".join(render_text(found)) == (
        "ERROR x-file-missing  p1, p2\n"
        "  A file is missing: /w\n"
        "  seen      p1: no file; p2: a folder\n"
        "  expected  a file\n"
        "  cure      ls -l /w\n"
        "  source    here\n"
    )
    assert next(render_text([replace(found[0], host=None)])) == "ERROR x-file-missing"
    assert next(render_text([replace(found[0], host=None)], "everywhere")).endswith("  everywhere")


def test_long_texts_are_wrapped_and_no_word_is_broken() -> None:
    long = "command --" + "x" * 200
    lines = list(render_text([CHECKS.finding("x-file-missing", "word " * 60, cure=long)]))
    assert f"            --{'x' * 200}" in lines
    assert all(len(line) <= 108 for line in lines if "xxx" not in line)


def test_the_message_that_a_task_ends_with() -> None:
    text = text_of([CHECKS.finding("x-file-missing", host="p1", path="/w")], "It failed.", ["one", "two"])
    assert text.splitlines()[:2] == ["It failed.", "ERROR x-file-missing  p1"]
    assert text.splitlines()[-2:] == ["  log       one", "            two"]


def test_as_markdown() -> None:
    found = CHECKS.finding("x-file-missing", "<b> *is* a|b", host="p1", seen="a_b", cure="ls `x`")
    assert list(render_markdown([found])) == [
        "- **error `x-file-missing`** (p1): &lt;b> \\*is\\* a\\|b",
        "  - seen: a_b",
        "  - expected: a file",
        "  - cure: `` ls `x` ``",
        "  - source: here",
    ]
