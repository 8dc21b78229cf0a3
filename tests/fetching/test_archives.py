"""Unpacking: honest archives come out whole; others are refused, and leave nothing behind."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench import DataError
from fer_bench.fetching.archives import Limits, inner_path, stem, unpack

TREE = {"images/a.png": b"pixels of a", "images/b.png": b"pixels of b", "labels.csv": b"a,0\nb,1\n"}


def files_below(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def tar_of(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                name, data = member
                file.addfile(entry(name, size=len(data)), io.BytesIO(data))
    return path


def refused(archive: Path, limits: Limits | None = None) -> str:
    """The error's text; nothing may have appeared beside the archive, nor anywhere above it."""
    root = archive.parent.parent
    before = sorted(p for p in root.rglob("*"))
    with pytest.raises(DataError) as error:
        unpack(archive, archive.parent / "out", limits)
    assert sorted(p for p in root.rglob("*")) == before
    return str(error.value)


@pytest.fixture
def here(tmp_path) -> Path:
    """Where archives lie: a directory whose parent is watched as well."""
    place = tmp_path / "here"
    place.mkdir()
    return place


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_tar_comes_out_whole_whatever_packs_it(here, mode):
    unpack(tar_of(here / "faces", *TREE.items(), mode=mode), here / "out")
    assert files_below(here / "out") == TREE
    assert sorted(p.name for p in here.iterdir()) == ["faces", "out"]


def test_a_zip_comes_out_whole(here):
    unpack(zip_of(here / "faces.zip", {"images/": b"", **TREE}), here / "out")
    assert files_below(here / "out") == TREE


def test_a_lone_directory_at_the_top_becomes_the_target(here):
    inside = {f"faces-main/{name}": data for name, data in TREE.items()}
    unpack(zip_of(here / "faces.zip", inside), here / "out")
    assert files_below(here / "out") == TREE


def test_what_stands_at_the_target_is_left_alone(here):
    (here / "out").mkdir()
    (here / "out" / "mine").write_text("kept")
    with pytest.raises(DataError, match="already exists"):
        unpack(zip_of(here / "faces.zip", TREE), here / "out")
    assert files_below(here / "out") == {"mine": b"kept"}


BAD_NAMES = ["../evil", "a/../../evil", "/etc/evil", "C:\\evil", "c:/evil", "..\\evil", "a\\..\\..\\evil", ".."]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_target_are_refused(here, name):
    assert "would lead outside its folder" in refused(zip_of(here / "a.zip", {"fine": b"1", name: b"evil"}))
    assert "would lead outside its folder" in refused(tar_of(here / "a.tar", ("fine", b"1"), (name, b"evil")))


def test_a_zip_name_cut_short_by_a_zero_byte_is_refused(here):
    archive = zip_of(here / "a.zip", {"fine.png#.exe": b"evil"})
    archive.write_bytes(archive.read_bytes().replace(b"fine.png#.exe", b"fine.png\0.exe"))
    assert "would lead outside its folder" in refused(archive)


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("link", "/etc"),
        ("link", ".."),
        ("link", "../here"),
        ("a/link", "../../x"),
        ("link", "a/../../x"),
        ("link", "..\\x"),
        ("link", "C:/x"),
    ],
)
def test_links_that_leave_the_target_are_refused(here, name, to):
    archive = tar_of(here / "a.tar", ("a/b", b"1"), entry(name, tarfile.SYMTYPE, to))
    assert "would lead outside the target" in refused(archive)


def test_two_harmless_links_can_not_be_joined_to_a_way_out(here):
    """`up` leads to the root; through it, `out` would lead above the root, though its text seems to stay inside."""
    chain = [entry("p/up", tarfile.SYMTYPE, ".."), entry("p/out", tarfile.SYMTYPE, "up/../../x")]
    assert "would lead outside the target" in refused(tar_of(here / "a.tar", *chain))


def test_nothing_is_written_through_a_link(here):
    members = (("real/x", b"1"), entry("link", tarfile.SYMTYPE, "real"), ("link/y", b"2"))
    assert "which is not a directory" in refused(tar_of(here / "a.tar", *members))


def test_links_inside_stay_links(here):
    members = (
        ("top/a", b"1"),
        entry("top/sub/soft", tarfile.SYMTYPE, "../a"),
        entry("top/hard", tarfile.LNKTYPE, "top/a"),
    )
    unpack(tar_of(here / "a.tar", *members), here / "out")
    assert os.readlink(here / "out" / "sub" / "soft") == "../a"
    assert files_below(here / "out") == {"a": b"1", "hard": b"1", "sub/soft": b"1"}


def test_a_top_directory_is_kept_where_a_link_climbs_out_of_it(here):
    """Were `top` taken away, the link would lead beside the target."""
    unpack(tar_of(here / "a.tar", ("top/a", b"1"), entry("top/up", tarfile.SYMTYPE, "../x")), here / "out")
    assert os.readlink(here / "out" / "top" / "up") == "../x"


@pytest.mark.parametrize("to", ["/etc/passwd", "../secret"])
def test_hard_links_out_are_refused(here, to):
    assert "would lead outside its folder" in refused(tar_of(here / "a.tar", entry("x", tarfile.LNKTYPE, to)))


def test_a_hard_link_to_nothing_is_refused(here):
    assert "does not refer to an earlier file" in refused(tar_of(here / "a.tar", entry("x", tarfile.LNKTYPE, "later")))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(here, kind):
    assert "is not a file, directory or link" in refused(tar_of(here / "a.tar", entry("x", kind)))


def test_a_link_in_a_zip_is_refused(here):
    info = zipfile.ZipInfo("x")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(here / "a.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    assert "neither a file nor a directory" in refused(here / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_occur_twice_are_refused(here):
    with zipfile.ZipFile(here / "a.zip", "w") as file:
        for name in ("a/x", "a/./x"):
            file.writestr(name, name)
    assert "two members are named" in refused(here / "a.zip")
    assert "two members are named" in refused(tar_of(here / "a.tar", ("x", b"1"), ("x", b"2")))
    assert "which is not a directory" in refused(tar_of(here / "b.tar", ("x", b"1"), ("x/y", b"2")))
    assert "two members are named" in refused(tar_of(here / "c.tar", ("x/y", b"1"), ("x", b"2")))


def test_encrypted_zips_are_refused(here):
    """The flag in both headers says so: byte 6 of the local one, byte 8 of the central one (APPNOTE 4.3.7, 4.3.12)."""
    archive = zip_of(here / "a.zip", {"x": b"secret"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refused(archive)


def test_bombs_are_refused(here):
    zeros = bytes(2_000_000)
    limits = Limits(ratio=200, floor=1_000_000)
    assert "unpacks to 2,000,000 bytes or more" in refused(zip_of(here / "a.zip", {"x": zeros}), limits)
    assert "unpacks to 2,000,000 bytes" in refused(tar_of(here / "a.tar", ("x", zeros), mode="w:xz"), limits)
    unpack(here / "a.zip", here / "out", Limits(ratio=1100, floor=1_000_000))
    assert (here / "out" / "x").stat().st_size == 2_000_000


def test_a_bomb_of_many_links_to_one_file_is_refused(here):
    links = [entry(f"x{k}", tarfile.LNKTYPE, "x") for k in range(9)]
    archive = tar_of(here / "a.tar", ("x", bytes(100_000)), *links)
    assert "unpacks to 600,000 bytes" in refused(archive, Limits(ratio=1, floor=550_000))


def test_a_bomb_of_many_names_is_refused(here):
    assert "more than 5 members" in refused(zip_of(here / "a.zip", dict.fromkeys("abcdef", b"")), Limits(members=5))


def test_the_disk_keeps_its_reserve(here):
    assert "unpacks to" in refused(zip_of(here / "a.zip", {"x": b"1"}), Limits(reserve=1 << 60))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_file_that_is_no_archive_is_refused(here, pack):
    (here / "a.gz").write_bytes(pack(b"no archive"))
    assert "neither a zip nor a tar file" in refused(here / "a.gz")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_truncated_tar_is_refused(here, mode):
    archive = tar_of(here / "a.tar", ("x", os.urandom(60_000)), ("y", os.urandom(60_000)), mode=mode)
    archive.write_bytes(archive.read_bytes()[:90_000])
    message = "neither a zip nor a tar file" if mode == "w:bz2" else "damaged"  # bz2 yields nothing before 900 kB
    assert message in refused(archive)


def test_a_zip_with_a_changed_byte_is_refused(here):
    with zipfile.ZipFile(here / "a.zip", "w") as file:
        file.writestr("x", b"0123456789")
    (here / "a.zip").write_bytes((here / "a.zip").read_bytes().replace(b"0123456789", b"0123456780"))
    assert "damaged" in refused(here / "a.zip")


def test_what_a_killed_process_left_does_not_get_in(here):
    left = here / ".out.unpacking"
    left.mkdir()
    (left / "stale").write_text("")
    unpack(zip_of(here / "a.zip", TREE), here / "out")
    assert files_below(here / "out") == TREE
    assert not left.exists()


def test_a_full_disk_is_the_systems_error_and_leaves_nothing(here, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(zip_of(here / "a.zip", TREE), here / "out")
    assert [p.name for p in here.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.zip", "a"),
        ("a.b.tar.gz", "a.b"),
        ("A.TGZ", "A"),
        ("a.tar", "a"),
        ("a.csv", None),
        (".zip", None),
        ("zip", None),
    ],
)
def test_the_stem_is_the_name_without_its_ending(name, expected):
    assert stem(name) == expected


@given(st.lists(st.sampled_from(["..", ".", "a", "b", "", "/", "\\", "C:", "\0"]), max_size=6), st.sampled_from("/\\"))
def test_a_name_that_is_let_in_stays_inside(parts, separator):
    """Against the system's own idea of where a name leads."""
    name = separator.join(parts)
    try:
        path = inner_path(name)
    except DataError:
        return
    assert os.path.normpath(os.path.join("/root", path)).startswith("/root")
    assert "\\" not in name
    assert "\0" not in name
