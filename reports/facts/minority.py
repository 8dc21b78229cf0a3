"""Gains on the minority classes, judged together: each tail class, the tail and the head.

The tail and the head are those of the classes by training images
(:func:`fer_bench.stats.class_groups.head_middle_tail`). All gains looked at are one family for Holm's correction.
"""

from __future__ import annotations

from fer_bench.reports.facts.numbers import Judgement, Numbers, group_key, judge, recall_key

HEAD, TAIL = group_key("head"), group_key("tail")


def tail_keys(numbers: Numbers) -> list[str]:
    """Keys of the gains that are judged together: every tail class (the rarest first), the tail and the head."""
    classes = [recall_key(numbers.study.classes[i]) for i in reversed(numbers.groups.members["tail"])]
    return [*classes, TAIL, HEAD]


def judge_tail(numbers: Numbers) -> dict[str, dict[str, Judgement]]:
    """The judgements of these gains, by method and key."""
    return judge(numbers.study, numbers.methods, tail_keys(numbers))
