"""A model small enough to fit in a table: answers some common questions, echoes the rest. Deterministic at
any temperature."""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

VOCABULARY = 129280
CAPITALS = {
    "france": "Paris",
    "germany": "Berlin",
    "italy": "Rome",
    "spain": "Madrid",
    "portugal": "Lisbon",
    "china": "Beijing",
    "japan": "Tokyo",
    "india": "New Delhi",
    "england": "London",
    "the united kingdom": "London",
    "the united states": "Washington, D.C.",
    "austria": "Vienna",
    "switzerland": "Bern",
    "poland": "Warsaw",
    "greece": "Athens",
    "egypt": "Cairo",
    "canada": "Ottawa",
    "australia": "Canberra",
    "brazil": "Brasília",
}
_COUNTRY = "|".join(sorted(CAPITALS, key=len, reverse=True))
_TOKEN = re.compile(r"\s?\w+|\s?[^\w\s]+|\s+")
_OVERFLOW = "!"
"""What float16 weights of DeepSeek come to: activations overflow to NaN, and the sampler takes token 0."""


def tokenize(text: str) -> list[str]:
    """Words with the blank before them, punctuation, leftover blanks: about what a real tokenizer makes of
    English."""
    return _TOKEN.findall(text)


def token_id(token: str) -> int:
    return int.from_bytes(hashlib.sha256(token.encode()).digest()[:4], "little") % VOCABULARY


def digest(text: str) -> str:
    """What stands for the content of the KV blocks of a prompt."""
    return hashlib.sha256(text.encode()).hexdigest()


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6g}"


_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "plus": operator.add,
    "-": operator.sub,
    "minus": operator.sub,
    "*": operator.mul,
    "x": operator.mul,
    "×": operator.mul,
    "times": operator.mul,
    "/": lambda a, b: a / b if b else 0.0,
}


def _known(text: str) -> str | None:
    """The short answer, where the table has one."""
    lower = text.lower()
    if found := re.search(rf"capital(?: city)? of ({_COUNTRY})\b", lower):
        return CAPITALS[found[1]]
    if found := re.search(r"(-?\d+(?:\.\d+)?)\s*(\+|-|\*|x|×|/|plus|minus|times)\s*(-?\d+(?:\.\d+)?)", lower):
        return _number(_OPERATIONS[found[2]](float(found[1]), float(found[3])))
    if re.search(r"colou?r of the sky|sky is$|is the sky\b", lower):
        return "blue"
    if re.search(r"who are you|your name", lower):
        return "DeepSeek-V3.1, as far as a simulator can be"
    return None


def complete(prompt: str) -> list[str]:
    """The tokens that follow a prompt."""
    known = _known(prompt)
    if known is not None:
        end = "." if prompt.rstrip().endswith("?") else ", and has been for a long time."
        return tokenize(f" {known}{end}")
    words = prompt.split()
    last = " ".join(words[-8:])
    return tokenize(
        f" … {last}: that is where the prompt ends, and where the simulated model begins to repeat it."
    )


def chat(messages: list[Any]) -> list[str]:
    """The tokens of the assistant's answer."""
    question = ""
    for message in messages:
        if message.get("role") == "user":
            question = message_text(message)
    lower = question.lower()
    if found := re.search(rf"capital(?: city)? of ({_COUNTRY})\b", lower):
        country = "China" if found[1] == "china" else found[1].title().replace("The ", "the ")
        return tokenize(f"The capital of {country} is {CAPITALS[found[1]]}.")
    known = _known(question)
    if known is not None:
        return tokenize(f"The answer is {known}.")
    if re.match(r"\s*(hi|hello|hey|good (morning|evening|day))\b", lower):
        return tokenize("Hello! How can I help you today?")
    return tokenize(f"You asked: “{question.strip()[:200]}”. I am a simulated model and can only repeat it.")


def message_text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def chat_prompt(messages: list[Any]) -> str:
    """The chat template: one string for the prompt."""
    return (
        "".join(f"<｜{message.get('role')}｜>{message_text(message)}" for message in messages)
        + "<｜assistant｜>"
    )


def overflowed() -> Iterator[str]:
    while True:
        yield _OVERFLOW


def spoiled(right: list[str]) -> Iterator[str]:
    """What comes of KV blocks that are not those of the prompt: the first token is wrong, then it repeats
    itself."""
    options = (" ans", " Lans", " viel", " ok")
    wrong = options[token_id("".join(right)) % len(options)]
    yield wrong
    while True:
        yield from (" the", wrong)


def endless(tokens: list[str]) -> Iterator[str]:
    """Past the end of the answer, for requests that ignore it."""
    while True:
        yield from tokens
