"""Stretches are handed out a few at a time, come back in order, and never wait while this process could check one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import IntegrityError, Job, StretchAnswer
from tools.verify_folder import in_order


class Awaited(Future[StretchAnswer]):
    """A future whose maker works on while somebody waits for it."""

    def __init__(self, others: Others) -> None:
        super().__init__()
        self._others = others

    def result(self, timeout: float | None = None) -> StretchAnswer:
        """Let the others answer first."""
        if self.running():
            self._others.finish()
        return super().result(5 if timeout is None else timeout)


class Others:
    """Other processes, which take up to `busy` jobs and answer when `finish` is called, or one is waited for."""

    def __init__(self, busy: int) -> None:
        self.busy = busy
        self.given: list[tuple[Job, Awaited]] = []
        self.most = 0

    def submit(self, job: Job) -> Future[StretchAnswer]:
        """Take a job; begin it if there are not too many begun."""
        future = Awaited(self)
        self.given.append((job, future))
        self.most = max(self.most, sum(not future.done() for _, future in self.given))
        self.begin()
        return future

    def begin(self) -> None:
        """Begin what comes next; what is begun cannot be taken back."""
        room = self.busy - sum(future.running() for _, future in self.given)
        for _, future in self.given:
            if room > 0 and not (future.done() or future.running()):
                future.set_running_or_notify_cancel()
                room -= 1

    def finish(self) -> None:
        """Answer all that is begun, and begin others."""
        for job, future in self.given:
            if future.running():
                future.set_result(answer(job))
        self.begin()


def answer(job: Job) -> StretchAnswer:
    """Return an answer that tells whose it is."""
    return StretchAnswer(controls=job.start)


def jobs(count: int, asked: list[int]) -> Iterator[Job]:
    """Yield jobs, and note which were asked for."""
    for start in range(count):
        asked.append(start)
        yield Job(start, start + 1, start, [], [])


@given(st.integers(0, 12), st.integers(1, 5), st.integers(1, 6), st.data())
def test_answers_come_in_the_order_of_the_jobs(
    count: int, busy: int, ahead: int, data: st.DataObject
) -> None:
    """Whoever checked which, and whenever the others answer; and no more are under way than there may be."""
    others, asked, mine, seen = Others(busy), list[int](), list[int](), list[int]()

    def check(job: Job) -> StretchAnswer:
        mine.append(job.start)
        if data.draw(st.booleans()):
            others.finish()
        return answer(job)

    for job, answered in in_order(jobs(count, asked), others.submit, check, ahead):
        assert answered.controls == job.start
        seen.append(job.start)
        assert len(asked) - len(seen) < ahead
        if data.draw(st.booleans()):
            others.finish()
    assert seen == list(range(count))
    assert others.most <= ahead
    assert len(set(mine)) == len(mine)


def test_this_process_checks_what_nobody_has_begun() -> None:
    """While another process is at the first of three, the second and the third are checked here, once each."""
    others, mine = Others(busy=1), list[int]()

    def check(job: Job) -> StretchAnswer:
        mine.append(job.start)
        if len(mine) == 2:
            others.finish()
        return answer(job)

    found = [job.start for job, _ in in_order(jobs(3, []), others.submit, check, 4)]
    assert (found, mine) == ([0, 1, 2], [1, 2])
    assert [future.cancelled() for _, future in others.given] == [False, True, True]


@pytest.mark.parametrize("failing", ["here", "there"])
def test_a_process_that_died_is_told_in_words(failing: str) -> None:
    """Whatever is still waiting is called off, and the error says what to look at."""
    others = Others(busy=1)

    def fail(job: Job) -> StretchAnswer:
        others.given[0][1].set_exception(BrokenProcessPool())
        if failing == "here":
            raise IntegrityError("page 7 is no page; is the file whole?")
        return answer(job)

    with pytest.raises(IntegrityError, match="is the file whole"):
        list(in_order(jobs(9, []), others.submit, fail, 4))
    assert all(future.done() for _, future in others.given)


def _checking(_: Job) -> StretchAnswer:
    raise AssertionError("there is nothing to check")


def test_of_no_jobs_nothing_comes() -> None:
    """An empty log asks nobody."""
    nobody: Callable[[Job], Future[StretchAnswer]] = Others(1).submit
    assert list(in_order(iter(()), nobody, _checking, 4)) == []
