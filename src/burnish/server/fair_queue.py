"""A bounded queue that is fair between people: round robin over people, first come first served inside one person."""

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from burnish.errors import RefusedError

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Not safe under several threads by itself."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._people: OrderedDict[str, deque[T]] = OrderedDict()  # the next person first

    def __len__(self) -> int:
        return sum(map(len, self._people.values()))

    def put(self, person: str, item: T) -> None:
        """Raises RefusedError (429) when the queue is full."""
        if len(self) >= self.limit:
            raise RefusedError(
                f"The server has {self.limit} requests waiting and takes no more for now. Try again in some seconds.",
                status=429,
                code="queue_full",
                retry_after=5,
            )
        self._people.setdefault(person, deque()).append(item)

    def take(self) -> T | None:
        """The oldest item of the person whose turn it is; None when nothing waits."""
        if not self._people:
            return None
        person, items = self._people.popitem(last=False)
        item = items.popleft()
        if items:
            self._people[person] = items  # behind everyone else
        return item

    def remove(self, person: str, item: T) -> bool:
        """Whether the item was there."""
        items = self._people.get(person, deque())
        if item not in items:
            return False
        items.remove(item)
        if not items:
            del self._people[person]
        return True
