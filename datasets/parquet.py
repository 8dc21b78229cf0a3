"""Image sets in Parquet files, as the Hugging Face hub keeps them; nothing is assumed of the classes' order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from fer_bench import DataError, Dataset, DatasetCard, Param, Reading

from ._parquet.names import agreed_names
from ._parquet.rows import UNLABELLED, Scan, pixel_chunks, scan_rows
from ._parquet.shards import WHOLE, Shard, open_shard, shard_faults, shard_files
from ._shared.folders import entries
from ._shared.images import fit_of, survey_of, treated_summary
from ._shared.parameters import ANY_IMAGE_PARAMS
from ._shared.protocols import GIVEN, HOLDOUT10, RANDOM60_20_20
from ._shared.search import find_layout
from ._shared.tables import Labels, Unclear, class_list, understand

card = DatasetCard(
    name="parquet",
    title="Images in Parquet files (Hugging Face)",
    classes=(),
    layouts={
        "files": "train-00000-of-00001.parquet, test-... (or one folder a split, or one file), each row an image"
        " (bytes, or a struct with bytes) and a label",
    },
    protocols=(
        replace(GIVEN, unlabelled="drop"),
        replace(HOLDOUT10, unlabelled="drop"),
        replace(RANDOM60_20_20, unlabelled="drop"),
    ),
    get=(
        "download the set's repository from the hub (parquet files and README.md, which may hold the class names)"
        " into data/raw/parquet, then: fer-bench data prepare parquet"
    ),
    params={
        "classes": Param("", "class names in label order, separated by commas, where the files do not tell them"),
        "label_column": Param("", "column of the labels; empty: by the metadata, or by the names people use"),
        "only_size": Param(
            0, "take only images of this side (some RAF-DB copies mix sizes); 0: all", low=8, high=2048, special=(0,)
        ),
        **ANY_IMAGE_PARAMS,
    },
    image="any size; 0 keeps the largest",
)

PICKLES = (".pt", ".pth", ".pkl", ".pickle")


class Parquet(Dataset):
    """Two passes over the files: headers and labels first, so that shape and classes are known; then pixels."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise Parquet files in `source` or at most two folders below it."""
        root = Path(source or ".")
        root = root if root.is_dir() else root.parent
        return find_layout(self, source, lambda where, seen: self._fits(where, root, seen))

    def _fits(self, where: Path, root: Path, seen: list[str]) -> list[Reading]:
        paths = [where] if where.is_file() else entries(where)
        pickles = [path.name for path in paths if path.suffix.lower() in PICKLES]
        seen += [f"{name} (a pickle: not read, because loading one runs the code it names)" for name in pickles]
        files = shard_files(where)
        if WHOLE in files.values() and len(set(files.values())) > 1:
            listed = "\n         ".join(f"{path}: {'no split' if s == WHOLE else s}" for path, s in files.items())
            raise DataError("some files name their split and some do not", where=listed, hint="name one: --from FILE")
        shards = []
        for path, split in files.items():
            try:
                shards.append(open_shard(path, split, self.params["label_column"]))
            except Unclear as reason:
                raise DataError(f"a parquet file can't be used: {reason}", where=str(path)) from None
        if len({(shard.label, shard.numbers) for shard in shards}) > 1:
            kinds = {s.path.name: f"{s.label}, {'numbers' if s.numbers else 'texts'}" for s in shards}
            listed = "\n         ".join(f"{name}: {kind}" for name, kind in kinds.items())
            raise DataError("the files keep their labels differently", where=listed, hint="name one: --from FILE")
        return [self._reading(where, shards, root)] if shards else []

    def _reading(self, where: Path, shards: list[Shard], root: Path) -> Reading:
        tellers, names = agreed_names({shard.path: shard.names for shard in shards}, shards[0].label, root)
        scan = scan_rows(shards, self.params["only_size"])
        scan.faults += [(path, None, reason) for path, reason in shard_faults({s.path: s.split for s in shards})]
        labels = self._labels(where, shards[0], scan, names)
        if not scan.headers:
            why = f"{scan.faults[0][0]}: {scan.faults[0][2]}" if scan.faults else "no rows, or none of that size"
            raise DataError("parquet: not one readable image", where=f"{where}\n         {why}")
        fit = fit_of(scan.headers, self.params)
        summary = [f"{where}: {len(shards)} files, images in {shards[0].image}, labels in {shards[0].label}"]
        sizes = Counter(shard.split for shard in shards for _ in scan.rows[shard.path])
        summary += [", ".join(f"{size} {split}" for split, size in sizes.items()), labels.summary]
        summary += [f"{scan.other_size} images of another size left out"] if scan.other_size else []
        blank = labels.missing_summary(scan.labels[path][k] for path, rows in scan.rows.items() for k in rows)
        summary += [blank] if blank else []
        if len({(h.width, h.height) for h in scan.headers} | {(fit.width, fit.height)}) > 1:
            summary += [f"images of several sizes or shapes are brought to {fit.width}x{fit.height} ({fit.how})"]
        return Reading(
            layout="files",
            summary="; ".join(summary) + treated_summary(scan.headers),
            files=list(dict.fromkeys([*(shard.path for shard in shards), *tellers])),
            chunks=lambda: pixel_chunks(shards, scan, labels, fit, root, self.problems()),
            classes=labels.classes,
            labels=labels.read_as,
            shape=(len(scan.headers), fit.channels, fit.height, fit.width),
            survey=survey_of(scan.headers),
        )

    def _labels(self, where: Path, shard: Shard, scan: Scan, names: tuple[str, ...]) -> Labels:
        """Which label is which class; raises DataError where numbers have no names, or two orders of them."""
        given = class_list(self.params["classes"], "parquet[classes]")
        texts = {text for column in scan.labels.values() for text in column} - {UNLABELLED}
        if names and given and given != names:
            message = f"the files tell: {', '.join(names)}"
            raise DataError("the parameter classes contradicts the files", where=str(where), hint=message)
        if shard.numbers and not names and not given:
            raise DataError(
                "the labels are numbers, and nothing tells what they mean",
                where=f"{where}: column {shard.label}, values {', '.join(sorted(filter(None, texts))[:12])}",
                hint="the README.md of the set's repository may hold the names: put it beside the files",
                next="fer-bench data prepare parquet --from PATH --dataset-set classes=NAME,NAME,...",
            )
        if shard.numbers and names:
            positions = {"": -1, **{str(k): k for k in range(len(names))}}
            labels = Labels(
                classes=names, positions=positions, summary=f"the files tell the classes: {', '.join(names)}"
            )
        else:
            labels = understand(texts, names or given)
        if texts and not labels.classes:
            raise DataError("not one row has a label", where=f"{where}: column {shard.label}")
        return replace(labels, positions={**labels.positions, UNLABELLED: -1})
