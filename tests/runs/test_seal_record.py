"""The seal: when the test is opened, what of it the record says, and what stays usable."""

from __future__ import annotations

from fer_bench.errors import SealError, TrainingError
from tests.runs.conftest import ATTEMPT, World


def test_predict_sees_no_test_image_before_selection_is_written(world: World):
    world.write("""
        if not (TMP / "earlier.txt").exists():
            (TMP / "earlier.txt").write_text(str(len(list(HOME.glob("ledger/*/selection.json")))))
        EARLIER = int((TMP / "earlier.txt").read_text())

        class Spy(Method):
            card = card

            def predict(self, model, x):
                row = torch.tensor([255.0, 0.0] * 12) / 255 / 0.25 - 2
                marked = bool(torch.isclose(x[:, 0, 0, :], row, atol=1e-4).all(1).any())
                chosen = len(list(HOME.glob("ledger/*/selection.json"))) > EARLIER
                with open(TMP / "seen.txt", "a") as file:
                    print(int(marked), int(chosen), os.getpid(), file=file)
                return model(x)
    """)

    run = world.run()

    assert run.record.status == "finished"
    seen = [tuple(map(int, line.split())) for line in (world.tmp / "seen.txt").read_text().splitlines()]
    before = [marked for marked, chosen, _ in seen if not chosen]
    assert before
    assert not any(before)
    assert any(marked for marked, chosen, _ in seen if chosen)
    trainers = {pid for _, chosen, pid in seen if not chosen}
    assert len(trainers) == 1
    assert len({pid for _, _, pid in seen} - trainers) == 3, "one process scores, and two probe"
    assert run.record.json("seal")["count"] == 1


def test_predict_can_not_read_the_labels_while_it_predicts_the_test(world: World):
    world.write("""
        class Late(Method):
            card = card

            def predict(self, model, x):
                if len(x) == 30:
                    take(TABLE.read_text())
                return model(x)
    """)

    run = world.run()

    assert isinstance(run.error, SealError)
    assert not world.loot.exists()
    assert run.record.json("seal") == {
        "count": 1,
        "openings": [{"reason": "score the selected epoch and the oracle", "rows": 30, "epoch": 0}],
        "blocked": [{"event": "open", "file": "table.csv"}],
    }


def test_swallowed_attempt_is_in_the_record_of_the_finished_run(world: World):
    world.write("""
        class Sly(Method):
            card = card

            def on_epoch_start(self, epoch, model):
                for _ in range(3):
                    try:
                        take(open(IMAGES, "rb").read())
                    except Exception:
                        pass
    """)

    run = world.run()

    assert run.error is None
    assert run.record.status == "finished"
    assert run.blocked == [{"event": "open", "file": "images.npy"}]
    assert not world.loot.exists()
    run.record.verify()


def test_attempt_before_a_failure_stays_in_the_record_of_the_next_try(world: World):
    world.write("""
        class Unlucky(Method):
            card = card

            def on_fit_start(self, model, view):
                if not (TMP / "again").exists():
                    try:
                        open(IMAGES, "rb")
                    except Exception:
                        pass

            def on_epoch_end(self, epoch, stats):
                if not (TMP / "again").exists():
                    (TMP / "again").touch()
                    raise ValueError("bad luck")
    """)

    assert isinstance(world.run().error, TrainingError)
    again = world.run()

    assert again.record.status == "finished"
    assert again.blocked == [{"event": "open", "file": "images.npy"}]
    assert again.record.json("seal")["count"] == 1


def test_ordinary_run_opens_the_test_once(world: World):
    run = world.run("baseline_resnet", seed=3)

    seal = run.record.json("seal")
    assert seal["count"] == len(seal["openings"]) == 1
    assert seal["openings"][0]["rows"] == len(run.record.array("test_rows")) == 30
    assert seal["blocked"] == []


def test_tuning_trial_never_opens_the_test(world: World):
    run = world.run("baseline_resnet", test=False)

    assert run.record.status == "finished"
    assert run.record.json("seal") == {"count": 0, "openings": [], "blocked": []}
    assert not list(run.record.path.glob("test_*"))
    assert run.record.has("val_logits.npy")


def test_tuning_trial_that_reads_in_predict_is_refused_like_any_other(world: World):
    world.write(ATTEMPT.replace("{body}", "    return TABLE.read_text()"))

    run = world.run(test=False)

    assert isinstance(run.error, SealError)
    assert not world.loot.exists()


def test_own_folder_and_logs_stay_usable_in_training(world: World):
    world.write("""
        class Busy(Method):
            card = card

            def on_epoch_start(self, epoch, model):
                (TMP / "log.txt").write_text("fine")
                os.rename(TMP / "log.txt", TMP / "log.old")
                os.symlink(TMP / "log.old", TMP / "link")
                np.save(TMP / "test_labels.npy", np.arange(3))
                assert len(np.load(TMP / "test_labels.npy")) == 3
                os.chdir(TMP)
                assert open("log.old").read() == "fine"
                assert subprocess.run(["echo", "hello"], capture_output=True).stdout == b"hello\\n"
    """)

    run = world.run()

    assert run.error is None
    assert run.blocked == []
