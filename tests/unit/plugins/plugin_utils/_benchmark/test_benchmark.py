# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0

"""Commands, judgement, figures and report of a benchmark."""

from __future__ import annotations

import builtins
import itertools
import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ascend.pd_rollout.plugins.filter.benchmark_runs import benchmark_runs
from ansible_collections.ascend.pd_rollout.plugins.module_utils._serving import measurement_log as log
from ansible_collections.ascend.pd_rollout.plugins.plugin_utils._benchmark import plot, report, results, runs

NEVER = "Never received a valid chunk to calculate TTFT.This response will be marked as failed!"


def engine(instance: str, role: str, *words: str) -> dict[str, Any]:
    return {"instance": instance, "role": role, "argv": ["vllm", "serve", "/m", *words]}


PLAN: dict[str, Any] = {
    "ports": [],
    "cluster": "mine",
    "model": {"path": "/w", "served_name": "deepseek_v3"},
    "hosts": {
        "p": {"engines": [engine("p", "prefiller", "--max-model-len", "136000", "--max-num-seqs", "1")]},
        "d": {
            "engines": [
                engine(
                    "d", "decoder", "--max-model-len=136000", "--max-num-seqs=4", "--data-parallel-size", "2"
                )
            ]
        },
    },
}


def result(**changes: Any) -> dict[str, Any]:
    """A result file of three good requests of 3 tokens."""
    given: dict[str, Any] = {
        "completed": 3,
        "failed": 0,
        "duration": 2.0,
        "input_lens": [10] * 3,
        "output_lens": [3] * 3,
        "ttfts": [1.0, 2.0, 3.0],
        "itls": [[0.1, 0.3]] * 3,
        "errors": [""] * 3,
        "generated_texts": ["a b c"] * 3,
    }
    return given | changes


# -- commands --------------------------------------------------------------------------------------


def test_the_guides_case_spelled_out() -> None:
    (run,) = benchmark_runs(PLAN, "http://10.0.0.1:8005", "/r")
    argv = run["argv"]
    assert argv[:3] == ["vllm", "bench", "serve"]
    pairs = dict(itertools.pairwise(argv))
    assert pairs["--base-url"] == "http://10.0.0.1:8005"
    assert pairs["--model"] == pairs["--tokenizer"] == "/w"
    assert pairs["--served-model-name"] == "deepseek_v3"
    assert (pairs["--random-input-len"], pairs["--num-prompts"]) == ("131072", "20")
    assert (pairs["--request-rate"], pairs["--max-concurrency"]) == ("inf", "1")
    assert pairs["--metric-percentiles"] == "50,90,99"
    assert "--save-result" in argv
    assert "--save-detailed" in argv
    assert run["commands"][0] == "echo '== run 1 of 1 (1 at a time)'"


def test_a_table_of_concurrencies_with_repeats() -> None:
    made = benchmark_runs(
        PLAN, "http://p", "/r", concurrency=["1", 0], repeats="2", options={"ignore-eos": True}
    )
    assert [run["file"] for run in made] == [
        "concurrency-1-1.json",
        "concurrency-1-2.json",
        "concurrency-all-1.json",
        "concurrency-all-2.json",
    ]
    assert "--max-concurrency" not in made[2]["argv"]
    assert made[0]["argv"][-1] == "--ignore-eos"
    seeds = [run["argv"][run["argv"].index("--seed") + 1] for run in made]
    assert seeds == ["0", "1", "2", "3"]


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(AnsibleFilterError) as error:
        benchmark_runs(
            PLAN, "http://p", "/r", input_len=140000, rate="0", prompts=0, concurrency=[-1], repeats=0
        )
    text = str(error.value)
    for part in (
        "do not fit into --max-model-len 136000 of p",
        "do not fit into --max-model-len 136000 of d",
        "Obtained non-positive request rate",
        "prompts is 0",
        "repeats is 0",
        "concurrency is [-1]",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": 1}, "unknown: prompt"),
        ({"prompts": "many"}, "invalid literal"),
        ({"options": [1]}, "mapping"),
    ],
    ids=["unknown", "no number", "no mapping"],
)
def test_bad_input_is_no_traceback(given: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        benchmark_runs(PLAN, "http://p", "/r", **given)


@pytest.mark.parametrize(
    ("concurrency", "roles"),
    [([1], []), ([4], ["prefillers"]), ([0], ["prefillers", "decoders"])],
    ids=["room for all", "prefiller too small", "both too small"],
)
def test_requests_that_must_wait_are_named(concurrency: list[int], roles: list[str]) -> None:
    said = runs.waiting(PLAN, concurrency, 20)
    assert len(said) == len(roles)
    for sentence, role in zip(said, roles, strict=True):
        assert role in sentence


# -- judgement -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({}, None),
        ({"ttfts": [0.0], "errors": [NEVER]}, results.EMPTY),
        ({"errors": ["Traceback (most recent call last):\n  File x\nValueError: cut\n"]}, "ValueError: cut"),
        ({"ttfts": [0.0], "errors": [""]}, "no answer (HTTP error without a reason)"),
        ({"output_lens": [2]}, "broken off: 2 of 3 tokens"),
        ({"generated_texts": [" "]}, "an answer without text"),
    ],
    ids=["good", "200 with nothing in it", "exception", "no reason", "broken off", "no text"],
)
def test_a_request_is_judged(changes: dict[str, Any], failure: str | None) -> None:
    one = {key: value[:1] if isinstance(value, list) else value for key, value in result().items()}
    (request,) = results.requests_of(one | changes, 3)
    assert request.failure == failure


def test_failed_requests_are_counted_and_not_measured() -> None:
    given = result(
        ttfts=[1.0, 0.0, 0.0], errors=["", NEVER, NEVER], output_lens=[3, 0, 0], itls=[[0.1, 0.3], [], []]
    )
    (point,) = results.collect([{"concurrency": 1, "file": "a"}], {"a": given}, 3)
    found = results.figures(point)
    assert (found["requests"], found["failed"], found["failures"]) == (3, 2, {results.EMPTY: 2})
    assert found["ttft"]["mean"] == found["ttft"]["p99"] == 1.0
    assert found["ttfts"] == [1.0, None, None]
    assert found["requests_per_second"] == 0.5


def test_repeats_are_put_together() -> None:
    made = [{"concurrency": 1, "file": "a"}, {"concurrency": 1, "file": "b"}, {"concurrency": 0, "file": "c"}]
    points = results.collect(made, {"a": result(), "b": result(duration=4.0)}, 3)
    assert [point.concurrency for point in points] == [1]
    found = results.figures(points[0])
    assert found["requests"] == 6
    assert found["ttft"]["p50"] == 2.0
    assert found["ttft"]["p90"] == 3.0
    assert found["tpot"]["mean"] == pytest.approx(0.2)
    assert found["output_throughput"] == 3.0


def test_all_failed_has_no_figures_but_a_report() -> None:
    given = result(ttfts=[0.0] * 3, errors=[NEVER] * 3, output_lens=[0] * 3, itls=[[]] * 3)
    found = results.figures(results.collect([{"concurrency": 1, "file": "a"}], {"a": given}, 3)[0])
    assert found["ttft"] is None
    lines = report.screen({"cluster": "c", "load": "l", "points": [found]}, [])
    assert ("1 at a time: 3 requests, 3 FAILED; 0.00 tok/s out, 0.000 requests/s", "red") in lines
    assert (f"    3 × {results.EMPTY}", "red") in lines


@pytest.mark.parametrize(
    ("given", "message"),
    [({"completed": 1}, "without --save-detailed"), (result(errors=[""]), "differ in length")],
    ids=["no details", "lengths"],
)
def test_another_file_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(results.BadResult, match=message):
        results.collect([{"concurrency": 1, "file": "a"}], {"a": given}, 3)


# -- report ----------------------------------------------------------------------------------------


def summary(date: str, ttfts: list[float], **case: Any) -> dict[str, Any]:
    point = results.collect([{"concurrency": 1, "file": "a"}], {"a": result(ttfts=ttfts)}, 3)[0]
    return {
        "cluster": "mine",
        "date": date,
        "release": "v0.13.0",
        "image": "i",
        "topology": "1P1D",
        "load": "l",
        "case": {"input_len": 131072, "output_len": 3, "prompts": 20, "rate": "inf", **case},
        "points": [results.figures(point)],
    }


REFERENCE = {"ttft": 20.0, "input_len": 131072, "prompts": 20}


def test_compared_with_reference_and_last() -> None:
    then = {**summary("1", [10.0] * 3), "name": "1"}
    said = report.comparisons(summary("2", [15.0] * 3), REFERENCE, then)
    assert said[0] == "TTFT 15.00 s, reference 20.0 s (-25.0%)."
    assert said[1].startswith("Since 1, 1 at a time: TTFT 10.00 → 15.00 s (+50.0%)")


def test_what_cannot_be_compared_is_not() -> None:
    now = summary("2", [1.0] * 3, input_len=100)
    said = report.comparisons(now, REFERENCE, {**summary("1", [1.0] * 3), "name": "1"})
    assert "not comparable with this load" in said[0]
    assert "another load, so it is not comparable" in said[1]
    assert report.comparisons(now, {}, None) == ["This is the first result of this cluster."]


def test_last_result_is_the_newest_older_one_that_can_be_read(tmp_path: Any) -> None:
    for name in ("20260101-000000", "20260102-000000", "20260104-000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(summary(name, [1.0] * 3)))
    (tmp_path / "20260103-000000").mkdir()
    (tmp_path / "20260103-000000" / "summary.json").write_text("{")
    last = report.last_result(tmp_path, "20260104-000000")
    assert last is not None
    assert last["name"] == "20260102-000000"
    assert report.last_result(tmp_path, "20260101-000000") is None
    assert len(report.history(tmp_path, summary("20260104-000000", [1.0] * 3))) == 3


def test_markdown_has_the_table_and_the_failures() -> None:
    text = report.markdown(summary("1", [1.0] * 3), ["said"], plot=True)
    assert "| TTFT (s) | 1.00 | 1.00 | 1.00 | 1.00 |" in text
    assert "- said" in text
    assert "![TTFT over time](ttft.svg)" in text


def test_the_plot_is_drawn_and_the_same_again(tmp_path: Any) -> None:
    now = summary("1", [1.0, 2.0, 3.0])
    assert plot.draw(tmp_path, now, [now], 20.7) == ["ttft.svg", "ttft.png"]
    first = (tmp_path / "ttft.svg").read_bytes()
    plot.draw(tmp_path, now, [now], 20.7)
    assert (tmp_path / "ttft.svg").read_bytes() == first
    assert (tmp_path / "ttft.png").read_bytes().startswith(b"\x89PNG")


def test_the_dates_of_the_plot_stand_in_their_order(tmp_path: Any) -> None:
    """Also where the measured numbers of requests at a time change from one benchmark to the next."""
    history = [summary(f"2026010{day}-000000", [1.0, 2.0, 3.0]) for day in (1, 2, 3)]
    history[1]["points"][0]["concurrency"] = 4
    plot.draw(tmp_path, history[-1], history, None)
    drawn = (tmp_path / "ttft.svg").read_text()
    places = [drawn.index(f"2026010{day}-000000") for day in (1, 2, 3)]
    assert places == sorted(places)


def test_without_matplotlib_there_is_an_import_error(tmp_path: Any, monkeypatch: Any) -> None:
    real = builtins.__import__

    def refuse(name: str, *words: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *words, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    now = summary("1", [1.0] * 3)
    with pytest.raises(ImportError):
        plot.draw(tmp_path, now, [now], None)
    assert "requirements-plot.txt" in plot.MISSING


# -- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("== run 1 of 2\n", "run 1 of 2"),
        ("== a\n 50%|█████     | 10/20 [00:01<?, ?it/s]\r 55%|█████     | 11/20 [00:02<?", "a, 11 of 20"),
        ("== a\n100%|██| 20/20 [00:01<\n== b\nStarting", "b"),
    ],
    ids=["nothing", "heading", "bar", "the next run"],
)
def test_progress(text: str, words: str) -> None:
    assert log.progress(text) == words


def test_last_lines_of_a_log(tmp_path: Any) -> None:
    path = tmp_path / "log"
    path.write_text("one\n\ntwo\n 1%\r 2%\r 3%\n", encoding="utf-8")
    assert log.last_lines(log.tail_of(path), 2) == ["two", " 3%"]
    assert log.tail_of(tmp_path / "none") == ""
