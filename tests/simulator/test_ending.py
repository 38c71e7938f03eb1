"""How an engine ends: by SIGTERM with requests running, by the death of its core, by the loss of a node."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from .harness import COMMON, QUESTION, TIMING, Lab, Pair, Running, Server, Stream, start_pair

RELEASES = ["v0.13.0", "v0.18.0", "v0.23.0"]
LATER = RELEASES[1:]
ONE = (*COMMON, "--tensor-parallel-size", "2", "--enforce-eager")
LONG = {"ignore_eos": True, "max_tokens": 10000}
SLOW = TIMING | {"token_seconds": 0.05}
GONE = "EngineCore encountered an issue"


def slow_server(lab: Lab) -> Server:
    """A token takes 0.05 s there."""
    server = lab.server("server", chips=2)
    server.state(timing=SLOW)
    return server


def start(lab: Lab, release: str, *words: str, server: Server | None = None) -> Running:
    """One engine that does both, and answers slowly."""
    given = server or slow_server(lab)
    return lab.start(given, *ONE, *words, env={"PD_SIM_RELEASE": release}).ready()


@contextlib.contextmanager
def streaming(engine: Running, **options: object) -> Iterator[Stream]:
    """A stream whose first token has come."""
    with contextlib.closing(Stream(engine, **{**LONG, **options})) as stream:
        assert json.loads(stream.event())["choices"]
        yield stream


def reason(event: str) -> str:
    """The finish reason of a stream's event."""
    return str(json.loads(event)["choices"][0]["finish_reason"])


def refuses(engine: Running) -> bool:
    """Whether nobody listens at the API's port."""
    try:
        engine.request("/health")
    except OSError:
        return True
    return False


def test_first_release_leaves_its_streams_alone(lab: Lab) -> None:
    """No token more, and no end; the process waits for the client to go."""
    engine = start(lab, "v0.13.0")
    with streaming(engine) as stream:
        engine.stop()
        engine.wait_for("Waiting for connections to close.")
        assert "Shutting down FastAPI HTTP server." in engine.log
        assert refuses(engine)
        assert stream.is_silent()
        with pytest.raises(subprocess.TimeoutExpired):
            engine.ends(seconds=0.5)
    assert engine.ends() == 0
    assert "Application shutdown complete." in engine.log.split("Waiting for connections")[1]


@pytest.mark.parametrize("release", LATER)
def test_later_releases_abort_by_default(lab: Lab, release: str) -> None:
    engine = start(lab, release)
    with streaming(engine) as stream:
        engine.stop()
        *_, last, done = stream.rest()
        assert (reason(last), done) == ("abort", "[DONE]")
    assert engine.ends() == 0
    lines = {
        "v0.18.0": ["Shutdown initiated (timeout=0)", "Aborting 1 requests", "Shutdown complete"],
        "v0.23.0": [
            "[shutdown] API server: stopping engine client mode=abort timeout=0s",
            "[shutdown] EngineCore: aborting in-flight requests count=1",
            "[shutdown] EngineCore: request processing complete",
            "[shutdown] API server: engine client stopped",
        ],
    }[release]
    positions = [engine.log.index(line) for line in lines]
    assert positions == sorted(positions)


@pytest.mark.parametrize("release", LATER)
def test_drain_finishes_what_runs_and_turns_away_what_comes(lab: Lab, release: str) -> None:
    engine = start(lab, release, "--shutdown-timeout", "60")
    with streaming(engine, max_tokens=30) as stream:
        engine.stop()
        engine.wait_for(
            {
                "v0.18.0": "Draining 1 in-flight requests (timeout=60s)",
                "v0.23.0": "[shutdown] EngineCore: draining in-flight requests count=1 timeout=60s",
            }[release]
        )
        assert engine.request("/health")[0] == 200
        choice = engine.complete(request_id="late")["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == ("", "abort")
        said = "Rejecting request cmpl-late-0 (server shutting down)"
        assert (said in engine.log) == (release == "v0.18.0")
        *_, last, done = stream.rest()
        assert (reason(last), done) == ("length", "[DONE]")
    assert engine.ends() == 0


@pytest.mark.parametrize("release", LATER)
def test_drain_that_takes_too_long(lab: Lab, release: str) -> None:
    """The engine core is killed, at the earliest after 5 s, and who waits for it is not told."""
    engine = start(lab, release, "--shutdown-timeout", "1")
    with streaming(engine) as stream:
        begun = time.monotonic()
        engine.stop()
        engine.wait_for("Waiting for connections to close.")
        assert time.monotonic() - begun > 4
        assert stream.is_silent()
    assert engine.ends() == 0


def test_first_release_knows_no_shutdown_timeout(lab: Lab) -> None:
    engine = lab.start(lab.server("server", chips=2), *ONE, "--shutdown-timeout", "10")
    assert engine.ends() == 2
    assert "unrecognized arguments: --shutdown-timeout" in engine.log


@pytest.mark.parametrize("release", RELEASES)
def test_core_is_killed_while_a_stream_runs(lab: Lab, release: str) -> None:
    """Status 200, an error in the stream, the usual end, and exit code 0."""
    server = slow_server(lab)
    server.state(timing=SLOW | {"watchdog_seconds": 1.5})
    engine = start(lab, release, server=server)
    with streaming(engine) as stream:
        server.fault("engine_core_killed")
        *_, last, done = stream.rest()
        assert engine.request("/health")[0] == 503
    error = json.loads(last)["error"]
    assert (GONE in error["message"], done) == (True, "[DONE]")
    assert error["code"] == (400 if release == "v0.13.0" else 500)
    assert engine.ends() == 0
    assert "died unexpectedly, shutting down client." in engine.log
    again = start(lab, release, server=server)
    assert again.complete()["choices"][0]["text"], "the fault was for the one before"


@pytest.mark.parametrize(("release", "at_once"), [("v0.13.0", False), ("v0.18.0", True), ("v0.23.0", True)])
def test_a_request_finds_the_core_dead(lab: Lab, release: str, at_once: bool) -> None:
    """The later API servers leave with their answer; the first one looks after the engine core only."""
    server = slow_server(lab)
    server.state(timing=SLOW | {"watchdog_seconds": 1000.0})
    engine = start(lab, release, server=server)
    server.fault("engine_core_killed")
    engine.wait_for("died unexpectedly")
    status, text = engine.request("/v1/completions", {"prompt": "x"})
    assert (status, GONE in text) == (500, True)
    if at_once:
        assert engine.ends() == 0
    else:
        assert engine.request("/health")[0] == 503


def broken_pair(lab: Lab, release: str, **timing: float) -> Pair:
    """A prefiller of two nodes whose calls to the workers time out after a second."""

    def prepare(servers: dict[str, Server]) -> None:
        for server in servers.values():
            server.state(timing=SLOW | {"hccl_connect_timeout_scale": 0.004} | timing)

    env: dict[str, str | None] = {"HCCL_CONNECT_TIMEOUT": "30000"}
    return start_pair(lab, prepare=prepare, env=env, release=release)


@pytest.mark.parametrize("release", RELEASES)
def test_node_that_is_gone_stops_running_streams(lab: Lab, release: str) -> None:
    """No token more until the calls to the workers time out; then the engine dies."""
    pair = broken_pair(lab, release)
    with streaming(pair.prefiller) as stream:
        pair.nodes[1].kill()
        *_, last, done = stream.rest()
    assert (GONE in json.loads(last)["error"]["message"], done) == (True, "[DONE]")
    assert "TimeoutError: RPC call to execute_model timed out." in pair.prefiller.log
    assert pair.prefiller.ends() == 0


@pytest.mark.parametrize("killed", [0, 1])
def test_nodes_that_notice_the_loss_by_themselves(lab: Lab, killed: int) -> None:
    """The knob lost_peer_seconds: an idle head and a headless node end too."""
    pair = broken_pair(lab, "v0.13.0", lost_peer_seconds=0.1)
    pair.nodes[killed].kill()
    assert pair.nodes[1 - killed].ends() == 0


def test_core_of_a_head_is_killed_and_its_node_is_alone(lab: Lab) -> None:
    pair = start_pair(lab)
    pair.servers["prefill0"].fault("engine_core_killed")
    assert pair.prefiller.ends() == 0
    pair.nodes[1].wait_for("Did the remote server shutdown or crash?")
    assert pair.nodes[1].process.poll() is None
    assert pair.decoder.complete(QUESTION)["choices"][0]["text"], "the decoder lives"


@pytest.mark.parametrize(("release", "waits"), [("v0.18.0", False), ("v0.23.0", True)])
def test_drain_of_a_prefiller_whose_blocks_are_not_fetched(lab: Lab, release: str, waits: bool) -> None:
    """v0.23.0 waits for the decoder, or until the blocks are freed by force."""
    pair = start_pair(lab, nodes=1, pcp=1, dcp=1, release=release, more=("--shutdown-timeout", "60"))
    given = pair.prefill()
    pair.prefiller.stop()
    if waits:
        pair.prefiller.wait_for("[shutdown] EngineCore: start mode=drain timeout=60s")
        assert pair.prefiller.request("/health")[0] == 200
        answer = pair.decoder.complete(QUESTION, request_id="r1", kv_transfer_params=given)
        assert answer["choices"][0]["text"].startswith(" Paris")
    assert pair.prefiller.ends() == 0
