"""The same table as pandas, R, Excel and people save it: every reader of tables gives the same store for each form."""

import bz2
import gzip
import lzma
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench import DataError, Dataset
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.datasets._shared.tables import is_missing, meant, read_table, row_numbers, whole, without_numbers
from fer_bench.datasets._shared.text import decoded, packed_in, printable, script_of, tables_in, unpacked
from fer_bench.datasets.ckplus import CkPlus
from fer_bench.datasets.csv import Csv
from fer_bench.datasets.expw import ExpW
from fer_bench.datasets.fer2013 import Fer2013
from fer_bench.datasets.ferplus import Ferplus
from fer_bench.datasets.muxspace import Muxspace
from fer_bench.datasets.rafdb import RafDb
from fer_bench.record.home import Home

Rows = list[list[str]]
USAGES = ["Training"] * 6 + ["PublicTest"] * 3 + ["PrivateTest"] * 3
FACES = np.random.default_rng(4).integers(0, 256, (len(USAGES), 48, 48), dtype=np.uint8)
VOTES = ["10 0 0 0 0 0 0 0 0 0", "0 0 0 8 2 0 0 0 0 0", "1 1 1 5 1 0 0 0 1 0"]


def pixels(k: int) -> str:
    return " ".join(map(str, FACES[k].ravel()))


def pictures(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for k, name in enumerate(names):
        Image.fromarray(FACES[k]).save(folder / name, "PNG")  # lossless; readers go by content


# --- one table for each reader: its rows with a header, its name, and what lies beside it


def fer2013(raw: Path) -> tuple[Rows, str]:
    rows = [[str(k % 7), pixels(k), usage] for k, usage in enumerate(USAGES)]
    return [["emotion", "pixels", "Usage"], *rows], "fer2013.csv"


def icml(raw: Path) -> tuple[Rows, str]:
    rows, _ = fer2013(raw)
    return [[a, c, b] for a, b, c in rows], "icml_face_data.csv"


def ckextended(raw: Path) -> tuple[Rows, str]:
    rows = [[str(k % 8), pixels(k), usage] for k, usage in enumerate(USAGES)]
    return [["emotion", "pixels", "Usage"], *rows], "ckextended.csv"


def votes(raw: Path) -> tuple[Rows, str]:
    (raw / "fer2013").mkdir(parents=True)
    rows, name = fer2013(raw)
    (raw / "fer2013" / name).write_text("\n".join(map(",".join, rows)))
    names = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"]
    lines = [[usage, f"fer{k:07d}.png", *VOTES[k % 3].split()] for k, usage in enumerate(USAGES)]
    return [["Usage", "Image name", *names], *lines], "fer2013new.csv"


def named(raw: Path) -> tuple[Rows, str]:
    pictures(raw / "images", [f"{k}.png" for k in range(12)])
    rows = [[f"{k}.png", ["happy", "sad", "fear"][k % 3], ("train", "val", "test")[k // 4]] for k in range(12)]
    return [["image", "label", "split"], *rows], "labels.csv"


def numbered(raw: Path) -> tuple[Rows, str]:
    pictures(raw / "images", [f"{k}.png" for k in range(12)])
    return [["file", "anything"], *([f"{k}.png", str(k % 3)] for k in range(12))], "labels.csv"


def legend(raw: Path) -> tuple[Rows, str]:
    pictures(raw / "images", [f"p_{k}.jpg" for k in range(6)])
    rows = [["jd", f"p_{k}.jpg", ("anger", "NEUTRAL", "fear")[k % 3]] for k in range(6)]
    return [["user.id", "image", "emotion"], *rows], "legend.csv"


def raf(raw: Path) -> tuple[Rows, str]:
    names = [f"train_{k:05d}_aligned.jpg" for k in range(1, 8)] + [f"test_{k:04d}_aligned.jpg" for k in range(1, 4)]
    pictures(raw / "Image", names)
    return [["image", "label"], *([name, str(k % 7 + 1)] for k, name in enumerate(names))], "list.txt"


def boxes(raw: Path) -> tuple[Rows, str]:
    pictures(raw / "origin", [f"a_{k}.jpg" for k in range(4)])
    header = ["image_name", "face_id", "top", "left", "right", "bottom", "confidence", "label"]
    return [header, *([f"a_{k}.jpg", "0", "4", "2", "34", "36", "9.5", str(k)] for k in range(4))], "label.lst"


WORLDS: dict[str, tuple[type[Dataset], Callable]] = {
    "fer2013": (Fer2013, fer2013),
    "icml": (Fer2013, icml),
    "ckplus": (CkPlus, ckextended),
    "ferplus": (Ferplus, votes),
    "csv, names": (Csv, named),
    "csv, numbers": (Csv, numbered),
    "muxspace": (Muxspace, legend),
    "rafdb": (RafDb, raf),
    "expw": (ExpW, boxes),
}


# --- the forms


def joined(rows: Rows, delimiter: str = ",", end: str = "\n", quote: str = "") -> str:
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) + end for row in rows)


def with_index(rows: Rows, name: str) -> Rows:
    return [[name, *rows[0]], *([str(k), *row] for k, row in enumerate(rows[1:]))]


def floats(rows: Rows) -> Rows:
    """As pandas writes columns of whole numbers in which a value was missing once."""
    last = [f"{cell}.0" if cell.isdecimal() else cell for cell in (row[-1] for row in rows[1:])]
    first = [f"{row[0]}.0" if row[0].isdecimal() else row[0] for row in rows[1:]]
    changed = [[a, *row[1:-1], z] for a, row, z in zip(first, rows[1:], last, strict=True)]
    return [rows[0], *changed]


def lower(rows: Rows) -> Rows:
    usages = {"Training": "training", "PublicTest": "publictest", "PrivateTest": "PRIVATETEST"}
    return [rows[0], *([usages.get(cell, cell) for cell in row] for row in rows[1:])]


FORMS: dict[str, Callable[[Rows], bytes]] = {
    "pandas' index": lambda rows: joined(with_index(rows, "")).encode(),
    "pandas' index twice": lambda rows: joined(with_index(with_index(rows, "Unnamed: 0"), "")).encode(),
    "index": lambda rows: joined(with_index(rows, "index")).encode(),
    "3.0": lambda rows: joined(floats(rows)).encode(),
    "small letters": lambda rows: joined(lower(rows)).encode(),
    "semicolons": lambda rows: joined(rows, ";").encode(),
    "tabs": lambda rows: joined(rows, "\t").encode(),
    "quotes": lambda rows: joined(rows, quote='"').encode(),
    "UTF-16": lambda rows: joined(rows, "\t", "\r\n").encode("utf-16"),  # Excel's "Unicode text"
    "UTF-16, big end first": lambda rows: joined(rows).encode("utf-16-be"),
    "UTF-16 without a mark": lambda rows: joined(rows).encode("utf-16-le"),
    "UTF-8 with a mark": lambda rows: joined(rows).encode("utf-8-sig"),
    "CR": lambda rows: joined(rows, end="\r").encode(),
    "CR in UTF-16": lambda rows: joined(rows, end="\r").encode("utf-16"),
    "CR LF": lambda rows: joined(rows, end="\r\n").encode(),
    "all at once": lambda rows: joined(with_index(floats(lower(rows)), ""), ";", "\r", '"').encode("utf-16"),
}


def prepared(source: Path, home: Path, dataset: Dataset) -> tuple[Store, str]:
    said: list[str] = []
    store = prepare(Home(home), dataset, source, say=said.append)
    return store, "\n".join(said)


def written(raw: Path, world: Callable, form: Callable[[Rows], bytes], name: str = "") -> Path:
    rows, usual = world(raw)
    raw.mkdir(exist_ok=True)
    (raw / (name or usual)).write_bytes(form(rows))
    return raw


def plain(rows: Rows) -> bytes:
    return joined(rows).encode()


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_every_form_of_a_table_gives_the_same_store(tmp_path, world):
    kind, write = WORLDS[world]
    expected, _ = prepared(written(tmp_path / "plain", write, plain), tmp_path, kind())
    for k, (form, make) in enumerate(FORMS.items()):
        store, _ = prepared(written(tmp_path / f"raw{k}", write, make), tmp_path / f"home{k}", kind())
        assert store.fingerprint == expected.fingerprint, form
        assert store.column_names == expected.column_names
        names = store.columns("source")["source"].tolist()
        assert names == expected.columns("source")["source"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("ending", [".tsv", ".CSV", ".txt", ""])
def test_a_table_is_found_with_any_ending(tmp_path, world, ending):
    kind, write = WORLDS[world]
    expected, _ = prepared(written(tmp_path / "plain", write, plain), tmp_path, kind())
    name = "legend" if world == "muxspace" else "table"
    store, _ = prepared(written(tmp_path / "raw", write, plain, f"{name}{ending}"), tmp_path / "home", kind())
    assert store.fingerprint == expected.fingerprint


@pytest.mark.slow
def test_the_three_tables_and_the_pair_of_fer2013_have_every_form_too(tmp_path):
    prints = set()
    for k, make in enumerate((plain, *FORMS.values())):
        raw = tmp_path / f"raw{k}"
        raw.mkdir()
        rows, _ = fer2013(raw)
        for name, usage in (("train", "Training"), ("val", "PublicTest"), ("test", "PrivateTest")):
            (raw / f"{name}.csv").write_bytes(make([["emotion", "pixels"], *(r[:2] for r in rows if r[2] == usage)]))
        prints.add(prepared(raw, tmp_path / f"home{k}", Fer2013())[0].fingerprint)
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("delimiter", "encoding", "end"), [(";", "utf-8", "\n"), ("\t", "utf-16", "\r\n"), (",", "utf-8-sig", "\r")]
)
def test_the_label_lists_of_ferplus_have_every_form_too(tmp_path, delimiter, encoding, end):
    def store(raw: Path, delimiter: str, encoding: str, end: str, ending: str) -> Store:
        for place, start in (("FER2013Train", 0), ("FER2013Valid", 3), ("FER2013Test", 6)):
            names = [f"fer{start + n:07d}.png" for n in range(3)]
            pictures(raw / place, names)
            rows = [[name, '"(0, 0, 48, 48)"', *VOTES[n].split()] for n, name in enumerate(names)]
            (raw / place / f"label{ending}").write_bytes(joined(rows, delimiter, end).encode(encoding))
        return prepared(raw, raw.with_suffix(".home"), Ferplus())[0]

    expected = store(tmp_path / "plain", ",", "utf-8", "\n", ".csv")
    assert store(tmp_path / "raw", delimiter, encoding, end, ".txt").fingerprint == expected.fingerprint


def test_what_is_unusual_of_a_pixel_table_is_said(tmp_path):
    def form(rows: Rows) -> bytes:
        return joined([[*row, "x"] for row in rows], ";", "\r").encode("utf-16")

    raw = written(tmp_path / "raw", fer2013, form)
    _, said = prepared(raw, tmp_path, Fer2013())
    told = "columns emotion, pixels, usage (x left unread); written with UTF-16, lines that end with CR, ';'"
    assert told in said
    _, said = prepared(written(tmp_path / "plain", fer2013, plain), tmp_path / "b", Fer2013())
    assert "fer2013.csv: columns emotion, pixels, usage; split by the Usage column" in said


def test_a_plain_table_is_preferred_to_one_with_row_numbers_beside_it(tmp_path):
    raw = written(tmp_path / "raw", fer2013, plain)
    written(raw, fer2013, FORMS["pandas' index"], "again.csv")
    _, said = prepared(raw, tmp_path, Fer2013())
    assert "fer2013.csv: columns" in said
    assert "again.csv beside it left unread" in said


def test_numbered_columns_count_the_row_numbers_too(tmp_path):
    raw = written(tmp_path / "raw", numbered, FORMS["pandas' index"])
    store, _ = prepared(raw, tmp_path, Csv({"name_column": "2", "label_column": "3"}))
    assert store.columns("source")["source"].tolist()[:2] == ["images/0.png", "images/1.png"]


def test_a_file_without_ending_is_left_alone_where_a_table_has_one(tmp_path):
    raw = written(tmp_path / "raw", named, plain)
    (raw / "LICENSE").write_text("no, table\n")
    written(tmp_path / "other", named, plain, "labels.txt")
    (raw / "notes.txt").write_bytes((tmp_path / "other" / "labels.txt").read_bytes())
    _, said = prepared(raw, tmp_path, Csv())
    assert "labels.csv, image = name" in said
    assert "left unread" not in said


# --- archives, workbooks and binary files


def tar(path: Path, mode: str) -> Callable[[Path], None]:
    def write(source: Path) -> None:
        with tarfile.open(path, mode) as file:
            file.add(source, "fer2013/fer2013.csv")

    return write


def packed(folder: Path, name: str) -> Path:
    """An archive of a small fer2013.csv in an otherwise empty folder."""
    folder.mkdir()
    rows, _ = fer2013(folder)
    path, source = folder / name, folder.with_suffix(".csv")
    source.write_bytes(plain(rows))
    if name.endswith((".tar.gz", ".tgz", ".tar", ".tar.xz")):
        tar(path, "w:" + {"z": "gz", "r": "", "x": "xz"}[name[-1] if not name.endswith("xz") else "x"])(source)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as file:
            file.write(source, "fer2013.csv")
    else:
        pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(path.suffix, gzip.compress)
        path.write_bytes(pack(source.read_bytes()))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "a file.zip",
        "fer2013.csv.gz",
        "fer2013.tar.gz",
        "fer2013.tgz",
        "f.tar",
        "f.tar.xz",
        "f.csv.bz2",
        "f.xz",
        "fer2013",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_an_archive_is_named_with_the_command_that_unpacks_it(tmp_path, name, whole):
    raw = packed(tmp_path / "raw", name)
    source = raw if whole else raw / name
    with pytest.raises(DataError, match=f"no known layout of fer2013: unpack {name} first") as error:
        prepared(source, tmp_path, Fer2013())
    assert str(error.value).replace("\n", "").isprintable()  # no byte of the archive
    unpack, again = error.value.next.rsplit(" && ", 1)
    subprocess.run(["bash", "-c", unpack], check=True, env=dict(os.environ))
    place = Path(again.removeprefix("fer-bench data prepare fer2013 --from ").strip("'"))
    store, _ = prepared(place, tmp_path / "home", Fer2013())
    expected, _ = prepared(written(tmp_path / "plain", fer2013, plain), tmp_path / "b", Fer2013())
    assert store.fingerprint == expected.fingerprint


def test_the_command_works_as_it_is_printed(tmp_path):
    raw = packed(tmp_path / "raw", "fer2013.csv.gz")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "FER_BENCH_HOME": str(tmp_path / "home")}
    told = subprocess.run(
        ["fer-bench", "data", "prepare", "fer2013", "--from", str(raw)], env=env, capture_output=True, text=True
    )
    assert told.returncode == 1
    command = next(line for line in told.stderr.splitlines() if "next:" in line).split("next:")[1]
    subprocess.run(["bash", "-c", command], check=True, env=env, capture_output=True)
    assert Store.open(tmp_path / "home" / "data" / "fer2013").manifest["layout"] == "csv"


@pytest.mark.parametrize(
    ("name", "data", "command"),
    [
        ("faces.7z", b"7z\xbc\xaf\x27\x1c\0\4", "7z x {0}/faces.7z -o{0}/faces"),
        ("faces.rar", b"Rar!\x1a\x07\1\0", "unrar x {0}/faces.rar {0}/faces/"),
    ],
)
def test_archives_for_other_programs_are_named_too(tmp_path, name, data, command):
    (tmp_path / name).write_bytes(data * 20)
    with pytest.raises(DataError) as error:
        prepared(tmp_path, tmp_path / "home", Csv())
    assert error.value.next == f"{command.format(tmp_path)} && fer-bench data prepare csv --from {tmp_path}"


def test_an_archive_that_is_unpacked_already_is_not_told_again(tmp_path):
    raw = packed(tmp_path / "raw", "fer2013.csv.gz")
    (raw / "fer2013.csv").write_text("something else\n")
    with pytest.raises(DataError, match="no known layout of fer2013\n") as error:
        prepared(raw, tmp_path, Fer2013())
    assert error.value.next is None


def test_a_workbook_is_to_be_saved_as_csv(tmp_path):
    with zipfile.ZipFile(tmp_path / "labels.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "<x/>")
    with pytest.raises(DataError, match=r"labels\.xlsx is a workbook of a spreadsheet; save its table as CSV") as error:
        prepared(tmp_path, tmp_path / "home", Csv())
    assert error.value.next is None


@pytest.mark.parametrize("kind", [Fer2013, CkPlus, Ferplus, Csv, Muxspace, RafDb, ExpW])
def test_bytes_of_a_binary_file_never_reach_the_terminal(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, 9000, dtype=np.uint8).tobytes()
    (tmp_path / "table.csv").write_bytes(noise)
    (tmp_path / "label.lst").write_bytes(b"\x1b[31m\x07" + noise)
    (tmp_path / "legend").write_bytes(noise)
    for source in (tmp_path, tmp_path / "table.csv"):
        with pytest.raises(DataError) as error:
            prepared(source, tmp_path / "home", kind())
        assert str(error.value).replace("\n", "").isprintable()


def test_a_zero_byte_in_a_cell_never_reaches_the_terminal(tmp_path):
    rows, _ = fer2013(tmp_path)
    rows[3][0], rows[4][1], rows[5][2] = "\x1b[31m", rows[4][1].replace(" ", "\0", 1), "Train\x07"
    (tmp_path / "fer2013.csv").write_bytes(plain(rows))
    with pytest.raises(DataError, match="3 problems") as error:
        prepared(tmp_path, tmp_path / "home", Fer2013())
    assert str(error.value).replace("\n", "").isprintable()


# --- the parts


@pytest.mark.parametrize(
    "text", ["", " ", "nan", "NaN", "None", "NA", "null", "N/A", "?", "-", "<NA>", "#N/A", "-1.#IND"]
)
def test_texts_that_stand_for_a_missing_value(text):
    assert is_missing(text)


@pytest.mark.parametrize("text", ["0", "-1", "happy", "n", "nano", "unknown", "neutral", "no", "."])
def test_texts_that_stand_for_a_value(text):
    assert not is_missing(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), ("3.0", 3), ("3.", 3), (" 03 ", 3), ("-1", -1), ("+4.000", 4), ("3.5", None), ("", None), ("nan", None)],
)
def test_whole_numbers_of_cells(text, number):
    assert whole(text) == number


def test_a_name_is_known_in_any_spelling():
    names = ("Training", "PublicTest", "PrivateTest")
    assert [meant(t, names) for t in ("training", "Public Test", "private_test", "Test")] == [*names, "Test"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (",image,label\n0,a.png,x\n", {0}),
        ("Unnamed: 0.1,Unnamed: 0,image\n0,0,a\n", {0, 1}),
        ("index,image\n7,a\n", {0}),
        ("index,image\na,7\n", set()),
        (",image\nx,a.png\n", set()),
        ("image,label\n1,2\n", set()),
        (",image\n", {0}),
    ],
)
def test_columns_of_row_numbers(tmp_path, text, numbers):
    (tmp_path / "t.csv").write_text(text)
    table = read_table(tmp_path / "t.csv")
    assert row_numbers(table) == numbers
    assert without_numbers(table).first == [cell for k, cell in enumerate(table.first) if k not in numbers]


def test_blanks_divide_cells_only_where_nothing_else_does(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("a, b.jpg 5\nc.jpg  6\n")
    assert [cells for _, cells in read_table(path, blanks=True).rows] == [["a,", "b.jpg", "5"], ["c.jpg", "6"]]
    path.write_text("a.jpg, 5\n\nc.jpg, 6\n")
    assert read_table(path, blanks=True).rows == [(1, ["a.jpg", "5"]), (3, ["c.jpg", "6"])]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("length", [39, 40, 41, 42, 43])
def test_the_head_of_a_text_is_cut_at_a_line(end, encoding, length):
    text = f"wünsche,eins{end}fünf,drei{end}vier,fünf{end}"
    data = text.encode(encoding)
    head, script = decoded(data[:length], cut=True)
    assert text.startswith(head)
    assert head == "" or head.endswith(end[-1])
    assert not head or script.ends == ("\r" if end == "\r" else "\n")
    assert decoded(data)[0] == text


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PK\x03\x04" + b"emotion,pixels" * 90, "zip archive"),
        (bytes(range(256)), "binary file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "binary file"),
        (b"BZh,emotion\n", ""),
        (b"", ""),
        (b"0 1\0 2" * 1 + b" 3" * 600, ""),  # a stray zero byte is a fault of its row, not of the file
    ],
)
def test_what_holds_no_text(data, kind):
    script = script_of(data)
    assert (script.kind, bool(script.encoding)) == (kind, not kind)


def test_what_is_no_archive_is_passed_over(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=FACES)
    (tmp_path / "notes.zip").write_text("no archive")
    (tmp_path / "images").mkdir()
    assert packed_in(tmp_path) == []
    assert printable("a\x1b[31m\0b", 9) == "a\ufffd[31m\ufffdb"
    assert tables_in(tmp_path, lambda path: True) == []
    (tmp_path / "book.ods").write_bytes(b"PK\x03\x04")
    assert [unpacked(path) for path in packed_in(tmp_path)] == [None]


def test_votes_beside_packed_images_lead_to_the_command_that_unpacks_them(tmp_path):
    raw = packed(tmp_path / "raw", "fer2013.csv.gz")
    (tmp_path / "votes").mkdir()
    rows, name = votes(tmp_path / "votes")
    (raw / name).write_bytes(plain(rows))
    with pytest.raises(DataError, match="the votes are here, the images are not") as error:
        prepared(raw, tmp_path, Ferplus())
    assert error.value.next.startswith(f"gzip -dc {raw}/fer2013.csv.gz > {raw}/fer2013.csv && fer-bench data prepare")
