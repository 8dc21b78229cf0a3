"""The seal: searches through the memory of training and scoring processes find nothing of the test.

Test images carry a pattern in their first pixel row, so that finding them needs no luck.
"""

from __future__ import annotations

import textwrap

import pytest

from tests.runs.conftest import ATTEMPT, World

SEARCHES = {
    "local variables of all frames": """
        for frame in sys._current_frames().values():
            while frame is not None:
                for name, value in frame.f_locals.items():
                    parts = value.values() if isinstance(value, dict) else [value, *vars(value).values()] \\
                        if hasattr(value, "__dict__") else [value]
                    for part in parts:
                        part = part if not isinstance(part, dict) else list(part.values())
                        for piece in part if isinstance(part, (list, tuple)) else [part]:
                            if is_test(piece):
                                return name
                frame = frame.f_back
    """,
    "everything the collector knows": """
        known = gc.get_referents(*gc.get_objects())
        known += gc.get_referents(*[v for v in known if type(v) in (dict, list, tuple)])  # not all are tracked
        known = {id(v): v for v in known if type(v) in (np.ndarray, torch.Tensor)}
        for value in list(known.values()):
            if is_test(value) or is_test(getattr(value, "base", None)):
                return type(value), value.shape
    """,
    "open files and mappings": """
        ours = {os.stat(p).st_ino for p in (IMAGES, TABLE, SOURCE)}
        for number in os.listdir("/dev/fd"):
            try:
                if os.fstat(int(number)).st_ino in ours:
                    return number
            except OSError:
                pass
        maps = Path("/proc/self/maps")
        return (maps.exists() and "images.npy" in maps.read_text()) or None
    """,
    "what the method was given": """
        given = [*vars(self).values(), *vars(self.ctx).values(), *vars(view).values(), *vars(model).values()]
        sizes = {len(g) for g in given if isinstance(g, (np.ndarray, torch.Tensor)) and g.ndim}
        return (sizes & {24, 30, 64, 94}) or any(is_test(g) for g in given) or None
    """,
}


@pytest.mark.parametrize("body", [pytest.param(b, id=n) for n, b in SEARCHES.items()])
def test_search_in_training_finds_nothing_of_the_test(world: World, body: str):
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))
    run = world.run()

    assert run.error is None
    assert not world.loot.exists(), world.loot.read_text()
    assert run.blocked == []


def test_searches_know_the_test_when_they_meet_it(world: World):
    """The searches above are worth something: `is_test` finds the test in the store, and nothing in training."""
    import runpy

    from fer_bench.data.store import Store

    world.write("")
    is_test = runpy.run_path(str(world.folder / "thief.py"))["is_test"]
    store = Store.open(world.home / "data/marked")
    label, images = store.columns("label")["label"], store.images(range(94))
    assert is_test(label)
    assert is_test(label[64:])
    assert is_test(images)
    assert not is_test(label[:64])
    assert not is_test(images[:64])


@pytest.mark.parametrize("body", [pytest.param(SEARCHES[n], id=n) for n in list(SEARCHES)[:3]])
def test_search_in_scoring_finds_no_label(world: World, body: str):
    """Labels alone: the images are given to the method, and may be found."""
    body = body.replace("if is_test(value)", "if value.ndim == 1 and is_test(value)")
    body = body.replace(
        "if is_test(piece)", "if isinstance(piece, (np.ndarray, torch.Tensor)) and piece.ndim == 1 and is_test(piece)"
    )
    world.write(
        "def search():\n" + textwrap.indent(textwrap.dedent(body), "    ")
        + textwrap.dedent("""
        class Late(Method):
            card = card

            def predict(self, model, x):
                if len(x) == 30:
                    take(search())
                return model(x)
        """)
    )  # fmt: skip

    run = world.run()

    assert run.error is None
    assert not world.loot.exists(), world.loot.read_text()


def test_what_a_method_keeps_in_memory_does_not_reach_the_scoring_process(world: World):
    world.write("""
        KEPT = []

        class Keeper(Method):
            card = card

            def on_fit_start(self, model, view):
                KEPT.append(view)
                np.secret = view
                self.secret = view

            def predict(self, model, x):
                if len(x) == 30:
                    take(KEPT or getattr(np, "secret", None) or getattr(self, "secret", None))
                return model(x)
    """)

    run = world.run()

    assert run.error is None
    assert not world.loot.exists(), world.loot.read_text()


HIDDEN = {
    "local variables of all frames": "def attempt(self, model, view):\n    hidden = np.array(LABELS)\n",
    "everything the collector knows": "hidden = {'a': np.array(LABELS)}\ndef attempt(self, model, view):\n",
}


@pytest.mark.parametrize("name", HIDDEN)
def test_search_finds_labels_that_are_hidden_on_purpose(world: World, name: str):
    body = textwrap.indent(textwrap.dedent(SEARCHES[name]), "    ")
    world.write(ATTEMPT.replace("def attempt(self, model, view):\n", HIDDEN[name]).replace("{body}", body))

    world.run()

    assert world.loot.exists()
