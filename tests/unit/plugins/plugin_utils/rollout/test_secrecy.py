# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What looks like a secret is told, not shown; what only sounds like one passes without a word."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ascend.pd_rollout.plugins.action import plan as action
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import render_text
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import plan as planner
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout import render, secrecy
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.releases import (
    load_release,
    release_names,
)
from planner_inventories import findings, small

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "S3_SECRET_ACCESS_KEY": "abcdefgh",
    "MINIO_ROOT_PASSWORD": "123456",
    "REDIS_PWD": "hunter22",
    "EXA_API_KEY": "abcdefgh",
    "SWANLAB_APIKEY": "abcdefgh",
    "WANDB_AUTH_TOKEN": "abcdefgh",
    "MODELSCOPE_SDK_TOKEN": "abcdefgh",
    "MY_CREDENTIALS": "user:word",
    "HTTPS_PROXY": "http://user:pass%23word@proxy.example:3128",
    "MC_METADATA": "redis://:pa55word@192.0.2.1:6379",
    "EXTRA": "Authorization: Bearer 0123456789abcdef",
    "SETTINGS": json.dumps({"store": {"secret_key": "abcdefgh"}}),
    "X1": "sk-proj-0123456789abcdefghij",
    "X2": f"token={JWT}",
    "X3": "-----BEGIN RSA PRIVATE KEY-----",
    "X4": "hf_" + 34 * "a",
    "X5": "ms-01234567-89ab-cdef-0123-456789abcdef",
    "X6": "ghp_" + 36 * "b",
    "OBS_AK": "abcdefgh",
    "OSS_SK": "abcdefgh",
    "DB_PASS": "hunter22",
    "TOKEN": "abcdefgh",
    "DB_PASSWORD": "${PASSWORD_OF_DB:-hunter22}",
}
HARMLESS = {
    "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE": "4096",
    "VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD": "256",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_TOKEN_PATH": "/run/secrets/hf_token",
    "AWS_SHARED_CREDENTIALS_FILE": "/run/secrets/aws",
    "GOOGLE_APPLICATION_CREDENTIALS": "/run/secrets/google.json",
    "MY_PASSWORD": "",
    "MY_API_KEY": "EMPTY",
    "USE_API_KEY": "1",
    "KEY_SIZE": "128",
    "MONKEY": "business-as-usual",
    "PWD": "/workspace",
    "HTTPS_PROXY": "http://proxy.example:3128",
    "NO_PROXY": "localhost,127.0.0.1,user@host",
    "MC_TCP_BIND_ADDRESS": "192.0.2.1:9999",
    "MODEL": "/weights/sk-learn-like-names-0123456789abcdef",
    "NAMES": "ask-0123456789abcdefghijkl",
    "BIG": '{"eos_token": "</s>", "key": "value", "tokenizer": "/weights/x", "n": 12}',
    "PASSWORD_FILE": "/run/x",
    "COMMIT": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "ID": "01234567-89ab-cdef-0123-456789abcdef",
    "LINK": "git://example.org:8080/path@v1",
    "SECRET_FROM": "$SOMETHING",
    "SECRET_FROM_OTHERS": "${SOMETHING:-$local_ip}",
    "SK": "1",
    "PASS": "all",
    "MAX_TOKEN": "1000000",
}


def told(raw: Any) -> list[tuple[str, str, str]]:
    return [(f.severity, str(f.variable), str(f.seen)) for f in findings(raw) if f.code == "PD450"]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_the_environment_is_told_and_not_shown(name: str) -> None:
    raw = small(decoder={"pd_engine_env": {name: SECRETS[name]}})
    ((severity, variable, seen),) = told(raw)
    assert (severity, variable) == ("warning", "pd_engine_env")
    assert seen.startswith(name)
    for secret in secrecy.values_of(planner.make(raw).cluster):
        assert secret in SECRETS[name]
        assert secret not in "\n".join(render_text(findings(raw)))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_sounds_like_one_passes(name: str) -> None:
    assert told(small(decoder={"pd_engine_env": {name: HARMLESS[name]}})) == []


@pytest.mark.parametrize("release", release_names())
def test_flags_and_variables_of_the_releases(release: str) -> None:
    """Only those of the list that is a list of secrets by its meaning."""
    known = {*load_release(release).options, *load_release(release).environment}
    assert {name for name in known if secrecy.of_name(name)} <= {
        *("api-key", "hf-token", "allow-credentials", "VLLM_API_KEY", "OPENAI_API_KEY", "EXA_API_KEY"),
        *("HF_TOKEN", "MODELSCOPE_API_TOKEN", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"),
    }


def test_flags_and_the_transfer_are_on_the_command_line() -> None:
    raw = small(
        decoder={
            "pd_engine_args": {"model-loader-extra-config": {"s3": {"secret_access_key": "abcdefgh"}}},
            "pd_kv_extra_config": {"store": [{"password": 12345678}]},
        }
    )
    assert told(raw) == [
        ("warning", "pd_engine_args", "model-loader-extra-config.s3.secret_access_key (value not shown)"),
        ("warning", "pd_kv_extra_config", "store.password (value not shown)"),
    ]
    message = next(f.message for f in findings(raw) if f.code == "PD450")
    assert "every user of the server" in message


def test_no_other_finding_shows_it() -> None:
    """Of a flag that is computed the value is shown, as far as it fits."""
    for filler in (0, 8, 12, 30):
        value = {"kv_connector": "x" * filler, "password": "hunter22-and-more"}
        found = findings(small(decoder={"pd_engine_args": {"kv-transfer-config": value}}))
        (computed,) = [f for f in found if f.code == "PD402"]
        assert "hunter2" not in str(computed)
        assert "kv_connector" in str(computed.seen)


def test_a_bad_transfer_config_and_a_lost_expression_do_not_show_it() -> None:
    found = findings(small({"pd_kv_extra_config": ["password=hunter22"]}))
    assert [f.seen for f in found if f.variable == "pd_kv_extra_config"] == ["(not shown)"]
    assert secrecy.masked("http://u:hunter22@{{ lost }} is undefined") == (
        "http://(not shown)@{{ lost }} is undefined"
    )


def test_what_is_changed_in_a_file_is_shown_without_it() -> None:
    env = {"MY_PASSWORD": "it's hunter22", "HTTPS_PROXY": SECRETS["HTTPS_PROXY"], "OTHER": "visible"}
    raw = small(decoder={"pd_engine_env": env, "pd_kv_extra_config": {"store": {"api_key": "abcdefgh"}}})
    plan = planner.make(raw)
    for values in (secrecy.values_of(plan.cluster), frozenset()):
        for text in render.files(plan.to_dict()).values():
            shown = secrecy.masked(text, values)
            assert not any(secret in shown for secret in ("hunter22", "pass%23word", "abcdefgh"))
        script = secrecy.masked(render.files(plan.to_dict())["d1/decoder.sh"], values)
        assert "export MY_PASSWORD=(not shown)" in script
        assert "export OTHER=visible" in script
        assert "proxy.example:3128" in script


def test_slices_say_whether_they_hold_one() -> None:
    plan = planner.make(small(decoder={"pd_engine_env": {"MY_PASSWORD": "hunter22"}})).to_dict()
    assert plan["hosts"]["d1"]["engines"][0]["secrets"] is True
    assert plan["hosts"]["p1"]["engines"][0]["secrets"] is False


def modes(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode)
        for path in [directory, *directory.rglob("*")]
    }


def test_only_the_owner_can_read_a_plan(tmp_path: Path) -> None:
    plan = planner.make(small()).to_dict()
    directory = tmp_path / "plans" / "mine"
    render.write(directory, plan, dry_run=False)
    # Of playbooks/check.yml, which writes them so.
    for name in ("check.json", "check.md"):
        render.private(directory / name, "{}")
    wanted = modes(directory)
    for name, mode in wanted.items():
        closed = 0o700 if name.endswith(".sh") or (directory / name).is_dir() else 0o600
        assert mode == closed, name
    # An earlier release left them open.
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.suffix == ".sh" else 0o644)
    assert render.write(directory, plan, dry_run=True) == {}
    assert modes(directory) != wanted
    assert render.write(directory, plan, dry_run=False) == {}
    assert modes(directory) == wanted


def test_a_folder_for_more_than_a_plan_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planner.make(small()).to_dict()
    (tmp_path / "work").mkdir(mode=0o755)
    monkeypatch.chdir(tmp_path / "work")
    for directory in (tmp_path / "work", tmp_path):
        directory.chmod(0o755)
        for _ in range(2):
            render.write(directory, plan, dry_run=False)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755
        assert stat.S_IMODE((directory / "plan.json").stat().st_mode) == 0o600


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    (tmp_path / "plan.json.part").symlink_to(tmp_path / "victim")
    render.write(tmp_path, planner.make(small()).to_dict(), dry_run=False)
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "plan.json").is_symlink()


@pytest.mark.parametrize(
    ("environment", "hidden"), [({"AWS_SECRET_ACCESS_KEY": "abcdefgh"}, True), ({"LANG": "C"}, False)]
)
def test_callbacks_do_not_get_a_plan_with_a_secret(monkeypatch, environment, hidden):
    """ansible.posix.json and those that write logs have all of a result; no_log keeps it for the playbook."""
    raw = small({"pd_engine_env": environment})
    monkeypatch.setattr(action, "read_inventory", lambda *_: raw)
    monkeypatch.setattr(action, "show", lambda *_, **__: None)
    monkeypatch.setattr(action.ActionBase, "run", lambda *_: {})
    plugin = action.ActionModule.__new__(action.ActionModule)
    plugin._task = SimpleNamespace(check_mode=False, diff=False)
    options = {"write": False, "topology": None, "dest": None, "fact": False, "every_deployment": False}
    plugin.validate_argument_spec = lambda _: (None, {**options, "made": None})
    result = plugin.run(None, {})
    assert ("abcdefgh" in json.dumps(result)) == hidden
    assert result.get("_ansible_no_log", False) == hidden
