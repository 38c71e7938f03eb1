"""`vllm bench serve`: really sends the requests, measures, and writes what the real one writes.

Random data only, by the completions API or the chat API. What counts as a success, the figures and the two
formats follow V@0.13.0:vllm/benchmarks/serve.py and lib/endpoint_request_func.py; what later ones changed
stands in release.py.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import math
import os
import random
import sys
import time
import traceback
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import RELEASE
from .model import VOCABULARY

REQUEST_TIMEOUT = 6 * 60 * 60
READY_RETRY = 5
"""Seconds between two attempts of the first request."""
NEVER = "Never received a valid chunk to calculate TTFT.This response will be marked as failed!"
NOT_GREEDY = "WARNING: vllm bench serve no longer sets temperature==0 (greedy) in requests by default."
BACKENDS = {"vllm": "completions", "openai": "completions", "openai-chat": "chat/completions"}
METRICS = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
}


@dataclass
class Prompt:
    text: str
    tokens: int
    output: int
    request_id: str


@dataclass
class Answer:
    """One request's outcome; times in seconds."""

    prompt_len: int
    start: float = 0.0
    success: bool = False
    text: str = ""
    tokens: int = 0
    ttft: float = 0.0
    latency: float = 0.0
    itl: list[float] = field(default_factory=list)
    error: str = ""


def make_prompts(args: argparse.Namespace) -> list[Prompt]:
    """Words that the simulated tokenizer counts as one token each."""
    chance = random.Random(args.seed)
    # From 0.23.0 on the option is text: a number, or a JSON object for input and output.
    ratio = float(args.random_range_ratio)
    if not 0.0 <= ratio < 1.0:
        raise ValueError("range_ratio must be in [0, 1).")
    prompts = []
    for number in range(args.num_prompts):
        length = args.random_prefix_len + chance.randint(
            int(args.random_input_len * (1 - ratio)), round(args.random_input_len * (1 + ratio))
        )
        output = chance.randint(
            max(1, int(args.random_output_len * (1 - ratio))), round(args.random_output_len * (1 + ratio))
        )
        offset = chance.randrange(VOCABULARY)
        text = " ".join(f"w{(offset + number + step) % VOCABULARY}" for step in range(length))
        prompts.append(Prompt(text, length, output, f"{args.request_id_prefix}{number}"))
    return prompts


def payload_of(args: argparse.Namespace, prompt: Prompt, extra: dict[str, Any]) -> dict[str, Any]:
    """The body of a request."""
    chat = args.backend == "openai-chat"
    body: dict[str, Any] = {"model": args.served_model_name or args.model}
    if RELEASE.bench_is_greedy:
        body["temperature"] = 0.0
    if chat:
        body["messages"] = [{"role": "user", "content": [{"type": "text", "text": prompt.text}]}]
        body["max_completion_tokens"] = prompt.output
    else:
        body |= {"prompt": prompt.text, "repetition_penalty": 1.0, "max_tokens": prompt.output}
        body["logprobs"] = args.logprobs
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    if args.ignore_eos:
        body["ignore_eos"] = True
    return body | extra


def ask(url: str, body: dict[str, Any], headers: dict[str, str], prompt: Prompt, chat: bool) -> Answer:
    """Send one request and read its stream."""
    answer = Answer(prompt.tokens, start=time.perf_counter())
    last = answer.start
    parts = urlsplit(url)
    try:
        # https is verified, with the authorities of SSL_CERT_FILE or the image.
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(
            parts.hostname or "", parts.port or (443 if secure else 80), timeout=REQUEST_TIMEOUT
        )
        try:
            connection.request("POST", parts.path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            if response.status != 200:
                answer.error = response.reason or ""
                return answer
            first = False
            while line := response.readline():
                text = line.decode().strip()
                if not text or text.startswith(":"):
                    continue
                text = text.removeprefix("data: ")
                if text == "[DONE]":
                    continue
                event = json.loads(text)
                now = time.perf_counter()
                if choices := event.get("choices"):
                    if first:
                        answer.itl.append(now - last)
                    else:
                        first, answer.ttft = True, now - answer.start
                    last = now
                    word = choices[0]["delta"].get("content") if chat else choices[0].get("text")
                    answer.text += word or ""
                elif usage := event.get("usage"):
                    answer.tokens = usage.get("completion_tokens")
                    last = now if chat else last
            # The chat API's function counts every 200 as a success, with nothing in it too.
            answer.success = first or chat
            answer.error = "" if answer.success else NEVER
            answer.latency = last - answer.start
        finally:
            connection.close()
    except Exception:
        answer.success = False
        answer.error = traceback.format_exc()
    return answer


def delays(args: argparse.Namespace) -> list[float]:
    """When each request is sent, in seconds after the first."""
    rate, burst = args.request_rate, args.burstiness
    assert burst > 0, f"A positive burstiness factor is expected, but given {burst}."
    assert args.num_prompts > 0, "No requests provided."
    assert rate > 0.0, f"Obtained non-positive request rate {rate}."
    if rate == float("inf"):
        return [0.0] * args.num_prompts
    gaps = [random.gammavariate(burst, 1 / (rate * burst)) for _ in range(args.num_prompts)]
    total, when = 0.0, []
    for gap in gaps:
        total += gap
        when.append(total)
    return [moment * (args.num_prompts / rate) / when[-1] for moment in when]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def deviation(values: Sequence[float]) -> float:
    middle = mean(values)
    return math.sqrt(mean([(value - middle) ** 2 for value in values]))


def percentile(values: Sequence[float], percent: float) -> float:
    """As numpy's: between the two nearest, in proportion."""
    if not values:
        return 0.0
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def peaks(answers: list[Answer]) -> tuple[float, int]:
    """The most tokens within one second, and the most requests at work in one."""
    if not answers:
        return 0.0, 0
    begin = min(answer.start for answer in answers)
    tokens: dict[int, int] = {}
    busy: dict[int, int] = {}
    for answer in answers:
        moment = answer.start + answer.ttft
        for gap in (0.0, *answer.itl):
            moment += gap
            tokens[int(moment - begin)] = tokens.get(int(moment - begin), 0) + 1
        for second in range(int(answer.start - begin), int(answer.start + answer.latency - begin) + 1):
            busy[second] = busy.get(second, 0) + 1
    return float(max(tokens.values())), max(busy.values())


def figures(answers: list[Answer], seconds: float) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The counts of the result, and the values that the percentiles are taken of."""
    good = [answer for answer in answers if answer.success]
    lengths = [(answer.tokens or len(answer.text.split())) if answer.success else 0 for answer in answers]
    long = [(a, n) for a, n in zip(answers, lengths, strict=True) if a.success and n > 1]
    values = {
        "ttft": [answer.ttft for answer in good],
        "tpot": [(answer.latency - answer.ttft) / (length - 1) for answer, length in long],
        "itl": [gap for answer in good for gap in answer.itl],
        "e2el": [answer.latency for answer in good],
    }
    most, at_once = peaks(good)
    given = sum(answer.prompt_len for answer in good)
    counts = {
        "duration": seconds,
        "completed": len(good),
        "failed": len(answers) - len(good),
        "total_input_tokens": given,
        "total_output_tokens": sum(lengths),
        "request_throughput": len(good) / seconds,
        "request_goodput": None,
        "output_throughput": sum(lengths) / seconds,
        "total_token_throughput": (given + sum(lengths)) / seconds,
        "input_lens": [answer.prompt_len for answer in answers],
        "output_lens": lengths,
        "ttfts": [answer.ttft for answer in answers],
        "itls": [answer.itl for answer in answers],
        "generated_texts": [answer.text for answer in answers],
        "errors": [answer.error for answer in answers],
        "max_output_tokens_per_s": most,
        "max_concurrent_requests": at_once,
    }
    return counts, values


def row(name: str, value: Any, form: str = "{:<10.2f}") -> None:
    print(f"{name:<40} " + form.format(value))


def show(args: argparse.Namespace, counts: dict[str, Any], values: dict[str, list[float]]) -> dict[str, Any]:
    """Print the table, and return the statistics that are in it."""
    print(f"{' Serving Benchmark Result ':=^50}")
    row("Successful requests:", counts["completed"], "{:<10}")
    row("Failed requests:", counts["failed"], "{:<10}")
    if args.max_concurrency is not None:
        row("Maximum request concurrency:", args.max_concurrency, "{:<10}")
    if args.request_rate != float("inf"):
        row("Request rate configured (RPS):", args.request_rate)
    row("Benchmark duration (s):", counts["duration"])
    row("Total input tokens:", counts["total_input_tokens"], "{:<10}")
    row("Total generated tokens:", counts["total_output_tokens"], "{:<10}")
    row("Request throughput (req/s):", counts["request_throughput"])
    row("Output token throughput (tok/s):", counts["output_throughput"])
    row("Peak output token throughput (tok/s):", counts["max_output_tokens_per_s"])
    row("Peak concurrent requests:", counts["max_concurrent_requests"])
    row("Total token throughput (tok/s):", counts["total_token_throughput"])
    result: dict[str, Any] = {}
    chosen = (args.percentile_metrics or "ttft,tpot,itl").split(",")
    for key, (name, header) in METRICS.items():
        if key not in chosen:
            continue
        print(f"{header:-^50}")
        for word, function in (("mean", mean), ("median", lambda given: percentile(given, 50))):
            result[f"{word}_{key}_ms"] = function(values[key]) * 1000
            row(f"{word.title()} {name} (ms):", result[f"{word}_{key}_ms"])
        result[f"std_{key}_ms"] = deviation(values[key]) * 1000
        for percent in map(float, args.metric_percentiles.split(",")):
            word = str(int(percent)) if percent == int(percent) else str(percent)
            result[f"p{word}_{key}_ms"] = percentile(values[key], percent) * 1000
            row(f"P{word} {name} (ms):", result[f"p{word}_{key}_ms"])
    print("=" * 50)
    return result


class Bench:
    """One run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        base = args.base_url if args.base_url is not None else f"http://{args.host}:{args.port}"
        self.url = base + args.endpoint
        expected = BACKENDS.get(args.backend)
        if expected is None:
            sys.exit(f"vllm bench serve: the simulated one has the backends {', '.join(BACKENDS)}.")
        if not self.url.endswith((expected, "profile")):
            raise ValueError(f"OpenAI API URL must end with one of: {{'{expected}', 'profile'}}.")
        self.headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY')}",
        }
        for item in args.header or ():
            if "=" not in item:
                raise ValueError("Invalid header format. Please use KEY=VALUE format.")
            name, value = item.split("=", 1)
            self.headers[name.strip()] = value.strip()
        sampling = ("top_p", "top_k", "min_p", "temperature", "frequency_penalty", "presence_penalty")
        given = {name: getattr(args, name) for name in (*sampling, "repetition_penalty")}
        self.extra = {name: value for name, value in given.items() if value is not None}
        if "temperature" not in self.extra:
            if RELEASE.bench_is_greedy:
                self.extra["temperature"] = 0.0
            else:
                print(NOT_GREEDY)
        self.extra |= args.extra_body or {}

    def one(self, prompt: Prompt, named: bool = True) -> Answer:
        headers = self.headers | ({"x-request-id": prompt.request_id} if named else {})
        body = payload_of(self.args, prompt, self.extra)
        return ask(self.url, body, headers, prompt, self.args.backend == "openai-chat")

    def wait_ready(self, prompt: Prompt) -> None:
        """The first request, again and again until it succeeds."""
        patience = self.args.ready_check_timeout_sec
        print("Starting initial single prompt test run...")
        if patience <= 0:
            print("Skipping endpoint ready check.")
            return
        print(f"Waiting for endpoint to become up in {patience} seconds", flush=True)
        end = time.perf_counter() + patience
        answer = Answer(0)
        while (left := end - time.perf_counter()) > 0:
            answer = self.one(prompt, named=False)
            if answer.success:
                print("Initial test run completed.")
                return
            time.sleep(min(READY_RETRY, left))
        raise ValueError(
            "Initial test run failed - Please make sure benchmark arguments are correctly specified. "
            f"Error: {answer.error}"
        )

    async def send(self, prompts: list[Prompt], named: bool = True) -> list[Answer]:
        """All requests, each at its time, with a progress bar as tqdm draws it."""
        limit = self.args.max_concurrency or len(prompts)
        loop, done = asyncio.get_running_loop(), 0
        turn = asyncio.Semaphore(limit)
        begun = time.perf_counter()

        def progress() -> None:
            if self.args.disable_tqdm:
                return
            share, seconds = done / len(prompts), int(time.perf_counter() - begun)
            bar = "█" * int(10 * share) + " " * (10 - int(10 * share))
            clock = f"{seconds // 60:02d}:{seconds % 60:02d}"
            print(f"\r{share:4.0%}|{bar}| {done}/{len(prompts)} [{clock}<?, ?it/s]", end="", file=sys.stderr)
            sys.stderr.flush()

        async def run(pool: ThreadPoolExecutor, prompt: Prompt) -> Answer:
            nonlocal done
            async with turn:
                answer = await loop.run_in_executor(pool, self.one, prompt, named)
            done += 1
            progress()
            return answer

        when = delays(self.args) if named else [0.0] * len(prompts)
        with ThreadPoolExecutor(max_workers=min(limit, 512)) as pool:
            progress()
            tasks = []
            for prompt, moment in zip(prompts, when, strict=True):
                wait = begun + moment - time.perf_counter()
                if wait > 0:
                    await asyncio.sleep(wait)
                tasks.append(asyncio.ensure_future(run(pool, prompt)))
            answers = await asyncio.gather(*tasks)
        if not self.args.disable_tqdm:
            print(file=sys.stderr)
        return list(answers)

    def run(self) -> dict[str, Any]:
        args = self.args
        prompts = make_prompts(args)
        self.wait_ready(prompts[0])
        if args.num_warmups > 0:
            print(f"Warming up with {args.num_warmups} requests...")
            asyncio.run(self.send([prompts[0]] * args.num_warmups, named=False))
            print("Warmup run completed.")
        print("Starting main benchmark run...")
        print(f"Traffic request rate: {args.request_rate}")
        print(f"Burstiness factor: {args.burstiness} (Poisson process)")
        print(f"Maximum request concurrency: {args.max_concurrency}", flush=True)
        begun = time.perf_counter()
        answers = asyncio.run(self.send(prompts))
        counts, values = figures(answers, time.perf_counter() - begun)
        if not counts["completed"]:
            warnings.warn(
                "All requests failed. This is likely due to a misconfiguration on the benchmark arguments.",
                stacklevel=2,
            )
        print("tip: install termplotlib and gnuplot to plot the metrics")
        return counts | show(args, counts, values)


DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors")


def save(args: argparse.Namespace, result: dict[str, Any], now: str) -> None:
    """Write the result file."""
    name = args.result_filename
    if name is None:
        at_once = f"-concurrency{args.max_concurrency}" if args.max_concurrency is not None else ""
        model = args.model.split("/")[-1]
        name = f"{args.label or args.backend}-{args.request_rate}qps{at_once}-{model}-{now}.json"
    folder = Path(args.result_dir or ".")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+" if args.append_result else "w", encoding="utf-8") as file:
        if args.append_result and file.tell() != 0:
            file.write("\n")
        json.dump(result, file)


def main(args: argparse.Namespace, check_tokenizer: Callable[[str], None] | None = None) -> None:
    """`vllm bench serve` with parsed arguments."""
    if args.bench_type != "serve":
        sys.exit(f"vllm bench {args.bench_type}: the simulated one has only `vllm bench serve`.")
    print(args, flush=True)
    if args.dataset_name != "random":
        sys.exit("vllm bench serve: the simulated one has only --dataset-name random.")
    if args.model is None:
        args.served_model_name, args.model = first_model(args)
    (check_tokenizer or find_tokenizer)(args.tokenizer or args.model)
    args.ignore_eos = True
    for general in ("input_len", "output_len"):
        if getattr(args, general, None) is not None:
            setattr(args, f"random_{general}", getattr(args, general))
    metadata = {}
    for item in args.metadata or ():
        if "=" not in item:
            raise ValueError("Invalid metadata format. Please use KEY=VALUE format.")
        name, value = item.split("=", 1)
        metadata[name.strip()] = value.strip()
    measured = Bench(args).run()
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    result = {
        "date": now,
        "endpoint_type": args.backend,
        "backend": args.backend,
        "label": args.label,
        "model_id": args.model,
        "tokenizer_id": args.tokenizer or args.model,
        "num_prompts": args.num_prompts,
        **metadata,
        "request_rate": args.request_rate if args.request_rate < float("inf") else "inf",
        "burstiness": args.burstiness,
        "max_concurrency": args.max_concurrency,
        **measured,
    }
    if not args.save_detailed:
        result = {key: value for key, value in result.items() if key not in DETAILS}
    if args.save_result or args.append_result:
        save(args, result, now)


def first_model(args: argparse.Namespace) -> tuple[str, str]:
    """Name and path of the first model that the server lists: from 0.18.0 on, where no model is named."""
    url = f"{args.base_url or f'http://{args.host}:{args.port}'}/v1/models"
    print("Model not specified, fetching first model from server...")
    try:
        with urllib.request.urlopen(url) as response:
            first = json.load(response)["data"][0]
    except (OSError, ValueError, LookupError) as error:
        raise RuntimeError(f"Failed to fetch models from server at {url}. Error: {error}") from error
    return first["id"], first["root"]


def find_tokenizer(name: str) -> None:
    """The tokenizer must lie on the disk: nothing is downloaded here."""
    folder = Path(name)
    if not any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        raise OSError(
            f"Can't load tokenizer for '{name}'. If you were trying to load it from the hub, make sure you "
            "don't have a local directory with the same name. Otherwise, make sure it is the correct path to "
            "a directory containing all relevant files for a tokenizer."
        )
