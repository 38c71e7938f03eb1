# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.completions import (
    BadAnswerError,
    chat_stream_text,
    completion_text,
    degenerate,
    metric_sum,
    same_beginning,
)


@pytest.mark.parametrize(
    "text",
    [
        " Paris, a city on the Seine, known for its museums.",
        " Paris.",
        "巴黎是法国的首都,位于塞纳河畔。",
        "1, 2, 3, 4, 5, 6, 7, 8",
        "yes yes yes",
    ],
)
def test_an_answer_is_not_degenerate(text):
    assert degenerate(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param(" \n ", "empty", id="blank"),
        pytest.param("!!!!!!!!!!!!!!!!!!!!!!!!", "repeats '!' 24 times", id="one-character"),
        pytest.param(" the the the the the the the the", "repeats", id="one-word"),
        pytest.param("Berlin is is is is is is is is is is", "repeats", id="after-a-wrong-first-token"),
        pytest.param("so a so b so so so c so so so d so so", "words are 'so'", id="mostly-one-word"),
        pytest.param("的的的的的的的的", "repeats", id="without-spaces"),
        pytest.param("ab\ufffd\ufffd\ufffdcd", "unreadable", id="unreadable"),
    ],
)
def test_repetition_and_rubbish_are_degenerate(text, why):
    assert why in degenerate(text)


@pytest.mark.parametrize(
    ("text", "reference", "same"),
    [
        (" Paris, a city", " Paris, a town", True),
        (" Paris", " Paris, a town", False),
        (" Paris.", " Paris.", True),
        (" Berlin is", " Paris is", False),
        ("", " Paris", False),
    ],
)
def test_beginnings_are_compared_word_by_word(text, reference, same):
    assert same_beginning(text, reference, 2) is same


def test_completion_text():
    assert completion_text(json.dumps({"choices": [{"text": " Paris"}]})) == " Paris"


@pytest.mark.parametrize("body", ["", "  ", "<html>", "{}", '{"choices": []}'])
def test_a_body_without_a_completion_is_refused(body):
    with pytest.raises(BadAnswerError):
        completion_text(body)


def event(**delta):
    return "data: " + json.dumps({"choices": [{"delta": delta}]}) + "\n\n"


def test_chat_stream_is_put_together():
    stream = (
        event(role="assistant", content="") + event(content="Par") + event(content="is") + "data: [DONE]\n\n"
    )
    assert chat_stream_text(stream) == "Paris"


def test_chat_stream_counts_reasoning():
    assert (
        chat_stream_text(event(reasoning_content="Hm. ") + event(content="Paris") + "data: [DONE]\n")
        == "Hm. Paris"
    )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param(event(content="Par"), "broke off", id="cut"),
        pytest.param("data: {nope\n", "not JSON", id="no-json"),
        pytest.param("<html></html>", "not an event stream", id="html"),
        pytest.param('data: {"error": {"message": "boom"}}\n', "boom", id="error"),
    ],
)
def test_a_broken_stream_is_refused(body, why):
    with pytest.raises(BadAnswerError, match=why):
        chat_stream_text(body)


EXPOSITION = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="deepseek_v3"} 12.0
vllm:prompt_tokens_total{engine="1",model_name="deepseek_v3"} 3.0
vllm:prompt_tokens_created{engine="0"} 1.7e9
"""


def test_a_metric_is_summed_over_its_labels():
    assert metric_sum(EXPOSITION, "vllm:prompt_tokens_total") == 15.0
    assert metric_sum(EXPOSITION, "vllm:generation_tokens_total") is None
