#!/usr/bin/env python3
# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/rules.md and docs/variables.md from the planner's code. With --check: only say whether they
are current."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import yaml
from doc_generator import ROOT, main

from plugins.plugin_utils.rollout import names, rules  # noqa: F401  (rules declares them)
from plugins.plugin_utils.rollout.findings import ERROR, Rule, catalogue
from plugins.plugin_utils.rollout.releases import release_names
from plugins.plugin_utils.rollout.variables import VARIABLES, Variable

SECTIONS = {
    "1": "Inventory, groups and addresses",
    "2": "Sizes and chips",
    "3": "Ports",
    "4": "Engine flags and environment",
    "5": "KV transfer",
    "6": "Advice",
}

# Who else refuses what an error refuses, proven by the conformance tests.
REFUSALS = ROOT / "tests" / "conformance" / "refusals.yml"


def refusers() -> dict[str, str]:
    """By code: who would find it instead, and at which releases."""
    table = yaml.safe_load(REFUSALS.read_text(encoding="utf-8"))
    found = {code: by for by, codes in table["elsewhere"].items() for code in codes}
    for code in dict.fromkeys(row["rule"] for row in table["cases"]):
        by_release: dict[str, list[str]] = {}
        for row in (row for row in table["cases"] if row["rule"] == code):
            for release in row.get("releases", release_names()):
                by = row["by"]
                who = by if isinstance(by, str) else by.get(release, by["default"])
                known = by_release.setdefault(release, [])
                known.extend([who] if who not in known else [])
        found[code] = _in_words(by_release)
    return found


def _in_words(by_release: dict[str, list[str]]) -> str:
    """One answer where all releases that have the rule agree, else one for each answer."""
    answers: dict[str, list[str]] = {}
    for release in (name for name in release_names() if name in by_release):
        answers.setdefault(" or ".join(by_release[release]), []).append(release)
    if len(answers) == 1 and len(by_release) == len(release_names()):
        return next(iter(answers))
    return "; ".join(f"{', '.join(releases)}: {who}" for who, releases in answers.items())


def rules_text() -> str:
    return "\n".join(_rules()) + "\n"


def _rules() -> Iterator[str]:
    yield "# Rules of the planner"
    yield ""
    yield "<!-- Written by scripts/gen_rules_docs.py: change the rules, not this file. -->"
    yield ""
    yield "What `plan.yml` and every deployment check in the inventory before they touch a host. Errors"
    yield "stop the run, warnings are printed, hints are written to `topology.md` and printed with `-v`."
    yield "`A@v0.13.0` is vllm-ascend and `V@0.13.0` vLLM at that version, with the file that has the rule or"
    yield "the fact ([notation](upstream-facts.md))."
    yield ""
    yield "*Otherwise rejected by*: the component that would catch it without the planner, in the real vLLM"
    yield "and vllm-ascend of each release, as `make conformance` shows. *Nobody*: the engine starts, and"
    yield "fails or answers wrongly later."
    others = refusers()
    section = ""
    for rule in catalogue():
        if rule.code[2] != section:
            section = rule.code[2]
            yield ""
            yield f"## {SECTIONS[section]}"
            yield ""
            yield "| code | severity | rule | cure | otherwise rejected by | source |"
            yield "|---|---|---|---|---|---|"
        yield _rule_row(rule, others)


def _rule_row(rule: Rule, others: dict[str, str]) -> str:
    severity = rule.severity_over("")
    other = others[rule.code] if severity == ERROR else "-"
    cells = (rule.code, severity, rule.title, rule.cure, other, rule.source)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def variables_text() -> str:
    return "\n".join(_variables()) + "\n"


def _variables() -> Iterator[str]:
    yield "# Variables of an inventory"
    yield ""
    yield "<!-- Written by scripts/gen_rules_docs.py: change rollout/variables.py, not this file. -->"
    yield ""
    yield "Groups: `prefiller`, `decoder`, `proxy`. Each child group of `prefiller` and of `decoder` is one"
    yield "instance of the engine; a role group without children is one instance itself. The order of hosts"
    yield "is the node rank, and the first host is the head. *cluster*: set it once, in `group_vars/all`."
    yield "*instance*: set it in the group_vars of `all`, of a role or of an instance. *host*: a host may"
    yield "have its own."
    yield ""
    yield "| variable | for | meaning | default |"
    yield "|---|---|---|---|"
    for variable in VARIABLES:
        yield f"| `{variable.name}` | {variable.scope} | {variable.meaning} | {_default(variable)} |"
    yield ""
    yield "## Names"
    yield ""
    yield "A name becomes part of paths, of a container's name, of comments in scripts. Whatever is valid in"
    yield "all of them is allowed."
    yield ""
    yield "| name of | |"
    yield "|---|---|"
    yield f"| a deployment (`pd_deployment`) | {names.DEPLOYMENT_EXPECTED} |"
    yield f"| an instance (its group) | {names.INSTANCE_EXPECTED}; not `proxy` |"
    yield f"| a host in the inventory | {names.HOST_EXPECTED}; letters of all languages |"

    yield from _ENVIRONMENT.splitlines()


_ENVIRONMENT = """
## Who needs `pd_api_key`

It is the key of the engines: each asks for it, and the router has it and sends it. Clients of the
router need no key, so whoever reaches `pd_proxy_port` can use the engines. Behind the upstream script
of `MooncakeConnectorV1` such a client can also have the key and all prompts sent to an address of
its own, by `POST /instances/add`. A [front](front.md) closes that: set `pd_front_port` and
`pd_front_api_keys`, the clients' own keys, or let only trusted addresses reach the port; the planner
warns otherwise (PD614). Clients of a colocated engine, which has no router, must send the key.

## Values of `pd_engine_env`

A value means what it means within double quotes of a shell: the launch script, which bash runs,
expands `$NAME`, `${NAME}`, and `${NAME:-text}` with `-`, `:+`, `+`, `:?` and `?` in place of `:-`.

```yaml
pd_engine_env:
  LD_LIBRARY_PATH: /usr/local/lib/mooncake:$LD_LIBRARY_PATH  # before what the image has
  DS_WORKER_ADDR: $local_ip:18481
  PRICE: \\$5  # a dollar sign
```

- `$local_ip` is the node's service address, `$nic_name` the interface that has it, and
  `$master_addr` the address of the instance's first node.
- A name of `pd_engine_env` is that variable, wherever it stands; a variable that refers to itself
  means what the image has.
- What nobody sets is empty, as in a script without `set -u`, and a warning if the plan does not
  know it.
- Commands (`$(…)` and backquotes), arithmetic, `$1`, `$$` and other expansions are refused. `\\$` is
  a dollar sign and `` \\` `` a backquote; quotation marks, and backslashes before anything else,
  stand for themselves. `~` is no home directory within quotes: `$HOME` is.

Other variables of an inventory are taken as they stand: `$local_ip` in `pd_engine_args` is refused,
and what else looks like a shell's variable there is a warning. Ansible's `{{ ansible_host }}` works
everywhere.
"""


def _default(variable: Variable[object]) -> str:
    if variable.required:
        return "required"
    if variable.default_text is not None:
        return variable.default_text
    return "none" if variable.default is None else f"`{variable.default}`"


def documents() -> dict[str, str]:
    return {"docs/rules.md": rules_text(), "docs/variables.md": variables_text()}


if __name__ == "__main__":
    sys.exit(main(documents))
