"""What the terminal shows of several runs at once: a bar for each, which goes when its run ends."""

from __future__ import annotations

import io

from rich.console import Console

from fer_bench.runs.live import Bars, LiveListener

ENTRY = {"val_recall": [0.5, None], "val_mean_recall": 0.25, "train_loss": 1.5}


def screen() -> Console:
    """A terminal of 120 columns that keeps what it is sent."""
    return Console(file=io.StringIO(), force_terminal=True, width=120, _environ={})


def test_each_run_at_work_has_a_bar_until_it_ends():
    console = screen()
    bars = Bars(console)
    one, other = (LiveListener(label, (0, "disgust"), bars) for label in ("one, seed 0", "other, seed 1"))
    one.start(2, 10, 0)
    other.start(4, 10, 1)
    one.epoch({**ENTRY, "epoch": 0})
    bars._progress.refresh()
    shown = console.file.getvalue().splitlines()[-2:]
    assert "one, seed 0" in shown[0]
    assert "epoch 1/2, val mean recall 25.0 %, disgust 50 %" in shown[0]
    assert "other, seed 1" in shown[1]
    one.close()
    assert [task.description for task in bars._progress.tasks] == ["other, seed 1"]
    other.close()
    assert bars._progress is None
    third = LiveListener("third, seed 2", (0, "disgust"), bars)
    third.start(1, 10, 0)
    third.close()
    assert "third, seed 2" in console.file.getvalue()


def test_without_a_terminal_an_epoch_is_a_line_that_names_its_run(capsys):
    listener = LiveListener("one, seed 0", (1, "fear"), Bars(Console(file=io.StringIO(), _environ={})))
    listener.start(2, 10, 0)
    listener.epoch({**ENTRY, "epoch": 1})
    listener.close()
    assert capsys.readouterr().out == "  one, seed 0: epoch 2/2, loss 1.500, val mean recall 25.0 %, fear -\n"
