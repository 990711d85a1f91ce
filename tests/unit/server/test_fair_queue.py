"""The queue: fair between people, first come first served inside one, bounded."""

import pytest

from burnish.errors import RefusedError
from burnish.server.fair_queue import FairQueue


def taken(queue: FairQueue[str]) -> list[str]:
    items = []
    while (item := queue.take()) is not None:
        items.append(item)
    return items


def test_people_take_turns_and_each_keeps_their_order() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    assert len(queue) == 6
    assert taken(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert len(queue) == 0
    for item in ("a1", "b1"):
        queue.put(item[0], item)
    assert queue.take() == "a1"
    queue.put("a", "a2")  # who comes back stands behind the others
    assert taken(queue) == ["b1", "a2"]


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    queue: FairQueue[str] = FairQueue(2)
    queue.put("a", "a1")
    queue.put("b", "b1")
    with pytest.raises(RefusedError) as refused:
        queue.put("c", "c1")
    assert (refused.value.http_status, refused.value.code) == (429, "queue_full")
    assert refused.value.retry_after
    assert taken(queue) == ["a1", "b1"]


def test_what_is_removed_is_not_taken() -> None:
    queue: FairQueue[str] = FairQueue(4)
    for item in ("a1", "a2", "b1"):
        queue.put(item[0], item)
    assert queue.remove("a", "a1")
    assert queue.remove("b", "b1")
    assert not queue.remove("b", "b1")
    assert not queue.remove("nobody", "a2")
    assert taken(queue) == ["a2"]
