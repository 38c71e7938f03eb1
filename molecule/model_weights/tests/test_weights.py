"""What the role leaves on every server."""

from __future__ import annotations

import json

MODEL = "/root/.cache/DeepSeek-V3.1_w8a8mix_mtp"


def test_one_value_of_the_configuration_has_changed(host):
    config = host.file(f"{MODEL}/config.json").content_string
    original = host.file(f"{MODEL}/config.json.orig").content_string
    assert json.loads(config)["torch_dtype"] == "bfloat16"
    assert original.count('"torch_dtype": "float16"') == 1
    assert config == original.replace('"torch_dtype": "float16"', '"torch_dtype": "bfloat16"')
    assert host.file(f"{MODEL}/config.json").mode == host.file(f"{MODEL}/config.json.orig").mode


def test_nothing_else_is_left(host):
    assert host.check_output(f"find {MODEL} -name '.*' -type f") == ""
    assert host.check_output(f"find {MODEL} -name 'config.json*' -not -name '*tokenizer*' | wc -l") == "2"
