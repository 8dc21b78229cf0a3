"""The page of the doctor, and the command that writes it."""

from __future__ import annotations

import base64
import re
import shlex
from html import escape
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

from fer_bench import Chunk, Reading
from fer_bench.cli import cli
from fer_bench.cli.data_check import check
from fer_bench.cli.progress import Steps
from fer_bench.contract.plugins import plugins
from fer_bench.data.clean_manifest import load_clean
from fer_bench.data.store import write_store
from fer_bench.doctor.examine import examine
from fer_bench.errors import FerBenchError
from fer_bench.record.home import Home
from fer_bench.reports.pages.doctor import write_page
from fer_bench.reports.render.page_folder import CHECK, Target
from tests.conftest import real_unpacker
from tests.doctor.conftest import CARD, harmed, run


def test_page_has_the_same_bytes_each_time_and_no_path_of_the_machine(tmp_path):
    store = harmed().store(tmp_path / "data")
    texts = []
    for name in ("one", "two"):
        page = write_page(examine(store, CARD), store, CARD, tmp_path / name)
        texts.append({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")})
    assert texts[0] == texts[1]
    text = page.read_text()
    assert str(tmp_path) not in text
    assert "contains images of the data set; licence: toys are free" in text
    assert store.fingerprint in text
    figures = set(re.findall(r"\(figures/(.+?)\)", text))
    assert figures >= {"counts.svg", "exact-conflict.png", "near-across.png", "constant.png"}
    assert figures <= {p.name for p in (tmp_path / "two" / "figures").iterdir()}


def test_page_in_html_says_the_same_and_needs_no_other_file(tmp_path):
    store = harmed().store(tmp_path / "data")
    diagnosis = examine(store, CARD)
    folder = write_page(diagnosis, store, CARD, tmp_path / "page").parent
    page = (folder / "index.html").read_text()
    assert "<h1>Data check: toy</h1>" in page
    for finding in diagnosis.findings:
        for line in (finding.title, *finding.detail):
            assert escape(line) in page
    for kind in ("exact-conflict", "near-across", "constant"):
        assert base64.b64encode((folder / "figures" / f"{kind}.png").read_bytes()).decode() in page
    assert set(re.findall(r'(?:src|href)="([^"]{0,22})', page)) - {"data:image/png;base64,"} == {
        f"#s-{name}" for name in ("warnings", "notes", "counts", "conflicts", "pictures", "clean")
    } | set(re.findall(r'href="(#f-counts[^"]{0,13})', page))


def test_page_without_images_shows_none_and_removes_older_ones(tmp_path):
    store = harmed().store(tmp_path / "data")
    diagnosis = examine(store, CARD)
    write_page(diagnosis, store, CARD, tmp_path / "page")
    assert "data:image/png" in (tmp_path / "page" / "index.html").read_text()
    page = write_page(diagnosis, store, CARD, tmp_path / "page", images=False)
    assert {p.name for p in (tmp_path / "page" / "figures").iterdir()} == {"counts.svg", "counts.png"}
    assert "contains no images of the data set" in page.read_text()
    assert ".png" not in page.read_text()
    assert "data:image/png" not in page.with_name("index.html").read_text()


def test_the_committed_page_shows_no_face():
    folder = Path(__file__).parents[2] / "docs" / "data-check" / "fer2013"
    assert "contains no images of the data set" in (folder / "README.md").read_text()
    pages = {"README.md", "index.html", "counts.svg", "counts.png"}
    assert {p.name for p in folder.rglob("*.*")} == {*pages, ".fer-bench-check.json"}
    page = (folder / "index.html").read_text()
    assert "data:image" not in page
    assert "contains no images of the data set" in page


def test_progress_goes_from_nothing_to_all_of_each_step(tmp_path):
    seen = []
    examine(harmed().store(tmp_path), CARD, progress=lambda what, done: seen.append((what, done)))
    steps = list(dict.fromkeys(what for what, _ in seen))
    assert steps == ["reading the images", "comparing the images with each other", "comparing perceptual hashes"]
    for step in steps:
        shares = [done for what, done in seen if what == step]
        assert shares == sorted(shares)
        assert shares[0] > 0
        assert shares[-1] == 1.0


def test_a_pipe_gets_a_line_now_and_then_and_a_terminal_a_bar(capsys, monkeypatch):
    with Steps("toy") as steps:
        steps("looking", 0.1)
        assert capsys.readouterr().out == ""
        steps.last -= 31  # half a minute later
        steps("looking", 0.4)
        steps("looking", 0.5)
        assert capsys.readouterr().out == "toy: looking, 40% done\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Steps("toy") as steps:
        steps("looking", 0.1)
        steps("comparing", 0.4)
        steps.bar.refresh()
    out = capsys.readouterr().out
    assert "toy: comparing" in out
    assert " 40%" in out


def test_pictures_of_a_page_that_kept_no_list_go_where_the_folder_is_ours(tmp_path):
    store = harmed().store(tmp_path / "data")
    diagnosis, out = examine(store, CARD), tmp_path / "page"
    write_page(diagnosis, store, CARD, out)
    (out / CHECK).unlink()
    (out / "figures" / "mine.png").write_bytes(b"mine")
    with pytest.raises(FerBenchError, match=r"not listed as its own: README\.md"):
        write_page(diagnosis, store, CARD, out, images=False)
    write_page(diagnosis, store, CARD, Target(out=out, kept=CHECK, own=True), images=False)
    assert {p.name for p in (out / "figures").iterdir()} == {"counts.svg", "counts.png", "mine.png"}


def test_somebody_elses_page_or_manifest_is_refused_before_anything_is_examined(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my project")
    arguments = ["data", "check", "synthetic", "--home", str(tmp_path), "--out", str(tmp_path / "mine")]
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, FerBenchError)
    assert "checking" not in done.output
    assert (tmp_path / "mine" / "README.md").read_text() == "my project"
    assert done.exception.next == shlex.join(["fer-bench", *arguments, "--force"])


def test_source_is_examined_leniently_and_without_touching_the_home(files):
    (files / "raw" / "3.png").write_bytes((files / "raw" / "3.png").read_bytes()[:60])
    out = run(files, "files", "--from", str(files / "raw"), "--out", str(files / "page"))
    assert "Unreadable and left out: 1 file or row of the source" in out
    assert "verdict: 1 error, 1 warning" in out
    assert not (files / "home").exists()
    written = {"README.md", "index.html", "figures", "clean.csv", CHECK}
    assert {p.name for p in (files / "page").iterdir()} == written


@pytest.mark.slow
def test_strict_makes_an_error_exit_with_one(files):
    run(files, "files", "--strict", "--from", str(files / "raw"))
    (files / "raw" / "3.png").write_bytes(b"")
    run(files, "files", "--strict", "--from", str(files / "raw"), status=1)


@pytest.mark.slow
def test_prepared_store_gets_its_clean_manifest_in_the_home(files):
    from fer_bench.data.prepare import prepare

    (files / "raw" / "4.png").write_bytes((files / "raw" / "2.png").read_bytes())
    home = Home(files / "home")
    store = prepare(home, plugins([files / "plugins"]).dataset("files"), files / "raw", say=lambda line: None)
    out = run(files, "files", "--no-images")
    clean = load_clean(home.splits("files", store.fingerprint))
    names = store.columns("source")["source"].tolist()
    assert clean.rows.tolist() == [names.index("4.png")]
    assert "leaves out 1 rows" in out
    assert (home.results("doctor") / "files" / "README.md").is_file()


@pytest.mark.slow
def test_missing_store_and_missing_source_are_clear_errors(files):
    from fer_bench import DataError
    from fer_bench.errors import StoreError

    with pytest.raises(StoreError, match="no prepared store for 'files'"):
        run(files, "files")
    with pytest.raises(DataError, match="the source does not exist"):
        run(files, "files", "--from", str(files / "nowhere"))


def test_parameters_of_a_prepared_store_are_refused(files):
    from fer_bench import SpecError

    with pytest.raises(SpecError, match="needs --from"):
        run(files, "files", "--dataset-set", "fold=1")


@pytest.mark.slow
def test_built_in_faces_that_are_prepared_are_examined_as_they_are(tmp_path):
    from fer_bench.data.prepare import ensure_store
    from fer_bench.data.store import Store

    faces = plugins().dataset("synthetic", {"size": 200, "least_test": 0})
    made = ensure_store(Home(tmp_path), faces, say=lambda line: None)
    CliRunner().invoke(check, ["synthetic", "--home", str(tmp_path)], catch_exceptions=False)
    assert Store.open(made.path).fingerprint == made.fingerprint


@pytest.mark.slow
def test_built_in_faces_are_prepared_and_examined(tmp_path):
    options = ["--home", str(tmp_path), "--dataset-set", "size=300", "--dataset-set", "least_test=0"]
    result = CliRunner().invoke(check, ["synthetic", *options], catch_exceptions=False)
    assert "verdict: 0 errors, 0 warnings" in result.output


@pytest.mark.realdata
def test_real_fer2013_has_the_known_faults_and_the_injected_ones(tmp_path):
    images, labels, usage = real_unpacker().load()
    card = plugins().dataset_card("fer2013")
    rng = np.random.default_rng(4)
    once = np.unique(images.reshape(len(images), -1), axis=0, return_index=True, return_counts=True)[1:]
    single = np.flatnonzero((usage == 0) & np.isin(np.arange(len(images)), once[0][once[1] == 1]))
    source = rng.choice(single, 60, replace=False)
    near = [np.rint(gaussian_filter(images[k].astype(float), 1.0)).astype(np.uint8) for k in source[:5]]
    near += [np.pad(images[k], 3, mode="edge")[:48, 2:50] for k in source[5:10]]
    images = np.concatenate([images, near, images[source[10:]]])
    labels, usage = np.concatenate([labels, labels[source]]), np.concatenate([usage, np.zeros(60, np.uint8)])
    chunk = Chunk(
        images=images[:, None],
        labels=labels.astype(np.int64),
        split=[("Training", "PublicTest", "PrivateTest")[u] for u in usage],
        source=[""] * len(labels),
    )
    reading = Reading(layout="array", summary="", files=[], chunks=lambda: iter([chunk]))
    diagnosis = examine(write_store(tmp_path, card, reading, {}, {}), card)
    assert diagnosis.of_kind("copies-disagree") is None
    assert diagnosis.exact["distinct"] == 34034 + 10
    assert diagnosis.exact["groups"] == 1516 + 50
    assert diagnosis.exact["conflicting"] == 57
    assert diagnosis.exact["across"][("Training", "PublicTest")] == 280
    assert diagnosis.exact["across"][("Training", "PrivateTest")] == 288
    constant = (6458, 7629, 10423, 11286, 13148, 13402, 13988, 15894, 22198, 22927, 28601, 30002)
    assert diagnosis.of_kind("constant").rows == constant
    group_of = {row: k for k, group in enumerate(diagnosis.of_kind("near").groups) for row in group}
    assert all(group_of[int(source[k])] == group_of[35887 + k] for k in range(10))
    assert {(int(s), 35897 + k) for k, s in enumerate(source[10:])} <= set(diagnosis.of_kind("exact").groups)
