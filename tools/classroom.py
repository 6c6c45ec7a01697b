"""Simulated students who write: the frames of a Learning Observer client, and the text they must give.

A student types key by key at a cursor, mistypes and corrects, goes back to put in or take out a word,
replaces one, and pauses to think.  All of it follows from a seed: demo, benchmark and test see the same.
Positions count UTF-16 units from 1, as Google Docs does (docs/adr/0005-text-indices.md).

>>> first, second = classroom(seed=1, students=2, words=5)
>>> first.user_id, second.user_id, first.document
('student-01', 'student-02', 'student-01-essay-1')
>>> delay_ms, frame = first.frames[-1]
>>> frame[:44]
b'{"event":"google_docs_save","source":"org.mi'

Who types it into a server is `tools.demo`; what a server makes of it, `reducers.reconstruct`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

SOURCE = "org.mitros.writing_analytics"
ORIGIN = "treering_classroom"
START_MS = 1_700_000_000_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = """
    tree ring year light water stone river season summer winter growth record bark root branch
    forest soil rain cloud morning question answer because although measure compare observe describe
    notice wonder explain read write listen remember together slowly often never always between
    under after before inside narrow wide old young thick thin warm cold early late café naïve señor
    über 🌳 every some many few this that these those
"""
WORDS = VOCABULARY.split()

Command = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Session:
    """One student writing one document over one connection."""

    user_id: str
    document: str
    frames: tuple[tuple[int, bytes], ...]
    """Milliseconds since the frame before, and the frame."""
    expected_text: str
    """The document after all of them."""


def classroom(seed: int, students: int, *, words: int = 60, start_ms: int = START_MS) -> Iterator[Session]:
    """Yield one session for each student, who writes about so many words, from `start_ms` (Unix ms) on."""
    for number in range(1, students + 1):
        yield session(seed, number, words=words, start_ms=start_ms)


def session(
    seed: int,
    student: int,
    *,
    essay: int = 1,
    words: int = 60,
    start_ms: int = START_MS,
    room: str | None = None,
) -> Session:
    """Return the session in which a student (numbered from 1) writes an essay (numbered from 1).

    With `room`, the client says which class it is in, as a field that it locks.
    """
    chance = random.Random(f"{seed}/{student}/{essay}")  # noqa: S311 - a simulation must be repeatable
    user_id = f"student-{student:02}"
    writer = _Writer(chance, f"{user_id}-essay-{essay}", start_ms)
    writer.introduce(user_id, room)
    for _ in range(words):
        writer.act()
    return Session(user_id, writer.document, tuple(writer.frames), "".join(writer.text))


@dataclass
class _Writer:
    chance: random.Random
    document: str
    time_ms: int
    text: list[str] = field(default_factory=list)
    cursor: int = 0
    frames: list[tuple[int, bytes]] = field(default_factory=list)

    def introduce(self, user_id: str, room: str | None = None) -> None:
        """Say who is writing, with what, and in which class."""
        fields = {"source": SOURCE, "version": "1"} | ({} if room is None else {"class": room})
        self.emit(self.chance.randint(0, 1_500), event="lock_fields", fields=fields)
        self.emit(5, event="test_framework_fake_identity", source=SOURCE, user_id=user_id, origin=ORIGIN)
        self.emit(5, event="metadata_finished", source=SOURCE, origin=ORIGIN)

    def act(self) -> None:
        """Do one thing that people do: mostly, write the next word at the end."""
        word, dice = self.chance.choice(WORDS), self.chance.random()
        starts = [at for at in range(len(self.text)) if self._begins_word(at)]
        if dice < 0.72 or len(starts) < 4:
            self.cursor = len(self.text)
            self.type(word + self.chance.choices([" ", ", ", ". ", ".\n"], [80, 8, 8, 4])[0])
        elif dice < 0.84:
            self.cursor = self.chance.choice(starts)
            self.type(word + " ")
        elif dice < 0.93:
            start = self.chance.choice(starts)
            self.save(self.pause_ms(), self.erase(start, self._end_of_word(start)))
        else:
            start = self.chance.choice(starts)
            erased = self.erase(start, self._end_of_word(start))
            self.save(self.pause_ms(), {"ty": "mlti", "mts": [erased, self.insert(word)]})

    def type(self, letters: str) -> None:
        """Type at the cursor, key by key, with a typing error now and then that is corrected at once."""
        for at, letter in enumerate(letters):
            if letter in LETTERS and self.chance.random() < 0.03:
                self.save(self.key_ms(), self.insert(self.chance.choice(LETTERS)))
                self.save(3 * self.key_ms(), self.erase(self.cursor - 1, self.cursor))
            self.save(self.key_ms() if at else self.pause_ms(), self.insert(letter))

    def insert(self, letters: str) -> Command:
        """Put letters in at the cursor, and move it behind them."""
        command = {"ty": "is", "s": letters, "ibi": self._position(self.cursor)}
        self.text[self.cursor : self.cursor] = letters
        self.cursor += len(letters)
        return command

    def erase(self, start: int, end: int) -> Command:
        """Take out what stands from `start` up to `end`, and leave the cursor there."""
        command = {"ty": "ds", "si": self._position(start), "ei": self._position(end) - 1}
        del self.text[start:end]
        self.cursor = start
        return command

    def save(self, delay_ms: int, command: Command) -> None:
        """Send what Google Docs sends when it saves."""
        self.emit(
            delay_ms,
            event="google_docs_save",
            source=SOURCE,
            doc_id=self.document,
            origin=ORIGIN,
            bundles=[{"commands": [command]}],
        )

    def emit(self, delay_ms: int, **fields: Any) -> None:
        """Add one frame."""
        self.time_ms += delay_ms
        self.frames.append((delay_ms, msgspec.json.encode({**fields, "timestamp": self.time_ms})))

    def key_ms(self) -> int:
        """Return the time to the next key."""
        return self.chance.randint(70, 260)

    def pause_ms(self) -> int:
        """Return the time to think: mostly short, sometimes seconds."""
        return self.chance.choices(
            [self.chance.randint(150, 700), self.chance.randint(1_000, 5_000)], [9, 1]
        )[0]

    def _begins_word(self, at: int) -> bool:
        return not self.text[at].isspace() and (at == 0 or self.text[at - 1].isspace())

    def _end_of_word(self, start: int) -> int:
        end = start
        while end < len(self.text) and not self.text[end].isspace():
            end += 1
        return end

    def _position(self, at: int) -> int:
        return 1 + sum(1 + (letter > "\uffff") for letter in self.text[:at])
