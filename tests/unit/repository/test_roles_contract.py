# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The contract between roles: variables of one's own, described once, and the plan for what several need.

A role reads its own variables, those of the planner's contract (pd_), and what Ansible sets. It may give a
role that it includes its arguments, and read the result which that role registers; only check_report reads
results of roles that it does not include.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils.rollout.variables import KNOWN, RUNTIME

ROOT = Path(__file__).resolve().parents[3]
ROLES = {path.parent.name: path.parent for path in sorted(ROOT.glob("roles/*/tasks"))}
PREFIXES = {name: name.lstrip("_") for name in ROLES}

# Whose results a role reads without including the roles: they come before it in a play.
READS = {"check_report": {"hccn_check", "host_check"}}

# Variables that roles register as their results, for plays, for the roles that included them, or for the
# report on all checks. The README of the role says what they hold.
RESULTS = {
    "canary": {"canary_result"},
    "_container": {"container_result", "container_groups", "container_found"},
    "_measurement": {"measurement_outcome"},
    "check_report": {"check_report_result"},
    "hccn_check": {"hccn_check_result", "hccn_check_targets", "hccn_check_pings", "hccn_check_verdict"},
    "host_check": {
        "host_check_result",
        "host_check_targets",
        "host_check_reached",
        "host_check_weights_result",
    },
    "model_weights": {"model_weights_result"},
    # The second one is the item of a loop.
    "rollout": {
        "rollout_steps",
        "rollout_step",
        "rollout_part",
        "rollout_reached",
        "rollout_revision",
    },
}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def texts(role: str) -> Iterator[tuple[Path, str]]:
    """The files of a role that Ansible evaluates, without comments and without the names of its plugins."""
    for folder in ("tasks", "handlers", "defaults", "vars", "templates"):
        for path in sorted((ROLES[role] / folder).glob("*")):
            text = path.read_text(encoding="utf-8")
            text = re.sub(r"(?m)^\s*#.*$|^\s*(- )?name: .*$", "", text)
            yield path, re.sub(r"\b(ascend\.pd_rollout|community\.docker|ansible\.builtin)\.\w+", "", text)


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(ROLES[role] / "meta" / "argument_specs.yml")["argument_specs"]["main"][
        "options"
    ]
    return found


def included(role: str) -> set[str]:
    """The roles that a role includes."""
    tasks = "".join(path.read_text(encoding="utf-8") for path in (ROLES[role] / "tasks").glob("*.yml"))
    return set(re.findall(r"name: ascend\.pd_rollout\.(\w+)", tasks))


def defaults(role: str) -> dict[str, Any]:
    return load(ROLES[role] / "defaults" / "main.yml") or {}


def owner(variable: str) -> str | None:
    """The role whose variable a name is, by its prefix: the longest that fits."""
    bare = variable.lstrip("_")
    fitting = [name for name, prefix in PREFIXES.items() if bare.startswith(f"{prefix}_")]
    return max(fitting, key=lambda name: len(PREFIXES[name]), default=None)


# Words that are no variables but begin like a role's name: options and results of modules, keys of the plan.
WORDS = {
    "docker": {"docker_container", "docker_image", "docker_info"},
    "proxy": {"proxy_url"},
    "engine": {"engine_ids", "engine_id"},
    "_container": {"container_name"},
}


def named(role: str) -> Iterator[tuple[Path, str]]:
    """Every name in a role's files that looks like a variable of any role, with its file."""
    for path, text in texts(role):
        for name in re.findall(r"(?<![\w./-])_{0,2}[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w(/-])", text):
            if owner(name) is not None:
                yield path, name


@pytest.mark.parametrize("role", ROLES)
def test_no_role_names_a_variable_of_another(role: str) -> None:
    known = {name for options_ in map(options, ROLES) for name in options_}
    for path, name in named(role):
        of = owner(name)
        if of == role or not (name.startswith("__") or name in known or name in RESULTS.get(str(of), ())):
            continue
        allowed = not name.startswith("_") and (
            of in included(role) or (of in READS.get(role, ()) and name in RESULTS[of])
        )
        assert allowed, f"{path.relative_to(ROOT)} names {name}, which belongs to the role {of}"


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_that_a_role_uses_is_described(role: str) -> None:
    own = {name for _, name in named(role) if owner(name) == role and not name.startswith("_")}
    words = WORDS.get(role, set())
    undescribed = own - options(role).keys() - RESULTS.get(role, set()) - words
    assert not undescribed


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_the_planner_that_a_role_uses_is_in_its_contract(role: str) -> None:
    used = {name for _, text in texts(role) for name in re.findall(r"(?<![\w.])pd_[a-z_]+", text)}
    assert used - {"pd_rollout", "pd_rollout_", "pd_rollout_measurement"} <= KNOWN | RUNTIME


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_descriptions_agree(role: str) -> None:
    described = options(role)
    assert defaults(role).keys() <= described.keys()
    for name, value in defaults(role).items():
        computed = isinstance(value, str) and "{{" in value
        assert ("default" in described[name]) is not computed, name
        if not computed:
            assert described[name]["default"] == value, name


@pytest.mark.parametrize("role", ROLES)
def test_what_has_no_default_is_required_or_may_be_left_out(role: str) -> None:
    for name in options(role).keys() - defaults(role).keys():
        uses = [text for _, text in texts(role) if name in text]
        optional = all(f"{name} | default(omit)" in text for text in uses)
        assert options(role)[name].get("required") or optional, name


@pytest.mark.parametrize("role", RESULTS)
def test_results_are_documented(role: str) -> None:
    text = (ROLES[role] / "README.md").read_text(encoding="utf-8")
    assert {name for name in RESULTS[role] if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("role", [name for name in ROLES if name.startswith("_")])
def test_internal_roles_say_so(role: str) -> None:
    text = (ROLES[role] / "README.md").read_text(encoding="utf-8")
    assert text.split("\n\n")[1].startswith("Internal:")


def test_the_tables_of_the_readmes_are_current() -> None:
    script = ROOT / "scripts" / "gen_roles_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rollout_compares_the_guard_with_the_defaults_of_its_role() -> None:
    own = load(ROLES["guard"] / "vars" / "main.yml")["__guard_settings"]
    compared = load(ROLES["rollout"] / "vars" / "main.yml")["__rollout_guard_settings"]
    assert compared.keys() == own.keys()
    for name, text in own.items():
        (variable,) = re.findall(r"guard_\w+", text)
        found = re.fullmatch(rf"{{{{ {variable} \| default\((\d+)\) }}}}", compared[name])
        assert found and float(found[1]) == defaults("guard")[variable]
