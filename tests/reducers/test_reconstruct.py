"""The text of a document: equal to an oracle that knows nothing but UTF-16 code units."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive import Event
from reducers import fold
from reducers.contract import check
from reducers.reconstruct import DEPTH_MAX, POSITION_MAX, TYPE, Document, reconstruct

Command = dict[str, Any]
Units = list[int | None]

BMP = "abc xyz\né漢\uffff\ufeff"
ASTRAL = "🙂𝒳👩‍🚀\U0010ffff"


def save(*commands: Any, index: int = 0) -> Event:
    """An event that carries these commands in one bundle."""
    return event({"bundles": [{"commands": list(commands)}]}, index=index)


def event(data: Any, kind: str = TYPE, index: int = 0) -> Event:
    """An event with this payload."""
    keys = {"student": "ann", "doc_id": "essay"}
    return Event(index=index, type=kind, source="s", keys=keys, data=data, received_ms=0, time_ms=0)


def insert(s: str, ibi: int) -> Command:
    """The command that inserts."""
    return {"ty": "is", "s": s, "ibi": ibi}


def delete(si: int, ei: int) -> Command:
    """The command that deletes."""
    return {"ty": "ds", "si": si, "ei": ei}


def after(*commands: Any) -> Document:
    """The state after these commands, one event each."""
    state = reconstruct.initial()
    for command in commands:
        state = reconstruct.apply(state, save(command))
    return state


def text_after(*commands: Any) -> str:
    """The text shown after these commands."""
    shown: str = reconstruct.view(after(*commands))["text"]
    return shown


class Oracle:
    """A list of UTF-16 code units, None for padding.

    Halves of surrogate pairs that a command leaves alone become 0xFFFD in place, as the reducer promises.
    """

    def __init__(self) -> None:
        self.units: Units = []

    def run(self, command: Command) -> None:
        """Carry out one well-formed command."""
        if command["ty"] == "mlti":
            for each in command["mts"]:
                self.run(each)
            return
        if command["ty"] == "is" and command["s"]:
            self.units += [None] * (command["ibi"] - 1 - len(self.units))
            self.units[command["ibi"] - 1 : command["ibi"] - 1] = units_of(command["s"])
        elif command["ty"] == "ds":
            del self.units[command["si"] - 1 : command["ei"]]
        self.mend()

    def mend(self) -> None:
        """Replace each half that has lost its other half."""
        position = 0
        while position < len(self.units):
            unit, follower = self.units[position], (*self.units[position + 1 : position + 2], None)[0]
            if unit is None or not 0xD800 <= unit <= 0xDFFF:
                position += 1
            elif unit < 0xDC00 and follower is not None and 0xDC00 <= follower <= 0xDFFF:
                position += 2
            else:
                self.units[position] = 0xFFFD
                position += 1

    def text(self) -> str:
        """What readers are shown."""
        shown = [unit for unit in self.units if unit is not None]
        return b"".join(unit.to_bytes(2, "little") for unit in shown).decode("utf-16-le")


def units_of(text: str) -> list[int]:
    """UTF-16 code units, by arithmetic (Unicode 3.9, D91)."""
    units = []
    for point in map(ord, text):
        rest = point - 0x10000
        units += [point] if rest < 0 else [0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF)]
    return units


def scribble(rng: random.Random, size: int, letters: str) -> Command:
    """A command in the middle of a document of `size` units, now and then past its end."""
    kind = rng.random()
    if kind < 0.08:
        return {"ty": "mlti", "mts": [scribble(rng, size, letters) for _ in range(rng.randrange(4))]}
    reach = size + 1 if rng.random() < 0.98 else size + 6
    if kind < (0.6 if size < 150 else 0.35):
        return insert("".join(rng.choices(letters, k=rng.randrange(1, 5))), rng.randint(1, reach))
    start = rng.randint(1, reach)
    return delete(start, start + rng.choice([0, 0, 0, 1, 1, 2, 5]))


@pytest.mark.parametrize(
    "letters", [BMP, BMP + ASTRAL, ASTRAL + "\ud83d\ude42"], ids=["bmp", "mixed", "halves"]
)
def test_ten_thousand_edits_agree_with_the_oracle(letters: str) -> None:
    """After each of 10,000 insertions and deletions in mid-document, the text is that of the code units."""
    rng, oracle, state = random.Random(len(letters)), Oracle(), reconstruct.initial()
    for number in range(10_000):
        command = scribble(rng, len(oracle.units), letters)
        oracle.run(command)
        state = reconstruct.apply(state, save(command))
        assert reconstruct.view(state)["text"] == oracle.text(), (number, command)
        assert len(units_of(state.text)) == len(oracle.units), (number, command)
        assert state.wide == any(ord(character) > 0xFFFF for character in state.text)
    assert state.unknown == state.malformed == 0


LETTER = st.sampled_from([*"aé漢🙂", "\ud83d", "\ude42"]) | st.characters(exclude_characters="\0")
TEXT = st.lists(LETTER, max_size=4).map("".join)
POSITION = st.integers(1, 12)
EDIT = st.builds(insert, TEXT, POSITION) | st.builds(
    lambda si, more: delete(si, si + more), POSITION, st.integers(0, 4)
)
COMMAND = st.recursive(
    EDIT, lambda inner: st.builds(lambda mts: {"ty": "mlti", "mts": mts}, st.lists(inner, max_size=3))
)


@given(st.lists(COMMAND, max_size=12))
def test_any_edits_agree_with_the_oracle(commands: list[Command]) -> None:
    """The same for the short and odd sequences that hypothesis finds, carried out as one event."""
    oracle = Oracle()
    for command in commands:
        oracle.run(command)
    state = reconstruct.apply(reconstruct.initial(), save(*commands))
    assert reconstruct.view(state) == {"text": oracle.text(), "unknown": 0, "malformed": 0}


FIELDS = ["ty", "s", "ibi", "si", "ei", "mts", "bundles", "commands"]
WORDS = ["", "is", "ds", "mlti", "a\ud83d"]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=10,
)


@given(
    st.lists(JUNK | st.builds(lambda c: {"bundles": [{"commands": c}]}, st.lists(JUNK | COMMAND)), max_size=4)
)
@settings(max_examples=200)
def test_nothing_a_client_sends_is_fatal(payloads: list[Any]) -> None:
    """Any JSON in place of bundles, commands and fields leaves a storable state, and no quarantine."""
    slots = fold(reconstruct, [event(data, index=index) for index, data in enumerate(payloads)])
    for slot in slots.values():
        assert slot.error is None
        assert reconstruct.decode(reconstruct.encode(slot.state)) == slot.state


def test_indices_count_utf_16_units() -> None:
    """An emoji is two units, so what follows it stands two further on (ADR 0005)."""
    assert text_after(insert("🙂ab", 1), insert("-", 3)) == "🙂-ab"
    assert text_after(insert("🙂ab", 1), delete(1, 2)) == "ab"


def test_a_half_left_alone_is_replaced_and_keeps_its_place() -> None:
    """Deleting one half of an emoji leaves U+FFFD, and later indices still mean the same place."""
    state = after(insert("a🙂b", 1), delete(2, 2))
    assert state == Document("a\ufffdb", wide=False)
    assert reconstruct.apply(state, save(delete(2, 2))).text == "ab"
    assert text_after(insert("🙂", 1), insert("x", 2)) == "\ufffdx\ufffd"
    assert after(insert("ab", 1), insert("\ud83d", 2)) == Document("a\ufffdb")
    assert after(insert("\ud83d", 1), insert("\ude42", 2)) == Document("\ufffd\ufffd")


def test_a_missing_beginning_is_padded_and_not_shown() -> None:
    """Text whose beginning the log has not seen keeps its place, and fits when the beginning is filled in."""
    state = after(insert("end", 5))
    assert (state.text, reconstruct.view(state)["text"]) == ("\0\0\0\0end", "end")
    assert text_after(insert("end", 5), delete(1, 4), insert("the ", 1)) == "the end"
    assert text_after(insert("🙂", 3), delete(1, 2), insert("a", 3)) == "🙂a"


def test_a_deletion_past_the_end_is_clipped() -> None:
    """It takes what is there, and pads nothing."""
    assert after(insert("abc", 1), delete(3, 99), delete(50, 60)) == Document("ab")
    assert after(insert("a🙂", 1), delete(2, 10**30), delete(50, 60)) == Document("a")


def test_an_empty_insertion_does_nothing() -> None:
    """Not even past the end, where it would pad for nothing."""
    assert after(insert("", 9)) == Document()


def test_padding_is_bounded() -> None:
    """A few bytes from a client cannot ask for gigabytes: a position beyond any document is malformed."""
    assert after(insert("x", POSITION_MAX + 1), insert("x", 2**70)) == Document(malformed=2)
    assert len(after(insert("x", POSITION_MAX)).text) == POSITION_MAX


@pytest.mark.parametrize(
    "command",
    [
        {"ty": "is", "s": "x"},
        {"ty": "is", "ibi": 1},
        {"ty": "is", "s": 7, "ibi": 1},
        {"ty": "is", "s": "x", "ibi": 0},
        {"ty": "is", "s": "x", "ibi": -1},
        {"ty": "is", "s": "x", "ibi": True},
        {"ty": "is", "s": "x", "ibi": 1.0},
        {"ty": "is", "s": "x", "ibi": "1"},
        {"ty": "ds", "si": 1},
        {"ty": "ds", "ei": 1},
        {"ty": "ds", "si": 0, "ei": 1},
        {"ty": "ds", "si": 2, "ei": 1},
        {"ty": "ds", "si": True, "ei": True},
        {"ty": "mlti"},
        {"ty": "mlti", "mts": {}},
        {"ty": "mlti", "mts": [7]},
        {"ty": 7},
        {"ty": None},
        {},
        [],
        "is",
        None,
    ],
)
def test_a_malformed_command_is_counted_and_the_rest_carried_out(command: Any) -> None:
    """One command that makes no sense costs itself, not the event and not the key."""
    state = reconstruct.apply(after(insert("ab", 1)), save(command, insert("c", 3)))
    assert state == Document("abc", malformed=1)


@pytest.mark.parametrize("data", [None, [], "x", 7, {}, {"bundles": None}, {"bundles": {}}, {"bundles": [7]}])
def test_a_malformed_payload_is_counted(data: Any) -> None:
    """A payload without bundles, or a bundle without commands, counts once."""
    assert reconstruct.apply(Document("ab"), event(data)) == Document("ab", malformed=1)


def test_unknown_commands_are_counted() -> None:
    """Formatting and what we do not know leave the text alone, and are seen."""
    assert after(insert("ab", 1), {"ty": "as", "si": 1, "ei": 2}, {"ty": ""}) == Document("ab", unknown=2)


def test_nesting_is_bounded() -> None:
    """Commands nest up to 100 deep; what lies deeper is malformed, never a RecursionError."""

    def nested(depth: int) -> Command:
        command = insert("x", 1)
        for _ in range(depth):
            command = {"ty": "mlti", "mts": [command]}
        return command

    assert after(nested(DEPTH_MAX)) == Document("x")
    assert after(nested(DEPTH_MAX + 1)) == Document(malformed=1)
    assert after(nested(5_000)) == Document(malformed=1)


def test_other_events_leave_the_state_untouched() -> None:
    """Only google_docs_save changes a text: any other event returns the very state."""
    state = Document("ab")
    bundles = {"bundles": [{"commands": [insert("x", 1)]}]}
    for kind in ("google_docs_save_extra", "keystroke", ""):
        assert reconstruct.apply(state, event(bundles, kind)) is state
    assert reconstruct.apply(state, event({"bundles": []})) is state


def test_it_keeps_the_contract() -> None:
    """The laws hold for edits of all kinds, wide and narrow."""
    rng = random.Random(7)
    commands = [scribble(rng, number // 2, BMP + ASTRAL) for number in range(150)]
    check(reconstruct, [save(command, index=index) for index, command in enumerate(commands)])
