"""From a data set's name to its card or store. An unknown name may refer to a person's own images."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from fer_bench.base.credentials import command_line
from fer_bench.base.files import read_json
from fer_bench.contract.cards import DatasetCard
from fer_bench.contract.dataset import Dataset
from fer_bench.contract.plugins import Plugins
from fer_bench.data.store import Store, naming_plugins
from fer_bench.errors import ChangedStoreError, FerBenchError, StoreError, UnknownNameError
from fer_bench.record.home import Home


def dataset_card(
    plugins: Plugins, name: str, home: Home, source: str | Path | None = None, typed: Sequence[str] = ()
) -> DatasetCard:
    """Like :meth:`Plugins.dataset_card`, but the error for an unknown name explains how to use one's own images.

    Parameters
    ----------
    source : path, optional
        Where the images are, if given.
    typed : sequence of str
        The words of the command line, to be repeated with the right name.

    Raises
    ------
    UnknownNameError
        There is no such data set.
    """
    try:
        return plugins.dataset_card(name)
    except UnknownNameError as error:
        if not re.fullmatch(r"[\w.-]*\w", name, re.ASCII):
            raise
        raise _explained(error, plugins, name, home, source, typed) from None


def open_prepared(
    plugins: Plugins, name: str, home: Home, typed: Sequence[str] = ()
) -> tuple[Store, DatasetCard | None]:
    """The prepared store of a data set, and its card if its plug-in is known.

    Raises
    ------
    UnknownNameError, StoreError
        There is no usable store; the error says what to type.
    """
    try:
        store = Store.open(home.store(name))
    except ChangedStoreError as error:
        raise naming_plugins(error, plugins.folders) from None
    except StoreError as error:
        dataset_card(plugins, name, home, typed=typed)
        dataset = plugins.dataset(name)
        dataset.options = home.options
        source = None if dataset.card.built_in or home.raw(name).exists() else "PATH"
        again = dataset.command("prepare", source)
        raise StoreError(error.what, where=error.where, hint=error.hint, next=again) from None
    with contextlib.suppress(UnknownNameError):
        return store, plugins.dataset_card(name)
    return store, None


def _explained(
    error: UnknownNameError, plugins: Plugins, name: str, home: Home, source: str | Path | None, typed: Sequence[str]
) -> UnknownNameError:
    """The error, with the prepared store, the folder or the command that was probably meant."""
    readers = sorted(n for n, plugin in plugins.datasets.items() if not getattr(plugin.card, "classes", ()))
    stores = _prepared(home)
    for known in (f"{reader}:{name}" for reader in readers):
        if known in stores:
            hint = f"it was prepared under the name '{known}'"
            return UnknownNameError(error.what, hint=hint, next=_typed_again(typed, name, known))
    places = [Path(source).expanduser()] if source is not None else [home.raw(name), Path(name)]
    place = next((p for p in places if p.exists()), None)
    if place is not None:
        again = _how_to_read(readers, plugins, name, place, home)
        hint = f"{place} can be read as your own images; their name then has a colon, as in the command below"
        return UnknownNameError(error.what, hint=hint, next=again)
    hint = f"{error.hint}\n         to use your own images, prepare them first under a name with a colon:"
    hint += f" folder:{name} for class folders, csv:{name} for images with a table"
    close = (error.hint or "").startswith("did you mean")
    again = "fer-bench list datasets" if close else _own(plugins, f"folder:{name}", home).command("prepare", "PATH")
    return UnknownNameError(error.what, hint=hint, next=again)


def _typed_again(typed: Sequence[str], name: str, known: str) -> str:
    """The command line with another name for the data set."""
    instead = {name: known, f"--dataset={name}": f"--dataset={known}"}
    words = [instead.get(word, word) for word in typed]
    return command_line(words) if words != list(typed) else shlex.join(["fer-bench", "data", "stats", known])


def _prepared(home: Home) -> set[str]:
    """Names of the data sets with a store in the home."""
    names = set()
    for path in home.data.glob("*/manifest.json"):
        try:
            names.add(str(read_json(path).get("dataset")))
        except (OSError, ValueError, AttributeError):
            continue
    return names


def _how_to_read(readers: Sequence[str], plugins: Plugins, name: str, place: Path, home: Home) -> str:
    """The command that prepares the files at a place, by the reader that recognises them or says how it could."""
    advice = ""
    for reader in readers:
        dataset = _own(plugins, f"{reader}:{name}", home)
        try:
            dataset.read(place)
        except FerBenchError as error:
            known = error.next or ""
            advice = advice or (known if "--dataset-set" in known and "NAME" not in known else "")
            continue
        return dataset.command("prepare", place)
    return advice or _own(plugins, f"folder:{name}", home).command("prepare", place)


def _own(plugins: Plugins, name: str, home: Home) -> Dataset:
    dataset = plugins.dataset(name)
    dataset.options = home.options
    return dataset
