# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""OpenAI's own client works with the front, and understands its errors."""

from __future__ import annotations

import openai
import pytest


def ask(client, prompt="a b c"):
    return client.completions.create(model="deepseek_v3", prompt=prompt, max_tokens=4)


def test_it_completes(client):
    answer = ask(client())
    assert answer.choices[0].text
    assert answer.usage.completion_tokens == 4


def test_it_streams_a_chat(client):
    stream = client().chat.completions.create(
        model="deepseek_v3", messages=[{"role": "user", "content": "a b c"}], max_tokens=8, stream=True
    )
    events = list(stream)
    assert "".join(event.choices[0].delta.content or "" for event in events)
    assert events[-1].choices[0].finish_reason == "length"


def test_it_lists_the_models(client):
    assert [model.id for model in client().models.list()] == ["deepseek_v3"]


def test_it_understands_the_errors(client):
    with pytest.raises(openai.AuthenticationError, match="The API key is missing or wrong") as wrong:
        ask(client("sk-wrong"))
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError, match="This path is not served"):
        client().embeddings.create(model="deepseek_v3", input="a")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client().completions.create(model="another", prompt="a")
    with pytest.raises(openai.BadRequestError, match=r"max_tokens|context length"):
        client().completions.create(model="deepseek_v3", prompt="a", max_tokens=100_000)
    with pytest.raises(openai.APIStatusError, match="larger than") as large:
        ask(client(), "a" * 3_000_000)
    assert large.value.status_code == 413
