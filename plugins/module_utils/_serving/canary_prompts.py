# Copyright: the ascend.pd_rollout authors
# SPDX-License-Identifier: Apache-2.0
"""The canary's own prompts, which any model continues in the same way."""

from __future__ import annotations

# More than 128 tokens, each with a comma: at v0.13.0 the size of a block (A@v0.13.0:vllm_ascend/utils.py,
# refresh_block_size).
WORDS = (
    "amber, birch, candle, dragon, eagle, falcon, garden, hammer, island, jacket, kettle, ladder, "
    "marble, needle, orange, pencil, quarry, ribbon, saddle, tiger, umbrella, velvet, window, yellow, "
    "zebra, anchor, basket, carpet, desert, engine, forest, guitar, harbor, insect, jungle, kitchen, "
    "lemon, mirror, notebook, ocean, parrot, rabbit, silver, tunnel, valley, walnut, acorn, bridge, "
    "copper, diamond, elbow, feather, glacier, helmet, ivory, jewel, lantern, meadow, nutmeg, oyster, "
    "pepper, rocket, shadow, timber, violin, whistle, barrel, cotton, dolphin, emerald, fountain"
)

PROMPTS = (
    "The capital of France is",
    "Counting: one, two, three, four, five,",
    # Its continuation is in the first block alone, so a decoder that lacks that block cannot know it.
    f"A list: {WORDS}.\nThe same list again: {WORDS[: WORDS.index(' eagle')]}",
)
