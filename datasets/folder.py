"""Any folder of class folders: one's own images, or a data set that has no loader of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fer_bench import DataError, Dataset, DatasetCard, Param, Reading, SpecError

from ._folder.own_classes import OwnClasses, look_alikes, nested_folders, own_classes, split_by_names
from ._shared.folders import subfolders
from ._shared.images import Row, reading
from ._shared.parameters import ANY_IMAGE_PARAMS
from ._shared.protocols import GIVEN, HOLDOUT10, RANDOM60_20_20, SUBJECT10
from ._shared.search import contents, find_layout
from ._shared.tables import class_list
from ._shared.tree import SPLITS, ImageTree, TreeImage, find_image_tree, labelled, natural

card = DatasetCard(
    name="folder",
    title="A folder of class folders, with any class names",
    classes=(),
    layouts={
        "splits": "train|val|test/<class>/<image>, or <class>_train|<class>_val|<class>_test/<image>",
        "classes": "<class>/<image>, without a split",
    },
    protocols=(
        GIVEN,
        HOLDOUT10,
        RANDOM60_20_20,
        replace(SUBJECT10, title=f"{SUBJECT10.title} (needs the parameter subject)"),
    ),
    licence="whatever the images' owners permit",
    get=(
        "put train/, val/ and test/ with one folder for each class into data/raw/folder, or class folders alone;"
        " then: fer-bench data prepare folder (or folder:NAME, to keep several)"
    ),
    params={
        **ANY_IMAGE_PARAMS,
        "classes": Param("", "class names for folders that are numbers, in order, separated by commas"),
        "nested": Param(False, "also take images from folders inside the class folders"),
        "subject": Param("", "regular expression whose first group, searched in the file name, is the subject"),
    },
    image="as found",
)


class Folder(Dataset):
    """Reads class folders; the class names are those of the folders, in order of name (of number, if all are)."""

    card = card

    def read(self, source: Path | None) -> Reading:
        """Recognise the tree in `source` or at most two folders below it.

        Raises
        ------
        SpecError
            The parameter `subject` is no regular expression with a group.
        """
        self._subject_pattern()
        return find_layout(self, source, self._fits)

    def _fits(self, where: Path, seen: list[str]) -> list[Reading]:
        tree = find_image_tree(where, nested=self.params["nested"]) if where.is_dir() else None
        if tree is None:
            if where.is_dir() and len(nested := nested_folders(where)) > 1:
                raise self._too_deep(where, nested)
            return []
        if not tree.images and (deeper := [folder for _, folder in tree.folders if subfolders(folder)]):
            raise self._too_deep(where, deeper)
        tree = split_by_names(tree)
        own = own_classes(tree, class_list(self.params["classes"], f"{self.card.name}[classes]"))
        if len(own.classes) < 2:
            seen.append(f"{contents(where)}: a single class, {own.classes[0]}")
            return []
        images, faults = labelled(tree, own)
        rows = []
        for image, label in images:
            subject = self._subject(image)
            if subject is None:
                faults.append((image.path, f"no subject in the file name: '{self.params['subject']}' does not fit"))
            else:
                split = image.split or "all"
                rows.append(Row(file=image.path, name=image.relative, label=label, split=split, subject=subject))
        rows.sort(key=lambda r: (("all", *SPLITS).index(r.split), r.label, natural(r.name)))
        layout = "splits" if any(split for split, _ in tree.folders) else "classes"
        read = reading(self, layout, _summary(tree, own), rows, faults=faults, classes=own.classes)
        return [replace(read, labels=own.by_folder)]

    def _too_deep(self, where: Path, nested: Sequence[Path]) -> DataError:
        """The error for ``<class>/<sub>/<image>``: it can't be told which of the two folders is the class."""
        outer = ", ".join(dict.fromkeys(f"{folder.name}/" for folder in nested[:4]))
        inner = subfolders(nested[0])[0].name
        return DataError(
            f"the images lie one folder deeper than <class>/<image>: {nested[0].name}/{inner}/<image>",
            where=str(where),
            hint=f"if {outer} are the classes, take what lies below them too, as the command below does;"
            f" if {inner}/ is a class, name the folder that holds the classes: --from {nested[0]}",
            next=self.command("prepare", where, nested=True),
        )

    def _subject_pattern(self) -> re.Pattern[str] | None:
        text = self.params["subject"]
        if not text:
            return None
        where, hint = f"{self.card.name}[subject={text}]", r"for instance ^(S\d+)_ for files like S005_001.png"
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise SpecError(f"subject is no regular expression: {error}", where=where, hint=hint) from error
        if not pattern.groups:
            raise SpecError("subject has no group, so nothing tells the subject", where=where, hint=hint)
        return pattern

    def _subject(self, image: TreeImage) -> str | None:
        """The subject of an image: "" where no pattern is given, None where it does not fit."""
        pattern = self._subject_pattern()
        if pattern is None:
            return ""
        match = pattern.search(image.path.name)
        return (match[1] or None) if match else None


def _summary(tree: ImageTree, own: OwnClasses) -> str:
    """One line: root, splits, how names were understood, and which class is missing in which split."""
    splits = list(dict.fromkeys(split for split, _ in tree.folders if split))
    if tree.splits:
        parts = ", ".join(f"{folder.name}/ is {split}" for split, folder in tree.splits.items())
        summary = f"{tree.root}: class folders, split by folder ({parts})"
    else:
        summary = f"{tree.root}: class folders{'' if splits else ' without a split'}"
    numbers = "number" if all(name.isdecimal() for name in own.by_folder) else "name"
    summary += "; ".join(["", *own.notes])
    summary += f"; {len(own.classes)} classes in order of folder {numbers}: {', '.join(own.classes)}" * (not own.notes)
    spellings = [name for name, known in own.by_folder.items() if name != known and name.lower() == known.lower()]
    if spellings:
        summary += f"; {', '.join(spellings)} differ in case alone and count as one class"
    for split in splits:
        here = {own.by_folder.get(image.folder) for image in tree.images if image.split == split}
        missing = [name for name in own.classes if name not in here]
        if missing:
            summary += f"; {split} has NO {', '.join(missing)}"
    for one, other in look_alikes(tree, own):
        summary += f"; WARNING: is '{one}' the same class as '{other}'? they share no split, so one may be misspelt"
    return summary
