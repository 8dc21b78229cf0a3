"""Protocols that several data sets share, mostly those that users bring: a table, a folder or Parquet files."""

from __future__ import annotations

from fer_bench import Protocol

GIVEN = Protocol(
    name="given",
    train=("train",),
    val=("val",),
    test=("test",),
    title="the source's own split: train on train, select on val, report test",
)
HOLDOUT10 = Protocol(
    name="holdout10",
    train=("train",),
    test=("test",),
    holdout=0.1,
    title="a stratified 10 % of train selects; test is reported",
)
RANDOM60_20_20 = Protocol(
    name="random60-20-20",
    scheme="shuffle",
    shares=(0.6, 0.2, 0.2),
    title="all images pooled and divided at random, stratified by class",
)
SUBJECT10 = Protocol(
    name="subject10",
    scheme="kfold",
    folds=10,
    group="subject",
    title="ten subject-disjoint folds; the next fold selects",
)
