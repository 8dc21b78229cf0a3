"""The seal: attempts to open files of the test are refused and recorded, and would succeed without it.

Each attempt is the body of a function in a real plug-in, run by the real executor and its processes on a small store.
"""

from __future__ import annotations

import ast
import shutil
import sys
import textwrap

import pytest

from fer_bench.errors import PluginError, SealError
from tests.runs.conftest import ATTEMPT, World

REFUSED = {
    "open": "return open(IMAGES, 'rb').read()",
    "io.FileIO": "return io.FileIO(str(TABLE)).read()",
    "io.open_code": "return io.open_code(str(TABLE)).read()",
    "np.load, mapped": "return np.load(IMAGES, mmap_mode='r')[-1]",
    "np.memmap": "return np.memmap(IMAGES, np.uint8, 'r')[-9:]",
    "np.fromfile": "return np.fromfile(IMAGES, np.uint8)",
    "pandas.read_csv": "import pandas; return pandas.read_csv(TABLE)['label'].tolist()",
    "Store.columns": "from fer_bench.data.store import Store; return Store.open(STORE).columns('label')",
    "Store.images": "from fer_bench.data.store import Store; return Store(STORE, {}).images(np.arange(94))",
    "Store.columns, forged": "from fer_bench.data import store; return store.Store(STORE, {}).columns('label')",
    "os.open": "return os.read(os.open(IMAGES, os.O_RDONLY), 9999)",
    "os.open, bytes": "return os.read(os.open(os.fsencode(IMAGES), os.O_RDONLY), 9999)",
    "Path.read_bytes": "return IMAGES.read_bytes()",
    "dots in the path": "return open(STORE / '..' / 'marked' / '.' / 'images.npy', 'rb').read()",
    "symbolic link": "os.symlink(IMAGES, TMP / 'x'); return (TMP / 'x').read_bytes()",
    "symbolic link, relative": "os.symlink(os.path.relpath(IMAGES, TMP), TMP / 'x'); return (TMP / 'x').read_bytes()",
    "symbolic link to the folder": "os.symlink(STORE, TMP / 'x'); return (TMP / 'x/images.npy').read_bytes()",
    "symbolic link to the home": "os.symlink(HOME, TMP / 'x'); return (TMP / 'x/data/marked/table.csv').read_bytes()",
    "hard link": "os.link(IMAGES, TMP / 'x'); return (TMP / 'x').read_bytes()",
    "shutil.copy": "shutil.copy(IMAGES, TMP / 'x'); return (TMP / 'x').read_bytes()",
    "chdir": "os.chdir(STORE); return open('images.npy', 'rb').read()",
    "dir_fd": "return os.read(os.open('images.npy', os.O_RDONLY, dir_fd=os.open(STORE, os.O_RDONLY)), 999)",
    "dir_fd, with a decoy in the present folder": """
        os.chdir(TMP); Path("images.npy").write_bytes(b"decoy")
        return os.read(os.open("images.npy", os.O_RDONLY, dir_fd=os.open(STORE, os.O_RDONLY)), 9999)
    """,
    "dir_fd of the home": "return os.read(os.open('data/marked/table.csv', 0, dir_fd=os.open(HOME, os.O_RDONLY)), 999)",
    "dir_fd of another run": "return os.read(os.open('test_labels.npy', 0, dir_fd=os.open(OTHER, os.O_RDONLY)), 999)",
    "opener": "return open('table.csv', opener=lambda n, f: os.open(n, f, dir_fd=os.open(STORE, 0))).read()",
    "a path that lies": """
        class Liar(os.PathLike):
            told = 0
            def __fspath__(self):
                self.told += 1
                return str(IMAGES) if self.told == 1 else "/dev/null"
        return io.FileIO(Liar()).read()
    """,
    "a text that lies": """
        class Liar(str):
            __eq__ = lambda self, other: False
            __hash__ = str.__hash__
            __str__ = lambda self: "/dev/null"
            startswith = lambda self, *a: False
        return open(Liar(IMAGES), "rb").read()
    """,
    "the source file": "return SOURCE.read_text()",
    "another copy in the raw folder": "return (RAW / 'another_copy.csv').read_text()",
    "other labels in the ledger": "return (HOME / 'ledger/labels/f00d/second/votes.npy').read_bytes()",
    "labels in another run": "return np.load(OTHER / 'test_labels.npy')",
    "the data set, read again": """
        from fer_bench.contract.plugins import plugins
        return next(iter(plugins([Path(__file__).parent]).dataset("marked").read(RAW).chunks()))
    """,
    "the data set, without its constructor": """
        from fer_bench.contract.plugins import plugins
        kind = plugins([Path(__file__).parent]).dataset_plugin("marked").load()
        kind.read = lambda self, source: None
        (TMP / "faces.csv").write_text("test,0,1")
        return next(iter(kind.__new__(kind).chunks(TMP)))
    """,
}


if sys.platform == "linux":
    REFUSED |= {
        "os.open, O_PATH": "return os.open(IMAGES, os.O_PATH)",
        "another name through /proc": "return open('/proc/self/root' + str(IMAGES), 'rb').read()",
    }


@pytest.mark.parametrize("body", [pytest.param(b, id=n) for n, b in REFUSED.items()])
def test_attempt_is_refused_and_recorded(world: World, body: str):
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))

    run = world.run()

    assert isinstance(run.error, SealError), repr(run.error)
    assert run.record.status == "failed"
    assert run.record.json("failed")["type"] == "SealError"
    assert run.blocked
    assert not world.loot.exists(), world.loot.read_text()[:200]
    assert not run.record.has("selection.json")


def test_attempt_that_a_library_swallows_is_recorded(world: World):
    world.write(ATTEMPT.replace("{body}", "    return linecache.getlines(str(TABLE)) or None"))

    run = world.run()

    assert run.error is None
    assert run.blocked == [{"event": "open", "file": "table.csv"}]
    assert not world.loot.exists()


def test_every_attempt_is_python_that_would_have_run():
    for name, body in REFUSED.items():
        code = ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    "))
        assert ast.parse(code), name


def test_opening_a_file_while_the_plugin_is_imported_is_refused(world: World):
    world.write("take(TABLE.read_text())\n" + ATTEMPT.replace("{body}", "    return None"))

    run = world.run()

    assert isinstance(run.error, PluginError)
    assert "SealError" in str(run.error)
    assert run.blocked == [{"event": "open", "file": "table.csv"}]
    assert not world.loot.exists()


def test_child_made_by_fork_is_bound_too(world: World):
    body = """
        child = os.fork()
        if child == 0:
            try:
                take(TABLE.read_text())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    """
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))

    run = world.run()

    assert not world.loot.exists()
    assert run.record.status == "finished"
    assert run.blocked == [{"event": "open", "file": "table.csv"}]


WOULD_SUCCEED = (
    "open", "dir_fd", "dir_fd, with a decoy in the present folder", "opener", "symbolic link to the folder",
    "hard link",
    "the data set, without its constructor", "labels in another run", "another copy in the raw folder",
)  # fmt: skip


@pytest.mark.parametrize("name", WOULD_SUCCEED)
def test_attempt_would_succeed_without_the_seal(world: World, name: str, in_process):
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(REFUSED[name]), "    ")))

    run = world.run()

    assert run.error is None
    assert world.loot.exists()


NOT_STOPPED = {
    "torch.from_file": "return torch.from_file(str(IMAGES), size=99, dtype=torch.uint8)",
    "libc": "import ctypes; return ctypes.CDLL(None).open(os.fsencode(IMAGES), 0)",
    "another program": "return subprocess.run(['cat', str(TABLE)], capture_output=True).stdout",
    "a copy elsewhere": "return (TMP / 'copy.csv').read_text()",
}


@pytest.mark.parametrize("body", [pytest.param(b, id=n) for n, b in NOT_STOPPED.items()])
def test_what_the_docs_say_is_not_stopped_is_not_stopped(world: World, body: str):
    shutil.copy(world.home / "data/marked/table.csv", world.tmp / "copy.csv")
    world.write(ATTEMPT.replace("{body}", textwrap.indent(body, "    ")))

    run = world.run()

    assert run.error is None
    assert world.loot.exists()
    assert run.blocked == []
