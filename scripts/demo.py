#!/usr/bin/env python3
"""The demo: simulated servers, the guide's rollout on them, a question to the proxy (`make demo`)."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ui import UserError, colour, run_shown, say, step

ROOT = Path(__file__).resolve().parent.parent
SIM = str(ROOT / "simulator" / "sim")
NAME = "simulated_1p1d"
INVENTORY = f"inventory/{NAME}"
PLAN = ROOT / "plans" / NAME / "plan.json"
# Seconds of each stage, for scripts/bench.py.
STAGES = ROOT / ".sim" / "demo-stages.json"
QUESTION = "What is the capital of France?"
# Seconds for one answer of a simulated model.
PATIENCE = 60


def title(text: str) -> None:
    """A heading."""
    say(f"\n{colour('1;36', '── ' + text + ' ')}{colour('36', '─' * max(3, 76 - len(text)))}")


def run(*command: str) -> float:
    """Run a command of the checkout, output on the screen; returns its seconds or ends with its exit code."""
    begun = time.monotonic()
    code = subprocess.run(
        command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, check=False
    ).returncode
    end_if_failed(command[0], code)
    return time.monotonic() - begun


def run_beside(*command: str) -> float:
    """As `run`, for a command beside which this process has a step in progress: it gets no terminal."""
    begun = time.monotonic()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip("\n"))
    end_if_failed(command[0], process.returncode)
    return time.monotonic() - begun


def environment() -> dict[str, str]:
    """The environment with as little Python in it as possible: another virtual environment may be active."""
    found = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    if sys.stdout.isatty():
        found.setdefault("ANSIBLE_FORCE_COLOR", "1")
    return found


def end_if_failed(program: str, code: int) -> None:
    """End the demo with the exit code of a command that failed."""
    if code:
        say(f"\n{colour('31', 'The demo stopped')} in `{Path(program).name}` (exit {code}).")
        say("It can be run again as it is; `make demo-down` removes the servers.")
        raise SystemExit(code)


def prepare(stages: dict[str, float]) -> None:
    """Have the Docker Engine, and then side by side the server's image and what everything else is made with.

    The server's image needs nothing but Debian's packages; the engine's needs the virtual environment.
    """
    stages["docker"] = run("scripts/system_packages") + run("scripts/docker_engine")
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(make_server_image)
        stages["venv"] = run_beside("scripts/venv", "requirements.txt", "simulator/requirements.txt")
        run_beside(SIM, "images", "--only", "engine")
        try:
            server.result()
        except UserError as error:
            raise SystemExit(str(error)) from error
    stages["images"] = time.monotonic() - begun - stages["venv"]


def make_server_image() -> None:
    """Make the server's image, by the system's Python: there may be no virtual environment yet."""
    with step("Server image") as current:
        run_shown([sys.executable, SIM, "images", "--only", "server"], current, cwd=ROOT)


def ask(plan: dict[str, Any]) -> str:
    """A chat completion, as a client sends it."""
    entry = next(host["entry"] for host in plan["hosts"].values() if host["entry"])
    base = f"{entry['scheme']}://{entry['host']}:{entry['port']}/v1"
    url = f"{base}/chat/completions"
    body = {
        "model": plan["model"]["served_name"],
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 64,
    }
    say(f"POST {url}\n")
    say(f"  {colour('1', 'user')}       {QUESTION}")
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    # The servers' network is this machine's own: no proxy of the environment leads there.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            answer = json.load(response)
    except (urllib.error.URLError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise SystemExit(f"The proxy did not answer as it should: {error}") from error
    text = answer["choices"][0]["message"]["content"]
    say(f"  {colour('1', 'assistant')}  {text}")
    usage = answer.get("usage") or {}
    if usage:
        say(f"             ({usage.get('prompt_tokens')} tokens in, {usage.get('completion_tokens')} out)")
    say(f"\nFrom Python: OpenAI(base_url={base!r}, api_key='none')")
    return str(text)


def ports(plan: dict[str, Any]) -> None:
    """Who listens where; the ranges that are only kept free stand in topology.md."""
    rows = [("HOST", "PORTS", "WHO", "WHAT FOR")]
    for port in (port for port in plan["ports"] if port["bound"]):
        first, last = port["first"], port["last"]
        span = str(first) if first == last else f"{first}-{last}"
        rows.append((port["host"], span, port.get("instance") or "", port["purpose"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for number, row in enumerate(rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        say(colour("1", line) if number == 0 else line)


NEXT = f"""\
  make demo                                  again: nothing changes, everything is there
  simulator/sim status                       the three servers
  ssh -F .sim/{NAME}/ssh_config prefill1 docker ps
  less plans/{NAME}/topology.md         what runs where, and why
  less plans/{NAME}/prefill1/*.sh       the launch scripts

  Break something, then deploy again (`simulator/sim faults` lists what can go wrong):
  simulator/sim fault prefill2 link_down chips=[3]
  .venv/bin/ansible-playbook playbooks/check.yml
  simulator/sim heal prefill2

  Another cluster, without a server:
  .venv/bin/ansible-playbook -i inventory/guide_1p1d playbooks/plan.yml

  make demo-down                             removes the servers and all that was made for them"""


def down() -> None:
    """Remove what the demo made."""
    if (ROOT / ".venv" / "bin" / "python").exists():
        run(SIM, "down", "--name", NAME)
    STAGES.unlink(missing_ok=True)
    shutil.rmtree(PLAN.parent, ignore_errors=True)
    say("  The Docker Engine, the cached images and .venv stay; `make clean` removes images and .venv too.")


def main() -> None:
    """The demo, stage by stage; `--down` removes it."""
    if "--down" in sys.argv[1:]:
        down()
        return
    stages: dict[str, float] = {}
    title("What it needs: a Docker Engine, Python packages, images")
    prepare(stages)
    title("Three simulated Atlas A3 servers")
    stages["servers"] = run(SIM, "up", "--inventory", INVENTORY)
    title(f"ansible-playbook -i {INVENTORY} playbooks/deploy_1p1d.yml")
    stages["rollout"] = run(".venv/bin/ansible-playbook", "-i", INVENTORY, "playbooks/deploy_1p1d.yml")
    plan = json.loads(PLAN.read_text())
    title("A question to the proxy")
    begun = time.monotonic()
    if not ask(plan).strip():
        raise SystemExit(
            "The answer is empty: the decoder failed behind the proxy, see `docker logs` on decode1."
        )
    stages["question"] = time.monotonic() - begun
    title(f"Ports of the plan (plans/{NAME}/topology.md)")
    ports(plan)
    title("What to try next")
    say(NEXT)
    took = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
    say(f"\nSeconds: {took}; all {sum(stages.values()):.1f}")
    STAGES.write_text(json.dumps(stages, indent=1) + "\n")


if __name__ == "__main__":
    main()
