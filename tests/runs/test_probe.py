"""The probe: predictions that depend on other images of their batch, or on earlier calls, are flagged."""

from __future__ import annotations

import pytest

from tests.runs.conftest import World

READERS = {
    "its own row": ("return model(x)", False),
    "the mean of the batch": ("out = model(x).logits; return Output(logits=out - out.mean(0))", True),
    "the order of the batch": ("out = model(x).logits; return Output(logits=out + out.roll(1, 0))", True),
    "BatchNorm left in training mode": ("model.train(); return model(x)", True),
    "the size of the batch": ("out = model(x).logits; return Output(logits=out * (1 + (len(x) == 1)))", True),
    "the batch, remembered by image": (
        """
                out, names = model(x).logits, [bytes(i.numpy().tobytes()) for i in x]
                out = out - out.mean(0)
                rows = [CACHE.setdefault(n, r.clone()) for n, r in zip(names, out)]
                return Output(logits=torch.stack(rows))
        """,
        True,
    ),
    "whether it has seen an image": (
        """
                out, names = model(x).logits, [bytes(i.numpy().tobytes()) for i in x]
                bonus = torch.tensor([[float(n in CACHE)] + [0.0] * 2 for n in names])
                CACHE.update(dict.fromkeys(names))
                return Output(logits=out + bonus)
        """,
        True,
    ),
    "how often it was called": (
        "self.calls = getattr(self, 'calls', 0) + 1; return Output(logits=model(x).logits * self.calls)",
        True,
    ),
    "draws of its own": ("out = model(x).logits; return Output(logits=out + torch.randn_like(out))", True),
    "its own row, remembered": (
        """
                out, names = model(x).logits, [bytes(i.numpy().tobytes()) for i in x]
                return Output(logits=torch.stack([CACHE.setdefault(n, r.clone()) for n, r in zip(names, out)]))
        """,
        False,
    ),
}


@pytest.mark.parametrize(("body", "flagged"), [pytest.param(*v, id=n) for n, v in READERS.items()])
def test_probe_flags_predictions_that_read_the_batch(world: World, body: str, flagged: bool):
    world.write(f"""
        CACHE = {{}}

        class Reader(Method):
            card = card

            def predict(self, model, x):
                {body.strip()}
    """)

    run = world.run()

    assert run.error is None
    assert run.record.json("probe")["transductive"] is flagged


def test_probe_flags_rasn_only_when_its_affinity_is_of_the_test_batch(world: World):
    card = world.workplace().plugins.method("rasn").card

    for source, flagged in (("frozen_ema", False), ("test_batch", True)):
        run = world.run("rasn", params=card.resolve({"eval.affinity": source}))
        assert run.error is None
        assert run.record.json("probe")["transductive"] is flagged
