# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""Write docs/checks.md from the table of checks. With --check: only say whether it is current."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from doc_generator import main

from plugins.module_utils._files.catalogue import FOLDER_CHECKS
from plugins.module_utils._findings import Catalogue
from plugins.module_utils._hccn.catalogue import HCCN_CHECKS
from plugins.module_utils._host.catalogue import HOST_CHECKS
from plugins.module_utils._transfer.catalogue import TRANSFER_CHECKS
from plugins.module_utils._weights.catalogue import WEIGHTS_CHECKS

HEAD = """\
# Checks

Made by `scripts/gen_checks_docs.py` from the tables `_hccn/catalogue.py`, `_host/catalogue.py` and
`_weights/catalogue.py` in `plugins/module_utils`; change them there.

The roles `hccn_check`, `host_check` and `check_report` run them on every server of the plan, before
anything is launched:

    ansible-playbook -i inventory/… playbooks/check.yml

Each finding has a code, the servers and chips concerned, what was seen, what was expected, the cure as a
command, and the source. The same finding on several chips and servers is one finding. An error stops a
rollout; warnings and hints do not. `check_report_waivers` waives single findings, with a reason and until a
date ([check_report](../roles/check_report/README.md)).
"""

FABRIC = """
**Which network decides.** Between the servers of one super pod (Atlas A3) HCCL and the KV transfer go over
HCCS. There the vNIC, the place in the super pod, TLS and `-hccs_ping` decide, while the RoCE port may be
unused: in some pods it shows link `DOWN` and net health `Init` although everything works. So the severity
depends on the fabric, which `hccn_check_fabric` declares (`auto`, `hccs` or `roce`). `auto` follows the
plan: RoCE for `pd_server: atlas-a2`, HCCS for Atlas A3 unless its environment moves traffic to RoCE
(`HCCL_INTER_HCCS_DISABLE=TRUE` all of it, `HCCL_INTRA_ROCE_ENABLE=1` the KV transfer: then the worse of both
columns counts) or every chip reports that its server is in no super pod.

**One cause, one finding.** A link that is down also spoils the net health, and an unset detection address
leaves it at `Init`; only the cause is reported. A chip whose vNIC is down is left out of the ping mesh, and
so are servers of another super pod.
"""

SERVERS = """
**A running deployment is no finding.** Ports and NPUs that containers of the same deployment hold are not
reported, so the checks are clean while it runs.

**How ports are tested.** A temporary listener is started on every free port of the plan, for port ranges on
the first and the last. It ends when all servers that were to connect have done so; if the run is killed, by
itself after two minutes. It answers only peers that know a secret of the run, which the servers get over
ssh; strangers get no answer and cannot end it. Only servers that will use a port connect to it: the proxy to
the APIs, the nodes of an instance to their head, decoders to the prefillers' handshake ports.
"""

WEIGHTS = """
The role `model_weights` looks with the same eyes ([model_weights](../roles/model_weights/README.md#findings);
what else can go wrong while it brings them: [failures](failures.md)). All are errors. Where
`pd_weights_source` names a source that cures a finding, `check.yml` shows it as a warning: `deploy.yml` will
bring the weights.
"""

FAILURES = """\
# Failures

Made by `scripts/gen_checks_docs.py` from the tables `catalogue.py` in `plugins/module_utils`; change them
there.

What ends a deployment on a server, beside the findings of the [plan](rules.md) and of the
[checks](checks.md). It is shown as these are: with its code, the server, what was seen, what was expected,
the cure and the source. All are errors.
"""

FAILURE_SECTIONS = {
    "Weights and image": TRANSFER_CHECKS,
    "Folders on servers": FOLDER_CHECKS,
}


def listed(title: str, rows: Sequence[tuple[str, ...]], head: str) -> str:
    """A table with its title and its head."""
    text = f"\n### {title}\n\n{head}\n|{'---|' * len(rows[0])}\n"
    return text + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page() -> str:
    """The page."""
    text = HEAD + "\n## NPUs and their network\n" + FABRIC
    for title, between in (("On one server", False), ("Between servers", True)):
        rows = [
            (f"[`{one.code}`](#{one.code})", one.title, one.severity_over("hccs"), one.severity_over("roce"))
            for one in HCCN_CHECKS.values()
            if one.between is between
        ]
        text += listed(title, rows, "| code | | HCCS | RoCE |")
    text += "\n## Servers and the network between them\n" + SERVERS
    for title, between in (("Each server", False), ("All servers, and the report", True)):
        own = [
            (f"[`{one.code}`](#{one.code})", one.title, one.severity_over(""))
            for one in HOST_CHECKS.values()
            if one.between is between
        ]
        text += listed(title, own, "| code | | |")
    text += "\n## Weights\n" + WEIGHTS
    text += "\n| code | |\n|---|---|\n"
    text += "".join(f"| [`{one.code}`](#{one.code}) | {one.title} |\n" for one in WEIGHTS_CHECKS.values())
    text += "\n## Every check\n"
    return text + entries(HCCN_CHECKS, HOST_CHECKS, WEIGHTS_CHECKS)


def entries(*catalogues: Catalogue) -> str:
    """What each code means."""
    text = ""
    for check in (check for one in catalogues for check in one.values()):
        text += f"\n### {check.code}\n\n{check.title}. {check.why}\n\n"
        text += f"- expected: {check.expected}\n- cure: `{check.cure}`\n"
        text += f"- over HCCS: `{check.hccs_cure}`\n" if check.hccs_cure else ""
        text += f"- source: {check.source}\n"
    return text


def failures() -> str:
    """The page of what ends a run."""
    text = FAILURES
    for title, catalogue in FAILURE_SECTIONS.items():
        rows = [(f"[`{one.code}`](#{one.code})", one.title) for one in catalogue.values()]
        text += listed(title, rows, "| code | |")
    return text + "\n## Every failure\n" + entries(*FAILURE_SECTIONS.values())


def documents() -> dict[str, str]:
    return {"docs/checks.md": page(), "docs/failures.md": failures()}


if __name__ == "__main__":
    sys.exit(main(documents))
