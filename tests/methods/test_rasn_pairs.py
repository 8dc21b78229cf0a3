"""Every pair of values of RASN's switches, in a covering array: a pair trains, or is refused with a reason."""

import itertools

import pytest
import torch

from fer_bench.errors import SpecError
from fer_bench.methods.rasn import RASN, card

SWITCHES = {name: param.choices for name, param in card.params.items() if param.choices} | {"loss.tau": (0.0, 1.0)}
NO_SENSE = {
    "doesn't fit head": lambda p: (p["share.level"], p["head"]) in (("arm", "gap"), ("pooled", "arm_dealbino")),
    "shares no mean": lambda p: p["eval.affinity"] == "test_batch" and p["share.source"] in RECALLING,
    "stores none": lambda p: p["eval.affinity"] == "train_set_mean" and p["share.source"] in RECALLING[1:],
    "no affinity to attend to": lambda p: p["share.source"] == "none" and p["attn.place"] == "on_affinity",
}
RECALLING = ("class_prototypes", "dictionary", "own", "own_projection")


def sensible(row):
    return not any(rule(row) for rule in NO_SENSE.values())


def covering(switches):
    """Rows that hold every pair of values that some sensible row holds, and the pairs that none does."""
    names = list(switches)
    pairs = {
        ((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in switches[a] for y in switches[b]
    }  # fmt: skip
    rows, impossible = [], set()
    while pairs - impossible:
        seed = min(pairs - impossible, key=str)
        row = complete(dict(seed), switches, pairs)
        if row is None:
            impossible.add(seed)
            continue
        rows.append(row)
        pairs -= {p for p in pairs if all(row[name] == value for name, value in p)}
    return rows, impossible


def complete(row, switches, pairs):
    """The row with values for all other switches, each the one that covers most new pairs; None where nothing fits."""
    free = [name for name in switches if name not in row]
    if not free:
        return row if sensible(row) else None
    name = free[0]

    def gain(value):
        return sum(all(({**row, name: value}).get(n) == v for n, v in pair) for pair in pairs if name in dict(pair))

    for value in sorted(switches[name], key=lambda v: (-gain(v), str(v))):
        longer = {**row, name: value}
        if len(free) > 1 and not sensible(DEFAULTS | longer) and not can_mend(longer, free[1:]):
            continue
        done = complete(longer, switches, pairs)
        if done is not None:
            return done
    return None


DEFAULTS = {name: card.params[name].default for name in SWITCHES}


def can_mend(row, free):
    """Whether some values of the free switches that rules speak of make the row sensible."""
    spoken = [n for n in ("share.level", "head", "eval.affinity", "share.source", "attn.place") if n in free]
    trials = itertools.product(*(SWITCHES[n] for n in spoken))
    return any(sensible(DEFAULTS | row | dict(zip(spoken, trial, strict=True))) for trial in trials)


ROWS, IMPOSSIBLE = covering(SWITCHES)


def test_only_pairs_without_sense_are_missing():
    held = {((a, r[a]), (b, r[b])) for r in ROWS for a, b in itertools.combinations(SWITCHES, 2)}
    every = sum(len(SWITCHES[a]) * len(SWITCHES[b]) for a, b in itertools.combinations(SWITCHES, 2))
    assert len(held) + len(IMPOSSIBLE) == every
    # level x head: 2; test_batch x 4 sources; train_set_mean x 3 sources; none x on_affinity: 1
    assert len(IMPOSSIBLE) == 2 + 4 + 3 + 1


SHARING = ("share.level", "share.fusion", "share.alpha", "share.detach", "eval.affinity")
NO_EFFECT = [
    *(({"share.source": "none"}, name) for name in (*SHARING, "share.momentum", "share.atoms")),
    *(({"share.source": source}, "share.momentum") for source in ("dictionary", "own", "own_projection")),
    *(({"share.source": source}, "share.atoms") for source in SWITCHES["share.source"][:5]),
    *(({"eval.affinity": way}, "share.momentum") for way in ("train_set_mean", "none", "test_batch")),
    *(({"attn.type": "none"}, name) for name in ("attn.place", "attn.reduction")),
    ({"attn.type": "spatial"}, "attn.reduction"),
]


def other_values(name):
    param = card.params[name]
    values = param.choices or (param.low, param.high)
    return [value for value in values if value != param.default]


@pytest.mark.parametrize(("beside", "name"), NO_EFFECT, ids=str)
def test_a_switch_that_has_no_effect_is_refused(beside, name):
    ((other, there),) = beside.items()
    for value in other_values(name):
        with pytest.raises(SpecError, match=rf"{name}={value} has no effect with .*{other}={there}") as caught:
            card.choose(beside | {name: value})
        assert caught.value.hint.startswith(f"leave {name} out, or set ")
    card.choose(beside | {name: card.params[name].default})


def test_no_other_pair_is_refused_for_want_of_effect():
    """A pair of values that differ from the defaults is taken, unless one of them needs yet another switch."""
    refused = {(name, other, value) for beside, name in NO_EFFECT for other, value in beside.items()}
    for one, two in itertools.permutations(card.params, 2):
        for x, y in itertools.product(other_values(one), other_values(two)):
            if "share.atoms" not in (one, two) and not {(one, two, y), (two, one, x)} & refused:
                card.choose({one: x, two: y})
    for source in ("dictionary", "own_projection"):
        card.choose({"share.source": source, "share.atoms": 32})
    for source in ("ema", "class_prototypes"):
        card.choose({"share.source": source, "share.momentum": 0.5, "eval.affinity": "none"})


def leftovers(make_method, tiny_trunk, make_batch, params):
    """Logits before and after two steps, of a network that a seed made."""
    method, batches = make_method(RASN, params), [make_batch(4, seed=1), make_batch(4, seed=2)]
    torch.manual_seed(3)
    model = method.build_model(tiny_trunk).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    for batch in batches:
        optimiser.zero_grad()
        method.training_step(model, batch).total.backward()
        optimiser.step()
    method.before_eval(model, lambda: batches)
    with torch.no_grad():
        return method.predict(model.eval(), make_batch(4, seed=5).x).logits


@pytest.mark.slow
@pytest.mark.parametrize(("beside", "name"), NO_EFFECT, ids=str)
def test_what_is_refused_for_want_of_effect_has_none(make_method, tiny_trunk, make_batch, beside, name):
    plain = leftovers(make_method, tiny_trunk, make_batch, DEFAULTS | beside)
    for value in other_values(name):
        params = DEFAULTS | beside | {name: value}
        if sensible(params):
            torch.testing.assert_close(leftovers(make_method, tiny_trunk, make_batch, params), plain)


@pytest.mark.parametrize("pair", sorted(IMPOSSIBLE, key=str), ids=str)
def test_a_pair_without_sense_is_refused_with_its_reason(make_method, tiny_trunk, pair):
    params = DEFAULTS | dict(pair)
    if params["share.level"] == "arm" and "head" not in dict(pair):
        params["head"] = "arm_dealbino"
    reasons = [says for says, rule in NO_SENSE.items() if rule(params)]
    with pytest.raises(SpecError, match=reasons[0]):
        make_method(RASN, params).build_model(tiny_trunk)


@pytest.mark.slow
@pytest.mark.parametrize("params", ROWS, ids=range(len(ROWS)))
def test_a_row_trains_twice_alike_reads_images_alone_and_survives_its_state(
    make_method, tiny_trunk, make_batch, params
):
    batches, method = [make_batch(4, seed=1), make_batch(4, seed=2)], make_method(RASN, params)
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        model = method.build_model(tiny_trunk).train()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        for batch in batches:
            optimiser.zero_grad()
            loss = method.training_step(model, batch)
            loss.total.backward()
            assert torch.isfinite(loss.total)
            assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
            optimiser.step()
        method.before_eval(model, lambda: batches)
        models.append(model.eval())
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))
    x = make_batch(4, seed=5).x
    with torch.no_grad():
        together = method.predict(models[0], x).logits
        alone = torch.cat([method.predict(models[0], one).logits for one in x.split(1)])
        fresh = make_method(RASN, params).build_model(tiny_trunk).eval()
        fresh.load_state_dict(models[0].state_dict())
        assert torch.equal(method.predict(fresh, x).logits, together)
    moved = (together - alone).abs().max()
    reads_the_batch = params["eval.affinity"] == "test_batch" and params["share.source"] != "none"
    assert moved < 1e-4 or (reads_the_batch and params["share.alpha"] != 0)
