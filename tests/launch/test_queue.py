"""Which run of a study may begin: the order, runs that share a network, runs that others hold or that lacked memory."""

from __future__ import annotations

from fer_bench.runs.pool import Queue, Task


def tasks(*keys: str) -> list[Task]:
    """Tasks named by their keys; ``a<b`` is read out of ``b``."""
    pairs = [key.partition("<") for key in keys]
    return [Task(key, None, f"[{key}]", base or None) for key, _, base in pairs]  # type: ignore[arg-type]


def take(queue: Queue, most: int = 9) -> list[Task]:
    """What may begin now, as far as there are places."""
    taken = []
    while queue.running < most and (task := queue.take()):
        taken.append(task)
    return taken


def keys(taken: list[Task]) -> list[str]:
    return [task.key for task in taken]


def test_runs_begin_in_their_order():
    queue = Queue(tasks("a", "b", "c"))
    first = take(queue, 2)
    assert keys(first) == ["a", "b"]
    queue.end(first[1])
    assert keys(take(queue, 2)) == ["c"]
    assert len(queue) == 2


def test_a_run_that_is_read_out_of_another_waits_for_it_and_lets_others_pass():
    queue = Queue(tasks("net", "out<net", "other"))
    taken = take(queue)
    assert keys(taken) == ["net", "other"]
    queue.end(taken[0])
    assert keys(take(queue)) == ["out"]


def test_two_runs_that_may_train_the_same_network_are_not_at_work_at_once():
    queue = Queue(tasks("out1<net", "out2<net", "net"))
    (first,) = take(queue)
    assert first.key == "out1"
    queue.end(first)
    (second,) = take(queue)
    assert second.key == "out2"
    queue.end(second)
    assert keys(take(queue)) == ["net"]


def test_a_run_that_another_process_holds_comes_again_after_the_others():
    queue = Queue(tasks("a", "b"))
    (first,) = take(queue, 1)
    queue.hold(first)
    assert queue.held == 1
    assert keys(take(queue)) == ["b"]
    assert queue.take() is None
    queue.look_again()
    assert keys(take(queue)) == ["a"]


def test_a_run_that_lacked_memory_beside_others_is_tried_again_alone_and_once():
    queue = Queue(tasks("a", "b", "c", "a2<a"))
    a, b = take(queue, 2)
    assert queue.retry_alone(a)
    assert keys(take(queue, 2)) == ["c"], "what is read out of it waits"
    queue.end(b)
    assert queue.take() is None
    queue.end(tasks("c")[0])
    assert keys(take(queue, 2)) == ["a"]
    assert queue.take() is None, "alone"
    assert not queue.retry_alone(a)
    queue.end(a)
    assert keys(take(queue)) == ["a2"]


def test_a_run_that_lacked_memory_by_itself_is_not_tried_again():
    queue = Queue(tasks("a", "b"))
    (first,) = take(queue, 1)
    assert not queue.retry_alone(first)
    queue.end(first)
    assert keys(take(queue, 1)) == ["b"], "it began when the other had ended"
