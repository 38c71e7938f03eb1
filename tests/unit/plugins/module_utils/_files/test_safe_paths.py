# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Root makes, empties and removes what is a deployment's, and reaches nothing else."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files import safe_paths
from ansible_collections.ascend.pd_rollout.plugins.module_utils._files.safe_paths import Refused
from ansible_collections.ascend.pd_rollout.plugins.module_utils._findings import shown
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving.entry import folder, refused, state

SCRIPT = "#!/usr/bin/env bash\n# decoder, on d1. Written by ascend.pd_rollout: change the inventory.\n"
STRANGER = 12345


@pytest.mark.parametrize(
    "value", ["pd", "PD", "a", "0", "chat-v3.1_w8a8", "Prod.2", "x" * 63], ids=lambda value: value[:20]
)
def test_names_of_deployments(value):
    assert safe_paths.name(value, "pd_deployment") == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        None,
        7,
        "..",
        ".",
        "../../root/x",
        "a/b",
        "/etc",
        "-rf",
        ".hidden",
        "a b",
        "a;b",
        "a\n",
        "ä",
        "x" * 64,
    ],
    ids=repr,
)
def test_other_names_are_refused_with_what_was_seen(value):
    with pytest.raises(Refused) as raised:
        safe_paths.name(value, "pd_deployment")
    finding = raised.value.finding
    assert (finding.code, finding.variable) == ("folder-name-invalid", "pd_deployment")
    assert finding.seen == repr(value)
    assert finding.expected.startswith("letters, digits")
    assert finding.message.endswith("nothing was changed or removed")


@pytest.mark.parametrize(
    "value",
    [
        "/etc/pd_rollout/pd",
        "/etc/pd_rollout//pd/",
        "/opt/pd",
        "/srv/a b/pd",
        "/data/v1..2/pd",
        "/home/ops/x/pd-benchmark",
    ],
)
def test_directories_of_deployments(value):
    assert safe_paths.directory(value, "x") == value.replace("//", "/").rstrip("/")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "pd",
        "etc/pd_rollout/pd",
        "~/pd",
        "/",
        "/pd",
        "/etc/pd",
        "/etc//ssh",
        "/proc/1/pd",
        "/usr/bin/./pd",
        "/etc/pd_rollout/..",
        "/../etc/x/pd",
        "/etc/pd_rollout/../../root/x",
        "/etc/pd_rollout/pd\n",
        "/etc/pd_rollout/p d",
        None,
    ],
    ids=repr,
)
def test_other_directories_are_refused(value):
    with pytest.raises(Refused) as raised:
        safe_paths.directory(value, "pd_host_dir")
    finding = raised.value.finding
    assert (finding.code, finding.variable, finding.seen) == (
        "folder-path-invalid",
        "pd_host_dir",
        shown(repr(value), 2000),
    )


def test_directories_of_weights():
    assert safe_paths.own_path("/weights", "x") == "/weights"
    assert safe_paths.own_path("/root/.cache/DeepSeek-V3.1/", "x") == "/root/.cache/DeepSeek-V3.1"
    for value in (
        "/",
        "//",
        "/etc",
        "/home/",
        "/var/lib",
        "/proc/self",
        "/weights/..",
        "/../etc",
        "weights",
        "",
    ):
        with pytest.raises(Refused, match=r"^folder-path-invalid: x is "):
            safe_paths.own_path(value, "x")


def options(**changes):
    return {"deployment": "pd", "directory": "/etc/pd_rollout/pd", "planned": [], **changes}


@pytest.mark.parametrize(
    ("changes", "code", "variable"),
    [
        ({"deployment": ""}, "folder-name-invalid", "pd_deployment"),
        ({"deployment": "../../root/x"}, "folder-name-invalid", "pd_deployment"),
        ({"directory": "/pd"}, "folder-path-invalid", "pd_host_dir"),
        ({"directory": "relative/pd"}, "folder-path-invalid", "pd_host_dir"),
        (
            {"planned": [{"container": "pd-d", "script_path": "/etc/cron.d/x.sh"}]},
            "folder-path-invalid",
            "script_path of pd-d",
        ),
        (
            {"planned": [{"container": "pd-d", "secret_path": "/root/.ssh/id_rsa"}]},
            "folder-path-invalid",
            "secret_path of pd-d",
        ),
        (
            {"planned": [{"container": "pd-d", "script_path": "/etc/pd_rollout/pd/../x.sh"}]},
            "folder-path-invalid",
            "script_path of pd-d",
        ),
    ],
)
def test_a_role_is_stopped_before_it_asks_the_server(changes, code, variable):
    assert refused(options()) is None
    finding = refused(options(**changes)).finding
    assert finding.code == code
    assert variable in finding.variable
    # The module on the server answers the same.
    result = state({**options(**changes), "_check_mode": False})
    assert (result["failed"], result["findings"]) == (True, [finding.to_dict()])
    assert result["msg"].startswith(f"ERROR {code}  {finding.variable}\n")


def test_slices_of_the_plan_pass():
    plan = {"script_path": "/etc/pd_rollout/pd/decoder.sh", "secret_path": "/etc/pd_rollout/pd/api_key"}
    assert refused(options(planned=[plan, {**plan, "secret_path": None}])) is None


@pytest.fixture
def root(tmp_path):
    """A directory of this user alone, in place of pd_host_dir."""
    for one in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        assert safe_paths.others(os.lstat(one)) is None
    return tmp_path


def run(path, state, check_mode=False):
    return folder({"path": str(path), "state": state, "variable": "pd_host_dir", "_check_mode": check_mode})


def deployed(root):
    assert run(root / "pd", "present")["changed"]
    (root / "pd" / "decoder.sh").write_text(SCRIPT)
    (root / "pd" / "api_key").write_text("secret")
    (root / "pd" / "api_key.id").write_text("0" * 16)
    return root / "pd"


def test_a_directory_is_made_once_for_root_alone(root):
    assert run(root / "new" / "pd", "present", check_mode=True)["changed"]
    assert not (root / "new").exists()
    assert run(root / "new" / "pd", "present")["changed"]
    assert (root / "new" / "pd").stat().st_mode & 0o777 == 0o700
    assert not run(root / "new" / "pd", "present")["changed"]
    (root / "new" / "pd").chmod(0o755)
    assert run(root / "new" / "pd", "present")["changed"]
    assert (root / "new" / "pd").stat().st_mode & 0o777 == 0o700


def test_what_was_deployed_is_removed(root):
    pd = deployed(root)
    assert run(pd, "absent", check_mode=True) == {"changed": True, "path": str(pd), "left": []}
    assert pd.exists()
    assert run(pd, "absent")["changed"]
    assert not pd.exists()
    assert root.exists()
    assert not run(pd, "absent")["changed"]


def test_what_others_have_put_there_stays_and_is_named(root):
    pd = deployed(root)
    (pd / "own.sh").write_text("echo mine\n")
    (pd / "notes").mkdir()
    (pd / "link.sh").symlink_to(pd / "decoder.sh")
    result = run(pd, "absent")
    assert result["left"] == ["link.sh", "notes", "own.sh"]
    assert "own.sh" in result["warnings"][0]
    assert sorted(path.name for path in pd.iterdir()) == ["link.sh", "notes", "own.sh"]
    assert not run(pd, "absent")["changed"]
    assert not run(pd, "present")["changed"]


def test_a_directory_of_somebody_else_is_not_taken_over(root):
    (root / "weights").mkdir(mode=0o755)
    (root / "weights" / "config.json").write_text("{}")
    result = run(root / "weights", "present")
    assert result["failed"]
    assert result["findings"][0]["code"] == "folder-not-empty"
    assert "contains config.json and no files of a deployment" in result["findings"][0]["message"]
    assert (root / "weights").stat().st_mode & 0o777 == 0o755
    assert run(root / "weights", "absent")["left"] == ["config.json"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_link_is_not_followed(root, state):
    elsewhere = deployed(root)
    (root / "link").symlink_to(elsewhere)
    result = run(root / "link", state)
    assert result["failed"]
    assert result["findings"][0]["code"] == "folder-is-none"
    assert "which is a link" in result["findings"][0]["message"]
    assert (elsewhere / "api_key").exists()
    assert (root / "link").is_symlink()


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_host_dir_that_others_may_write_to(root, state):
    shared = root / "shared"
    shared.mkdir()
    pd = deployed(shared)
    shared.chmod(0o777)
    result = run(pd, state)
    assert result["failed"]
    assert result["findings"][0]["code"] == "folder-not-trusted"
    assert result["findings"][0]["seen"] == f"{shared} is writable by every user"
    assert (pd / "api_key").exists()
    # As in /tmp: nobody can exchange there what is root's.
    shared.chmod(0o1777)
    assert not run(pd, "present").get("failed")
    shared.chmod(0o755)
    assert not run(pd, "absent").get("failed")


@pytest.mark.parametrize("state", ["present", "absent"])
def test_what_somebody_else_has_made_first(root, state):
    """In a directory with the sticky bit, as if it were a deployment's: root does not work in it."""
    shared = root / "shared"
    shared.mkdir()
    pd = deployed(shared)
    shared.chmod(0o1777)
    os.chown(pd, STRANGER, -1)
    result = run(pd, state)
    assert result["failed"]
    assert result["findings"][0]["code"] == "folder-of-another-user"
    held = "api_key, api_key.id, decoder.sh"
    assert f"belongs to user {STRANGER} and contains {held}" in result["findings"][0]["message"]
    assert (pd / "api_key").exists()
    for one in pd.iterdir():
        one.unlink()
    assert run(pd, state)["changed"]


def test_who_becomes_root_may_own_the_host_dir(monkeypatch):
    def others(uid, gid, mode):
        return safe_paths.others(SimpleNamespace(st_uid=uid, st_gid=gid, st_mode=mode))

    assert others(0, 0, 0o40775) is None
    assert others(STRANGER, STRANGER, 0o40700) == f"belongs to user {STRANGER}"
    assert others(0, STRANGER, 0o40775) == f"is writable by group {STRANGER}"
    assert others(0, STRANGER, 0o40755) is None
    monkeypatch.setenv("SUDO_UID", str(STRANGER))
    assert others(STRANGER, STRANGER, 0o40755) is None
    assert others(STRANGER, STRANGER, 0o40775) == f"is writable by group {STRANGER}"
    monkeypatch.setenv("SUDO_GID", str(STRANGER))
    assert others(STRANGER, STRANGER, 0o40775) is None
    assert others(STRANGER + 1, STRANGER, 0o40755) == f"belongs to user {STRANGER + 1}"


def untrusted(path, state):
    """What a finding about a path that others can change has seen."""
    finding = run(path, state)["findings"][0]
    assert finding["code"] == "folder-not-trusted"
    return finding["seen"]


def test_links_on_the_way(root):
    real = root / "real"
    real.mkdir()
    (root / "way").symlink_to("real")
    assert run(root / "way" / "pd", "present")["changed"]
    assert (real / "pd").is_dir()
    real.chmod(0o777)
    assert "real is writable by every user" in untrusted(root / "way" / "pd", "absent")
    (root / "round").symlink_to("round")
    assert "leads to itself" in untrusted(root / "round" / "pd", "present")
    (root / "file").write_text("")
    assert "is not a directory" in untrusted(root / "file" / "pd", "present")


def test_the_note_of_a_start_goes_with_its_script(root):
    pd = deployed(root)
    (pd / "decode.started").write_text('{"_": "Written by ascend.pd_rollout: the last start"}')
    (pd / "own.started").write_text("{}")
    assert run(pd, "absent")["left"] == ["own.started"]


def test_a_guard_goes_with_its_deployment(root):
    pd = deployed(root)
    (pd / "guard").mkdir()
    for name in ("pd-guard.pyz", "guard.json", "secret", "state.json", "restart.pending", ".state.json.7.8"):
        (pd / "guard" / name).write_text("")
    (pd / "guard" / "notes").write_text("mine")
    assert run(pd, "absent")["left"] == ["guard"]
    (pd / "guard" / "notes").unlink()
    assert run(pd, "absent")["left"] == []
    assert not pd.exists()


def test_a_path_alone_may_be_any_that_is_not_the_systems():
    def named(path, **more):
        return folder({"path": path, "state": "named", "variable": "x", "_check_mode": False, **more})

    assert named("/aisbench") == {"changed": False, "path": "/aisbench", "left": []}
    assert named("/etc")["failed"]
    assert named("/aisbench", deployment="aisbench")["failed"]
    assert named("/opt/aisbench", deployment="")["failed"]
    assert not named("/opt/aisbench", deployment="aisbench").get("failed")


def test_the_check_says_the_same_before(root):
    assert safe_paths.problem(str(root / "new" / "pd")) is None
    pd = deployed(root)
    assert safe_paths.problem(str(pd)) is None
    root.chmod(0o777)
    assert safe_paths.problem(str(pd)) == f"{root} is writable by every user"
    root.chmod(0o755)
    (root / "link").symlink_to(pd)
    (root / "file").write_text("")
    assert safe_paths.problem(str(root / "link")) == f"{root / 'link'} is a link"
    assert safe_paths.problem(str(root / "file")) == f"{root / 'file'} is a file"
