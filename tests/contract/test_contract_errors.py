"""A method that does not keep the contract is answered with what is wrong and where."""

from __future__ import annotations

import pytest

from fer_bench.errors import FerBenchError, SpecError, TrainingError
from fer_bench.runs.executor import execute, identify
from fer_bench.seal import refuse_while_sealed


def head_of(classes: int) -> str:
    return f"def build_model(self, backbone):\n    return Classifier(backbone(), {classes})\n"


def sampler_of(text: str) -> str:
    return f'def streams(self, stage):\n    return {{"main": StreamSpec(sampler=lambda view, epoch, rng: {text})}}\n'


def stages_of(text: str) -> str:
    return f"def stages(self):\n    return [{text}]\n"


WRONG = {
    "too few logits": (head_of(3), ["'own'", r"\(16, 3\)", r"\(16, 4\)", "build_model"]),
    "too many logits": (head_of(5), [r"\(16, 5\)", r"\(16, 4\)"]),
    "no module": ("def build_model(self, backbone):\n    pass\n", ["build_model", "NoneType"]),
    "position too large": (sampler_of("np.arange(97)"), [r"0\.\.95", "main", "0 to 96"]),
    "negative position": (sampler_of("np.arange(96) - 1"), [r"0\.\.95"]),
    "no position": (sampler_of("np.arange(0)"), [r"0\.\.95"]),
    "a mask": (sampler_of("view.labels == 3"), ["integers", "bool"]),
    "weights": (sampler_of("rng.random(96)"), ["integers", "float64"]),
    "no main stream": ('def streams(self, stage):\n    return {"one": StreamSpec()}\n', ["'main'", "train"]),
    "unknown frozen part": (stages_of('Stage(freeze=("body",))'), ["'body'", "train", "head, trunk"]),
    "unknown part anew": (stages_of('Stage(reinit=("classifier",))'), ["'classifier'", "head, trunk"]),
    "unknown stage kind": (stages_of('Stage(kind="posthoc")'), ["'posthoc'", "estimator", "gradient"]),
    "no epochs": (stages_of("Stage(epochs=0)"), ["0 epochs"]),
    "nothing trained": (stages_of('Stage(kind="resample")'), ["no stage that trains"]),
    "no batch": ("def on_batch(self, batch):\n    batch.views\n", [r"on_batch\(\)", "Batch", "NoneType", "return"]),
    "no loss": ("def training_step(self, model, batch):\n    return 1.0\n", [r"training_step\(\)", "LossOut", "float"]),
    "a loss for each image": (
        "def training_step(self, model, batch):\n"
        "    return LossOut(total=F.cross_entropy(model(batch.x).logits, batch.target, reduction='none'))\n",
        ["one number", r"\(16,\)", r"self\.batch_loss\(output, batch\)"],
    ),
    "image weights for a mean": (
        "def image_weights(self, batch):\n    return batch.expected(np.ones(4))\n",
        ["criterion", r"shape \(\)", r"shape \(16,\)", "reduction='none'"],
    ),
    "class weights for image weights": (
        "def criterion(self, output, target):\n    return F.cross_entropy(output.logits, target, reduction='none')\n\n"
        "def image_weights(self, batch):\n    return torch.ones(4)\n",
        [r"shape \(16,\)", r"shape \(4,\)"],
    ),
    "a loss without gradient": (
        "def criterion(self, output, target):\n    return F.cross_entropy(output.logits.detach(), target)\n",
        ["one number", "requires_grad False"],
    ),
    "soft targets of another width": (
        "def on_batch(self, batch):\n    return batch.with_(soft=torch.ones(16, 9))\n",
        ["'own' raised", "in criterion"],
    ),
    "a hook that raises": (
        "def on_epoch_end(self, epoch, stats):\n    stats['val_accuracy']\n",
        ["'own' raised KeyError", r"own\.py:\d+, in on_epoch_end", "failed.json"],
    ),
    "bad adjusted logits": (
        "def adjust(self, logits, features):\n    return logits[:, :2]\n",
        ["own.adjust", r"\(40, 2\)", r"\(40, 4\)"],
    ),
    "bad index": (
        stages_of('Stage(kind="resample", name="cut"), Stage()')
        + "\ndef resample(self, stage, view):\n    return Resampled(index=np.array([99]))\n",
        [r"0\.\.95", "cut"],
    ),
    "bad images": (
        stages_of('Stage(kind="resample", name="cut"), Stage()')
        + "\ndef resample(self, stage, view):\n    return Resampled(images=view.images.float(), labels=view.labels)\n",
        ["uint8", "M, 1 x 16 x 16", "cut"],
    ),
    "no estimator": (
        stages_of('Stage(), Stage(kind="estimator")'),
        ["own has an estimator stage but no fit_estimator"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_hook_is_answered_with_what_and_where(with_method, tiny_run, name):
    hooks, expected = WRONG[name]
    work, spec = with_method(hooks), tiny_run("own", recipe={"epochs": 1})
    with pytest.raises((TrainingError, SpecError)) as caught:
        execute(spec, work)
    for pattern in expected:
        assert caught.match(pattern)
    record = work.home.ledger.run(identify(spec, work)[0])
    assert record.status == "failed"
    assert record.json("failed")["traceback"].startswith("Traceback") or "Error" in record.json("failed")["type"]
    refuse_while_sealed("the next test of this process")  # would raise if the seal were still closed


def test_a_loss_that_is_not_finite_names_epoch_rate_and_the_next_command(with_method, tiny_run):
    hooks = """
    def criterion(self, output, target):
        return super().criterion(output, target) * (float("inf") if self.late else 1.0)

    def on_epoch_start(self, epoch, model):
        self.late = epoch == 1
    """
    work = with_method(hooks)
    with pytest.raises(TrainingError) as caught:
        execute(tiny_run("own", recipe={"epochs": 2, "schedule": "constant"}, seed=3), work)
    told = str(caught.value)
    assert "the loss of 'own' is not finite" in told
    assert "epoch 2, by step 6, learning rate 0.004, seed 3" in told
    assert "--set lr=0.0004" in told


def test_a_plugin_that_raises_on_import_is_named_with_its_file(with_method, tiny_run):
    work = with_method("", before='raise OSError("no licence file")')
    with pytest.raises(FerBenchError, match=r"'own' can't be imported: OSError: no licence file[\s\S]*own\.py"):
        execute(tiny_run("own"), work)


def test_an_error_of_the_harness_itself_comes_with_its_traceback(workplace, tiny_run, in_process, monkeypatch):
    def broken(job):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("fer_bench.runs.worker.fit", broken)
    with pytest.raises(RuntimeError, match=r"^ZeroDivisionError: ours\n\nTraceback [\s\S]*, in broken\n"):
        execute(tiny_run(), workplace)


def test_a_method_that_cannot_predict_one_image_alone_is_flagged_and_its_run_kept(carry_out):
    record, _ = carry_out("""
        def predict(self, model, x):
            if len(x) < 2:
                raise ValueError("more than one image expected")
            return model(x)
    """)
    probe = record.json("probe")
    assert record.status == "finished"
    assert probe["transductive"] is True
    alone = next(c for c in probe["checks"] if c["name"] == "shuffled, one at a time")
    assert alone == {
        "name": "shuffled, one at a time",
        "max_difference": None,
        "flipped": None,
        "error": "ValueError: more than one image expected",
    }
