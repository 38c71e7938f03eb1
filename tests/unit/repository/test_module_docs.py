# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""What the documentation of a module says is what the module does: options, types, defaults, choices."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic

ROOT = Path(__file__).resolve().parents[3]
PLUGINS = "ansible_collections.ascend.pd_rollout.plugins"
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("[a-z]*.py"))
FILTERS = sorted(path.stem for path in (ROOT / "plugins/filter").glob("[a-z]*.py"))
VERSION = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
# Of an option, what is compared; as it is where nothing is said.
FIELDS = {
    "type": "str",
    "required": False,
    "default": None,
    "choices": None,
    "elements": None,
    "aliases": [],
}


class Specified(Exception):
    """Carries the specification out of a module's main()."""


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """What ansible-doc shows of all modules and filters, fragments included."""
    found: dict[str, Any] = {}
    for kind, names in (("module", MODULES), ("filter", FILTERS)):
        command = [str(Path(sys.executable).with_name("ansible-doc")), "-j", "-t", kind]
        run = subprocess.run(
            [*command, *(f"ascend.pd_rollout.{name}" for name in names)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found |= {name.rpartition(".")[2]: text for name, text in json.loads(run.stdout).items()}
    return found


def specification(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The specification of a module, or of the action where that is all there is."""
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")
    if not hasattr(module, "main"):
        return dict(importlib.import_module(f"{PLUGINS}.action.{name}").ActionModule.ARGUMENTS)

    def init(_self: object, argument_spec: dict[str, Any], **_: object) -> None:
        raise Specified(argument_spec)

    monkeypatch.setattr(basic.AnsibleModule, "__init__", init)
    with pytest.raises(Specified) as raised:
        module.main()
    return dict(raised.value.args[0])


def specified(options: dict[str, Any], inner: str) -> dict[str, Any]:
    """The compared fields of all options, those inside others too."""
    found: dict[str, Any] = {}
    for name, option in options.items():
        one = {field: option.get(field, unsaid) for field, unsaid in FIELDS.items()}
        one["choices"] = sorted(one["choices"] or ())
        found[name] = {**one, "options": specified(option.get(inner) or {}, inner)}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_the_options_are_those_of_the_specification(
    name: str, shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    documented = specified(shown[name]["doc"].get("options") or {}, "suboptions")
    assert documented == specified(specification(name, monkeypatch), "options")


@pytest.mark.parametrize("name", [name for name in MODULES if (ROOT / f"plugins/action/{name}.py").exists()])
def test_an_action_has_its_modules_specification(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    action = importlib.import_module(f"{PLUGINS}.action.{name}").ActionModule
    arguments = action.WORK.arguments if hasattr(action, "WORK") else action.ARGUMENTS
    assert dict(arguments) == specification(name, monkeypatch)


@pytest.mark.parametrize("name", [*MODULES, *FILTERS])
def test_each_has_examples_results_and_one_version(name: str, shown: dict[str, Any]) -> None:
    one = shown[name]
    assert one["doc"]["version_added"] == VERSION
    assert f"ascend.pd_rollout.{name}" in one["examples"]
    assert one["return"]
    assert "version_added" not in json.dumps({**one, "doc": one["doc"].get("options")}), "one version only"


@pytest.mark.parametrize("name", MODULES)
def test_each_says_what_it_does_in_check_and_diff_mode(name: str, shown: dict[str, Any]) -> None:
    attributes = shown[name]["doc"]["attributes"]
    assert {"check_mode", "diff_mode"} <= set(attributes)
    assert all(one["description"] and one["support"] for one in attributes.values())
    assert ("action" in attributes) == (ROOT / f"plugins/action/{name}.py").exists()


def test_every_action_has_a_module_that_documents_it() -> None:
    actions = {path.stem for path in (ROOT / "plugins/action").glob("[a-z]*.py")}
    assert actions <= set(MODULES)
