"""The workers against their model, which is a plain fold over a list.

Hypothesis sends events of several students and frames of several connections, lets workers fold, save, die
and come back in another number; whatever it does, once they have caught up they hold what the list gives.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from api import Connection
from archive import Submission
from replay import Runner, feed, layout
from tests.replay.classroom import ordered
from tests.world import World, connection, event, frames, plain_fold, run, union

students = st.sampled_from(["ann", "bob", "eve"])
documents: st.SearchStrategy[dict[str, str]] = st.sampled_from(
    [{}, {"doc_id": "essay"}, {"doc_id": "poem", "class": "7b"}, {"class": "7a"}]
)
names = st.sampled_from(["good", "typed", "bad"])
locks = st.sampled_from(
    [{"tool": "pad"}, {"class": "7b"}, {"user_id": "ann"}, {"user_id": "eve", "tool": "x"}]
)


class ClassroomMachine(RuleBasedStateMachine):
    """A log, the workers of some number of shards, and the list of all that was kept."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(feed, "SLICE_ENTRIES", 3)
        self.patch.setattr(layout, "CHUNK", 2)
        self.world = World()
        self.kept: list[tuple[int, Submission]] = []
        self.connections: list[Connection] = []

    def teardown(self) -> None:
        """Undo the small slices and chunks."""
        self.patch.undo()

    @initialize(shards=st.integers(1, 3))
    def begin(self, shards: int) -> None:
        """Start the workers, and three connections."""
        self.connections = [connection(number) for number in range(3)]
        self.workers: list[Runner] = self.world.runners(shards)

    def send(self, submissions: list[Submission]) -> None:
        """Append, and remember what was kept where."""
        receipts = self.world.append(submissions)
        self.kept += [(receipt.index, one) for receipt, one in zip(receipts, submissions, strict=True)]

    @rule(student=students, name=names, keys=documents)
    def direct(self, student: str, name: str, keys: dict[str, str]) -> None:
        """An event that says who it is about."""
        self.send([event(student, name, **keys)])

    @rule(at=st.integers(0, 2), sent=st.lists(st.tuples(names, documents), min_size=1, max_size=4))
    def anonymous(self, at: int, sent: list[tuple[str, dict[str, str]]]) -> None:
        """Frames of a connection that do not say who they are about."""
        self.send(frames(self.connections[at], *[{"event": name, **keys} for name, keys in sent]))

    @rule(at=st.integers(0, 2), student=students, name=names, keys=documents)
    def identified(self, at: int, student: str, name: str, keys: dict[str, str]) -> None:
        """A frame that says who it is about: for the first time, once more, or another one."""
        self.send(frames(self.connections[at], {"event": name, "user_id": student, **keys}))

    @rule(at=st.integers(0, 2), fields=locks)
    def lock(self, at: int, fields: dict[str, str]) -> None:
        """Fields that are locked for all later frames."""
        self.send(frames(self.connections[at], {"event": "lock_fields", "fields": fields}))

    @rule(at=st.integers(0, 2))
    def nonsense(self, at: int) -> None:
        """A frame that is refused."""
        self.send(frames(self.connections[at], b'{"event":'))

    @rule(at=st.integers(0, 2))
    def reconnect(self, at: int) -> None:
        """A connection that ends and begins anew, whether it has said who it is or not."""
        self.connections[at] = connection(len(self.kept) + 1_000)

    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """One worker folds a slice, and perhaps saves."""
        one = data.draw(st.sampled_from(self.workers))
        one.step(self.world.source)
        if data.draw(st.booleans()):
            one.save(self.world.source)

    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """One worker dies; what it had not saved is gone, and it comes back."""
        shard = data.draw(st.integers(0, len(self.workers) - 1))
        self.workers[shard] = self.world.runner(shard, len(self.workers))

    @rule(shards=st.integers(1, 4))
    def reshard(self, shards: int) -> None:
        """The server comes back with another number of shards, which may have been here before."""
        self.workers = self.world.runners(shards)

    @invariant()
    def states_are_a_function_of_the_log(self) -> None:
        """Caught up from wherever its saved states stand, every worker holds its part of the fold of the
        list.
        """
        if not hasattr(self, "workers"):
            return
        shards = len(self.workers)
        caught_up = self.world.runners(shards)
        for one in caught_up:
            run(one, self.world.source)
        assert union(caught_up) == plain_fold(self.world.reducers, ordered(self.kept))

    @rule()
    def all_catch_up(self) -> None:
        """The live workers themselves, with all they have been through, hold the fold of the list."""
        for one in self.workers:
            run(one, self.world.source)
        assert union(self.workers) == plain_fold(self.world.reducers, ordered(self.kept))


TestClassroom = ClassroomMachine.TestCase
TestClassroom.settings = settings(stateful_step_count=25)
