"""Policies: what they decide, against a definition that recurses, and every line that is refused."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merkle import (
    Checkpoint,
    Cosigner,
    Ed25519Signer,
    Ed25519Verifier,
    FormatError,
    Policy,
    Signature,
    SignatureError,
    check_policy,
    open_note,
    sign_note,
)
from tests.merkle.rfc6962 import vectors

GOLDEN = vectors("policy")
LOG = Ed25519Signer("example.com/log", bytes(32))
WITNESSES = [Cosigner(f"witness.example/{n}", bytes([n]) * 32) for n in range(1, 7)]
KEYS = [one.verifier.encode() for one in WITNESSES]
CHECKPOINT = Checkpoint("example.com/log", 7, bytes(32))


def policy(*lines: str) -> Policy:
    """Return a policy over our log and witnesses w1 … w6."""
    defined = [f"witness w{n} {key} http://127.0.0.1/{n}" for n, key in enumerate(KEYS, 1)]
    return Policy.parse("\n".join([f"log {LOG.verifier.encode()}", *defined, *lines, ""]).encode())


def cosigned(*numbers: int, text: str = CHECKPOINT.encode()) -> bytes:
    """Return the checkpoint, signed by the log and these witnesses at time 100 + their number."""
    return sign_note(text, [LOG, *(WITNESSES[n - 1].at(100 + n) for n in numbers)])


@pytest.mark.parametrize("case", GOLDEN["notes"], ids=lambda case: str(case["name"]))
def test_the_golden_policy_decides_as_it_did(case: dict[str, Any]) -> None:
    """The policy of docs/formats/policy.md says of each note who signed it, when, and whether they are enough."""
    made = Policy.parse(GOLDEN["policy"].encode())
    assert [one.url for one in made.witnesses] == GOLDEN["asked"]
    if "refused" in case:
        with pytest.raises(SignatureError):
            check_policy(case["note"].encode(), made)
        return
    check = check_policy(case["note"].encode(), made)
    assert isinstance(check.log, Ed25519Verifier)
    assert (check.log.encode(), check.checkpoint.size, check.met) == (case["log"], case["size"], case["met"])
    assert [[one.name, one.time_s] for one in check.cosigned] == case["cosigned"]


@pytest.mark.parametrize("case", GOLDEN["refused"])
def test_what_is_no_policy_in_the_vectors_is_refused_at_its_line(case: dict[str, Any]) -> None:
    """Each of these breaks one rule of the page."""
    with pytest.raises(FormatError, match=f"^line {case['line']}: "):
        Policy.parse(case["text"].encode())


def test_the_example_of_the_specification_decides_as_it_says() -> None:
    """Two of three X-witnesses and one of three Y-witnesses, for all 64 sets of witnesses."""
    made = policy(
        "group X-witnesses 2 w1 w2 w3",
        "group Y-witnesses any w4 w5 w6",
        "group X-and-Y all X-witnesses Y-witnesses",
        "quorum X-and-Y",
    )
    names = [f"w{n}" for n in range(1, 7)]
    for count in range(7):
        for some in combinations(names, count):
            enough = len({"w1", "w2", "w3"} & set(some)) >= 2 and bool({"w4", "w5", "w6"} & set(some))
            assert made.met(set(some)) == enough, some


def test_who_signed_is_told_with_the_times() -> None:
    """A check says which log and which witnesses signed, by the policy's names, and whether they are enough."""
    made = policy("group two 2 w1 w2 w3", "quorum two")
    check = check_policy(cosigned(1, 3, 5), made)
    assert (check.checkpoint, check.log, check.met) == (CHECKPOINT, LOG.verifier, True)
    assert [(one.name, one.time_s) for one in check.cosigned] == [("w1", 101), ("w3", 103), ("w5", 105)]
    assert not check_policy(cosigned(1, 5), made).met
    assert not check_policy(cosigned(), made).met


def test_one_witness_and_none_may_be_the_quorum() -> None:
    """`quorum w2` needs that one; `quorum none` needs nobody, but still the log."""
    assert check_policy(cosigned(2), policy("quorum w2")).met
    assert not check_policy(cosigned(1), policy("quorum w2")).met
    assert check_policy(cosigned(), policy("quorum none")).met
    assert policy("quorum none").asks_nobody
    assert not policy("quorum w2").asks_nobody
    with pytest.raises(SignatureError):
        check_policy(sign_note(CHECKPOINT.encode(), [WITNESSES[0].at(1)]), policy("quorum none"))


def test_signing_twice_does_not_count_twice() -> None:
    """A witness that signs the same checkpoint again, at another time, is still one."""
    note = sign_note(CHECKPOINT.encode(), [LOG, WITNESSES[0].at(1), WITNESSES[0].at(2)])
    assert not check_policy(note, policy("group two 2 w1 w2", "quorum two")).met


def test_unknown_signatures_are_tolerated_and_wrong_ones_are_not() -> None:
    """Witnesses that the policy does not name change nothing; a named one whose signature does not fit does."""
    made = policy("quorum w1")
    stranger = Signature("stranger.example", b"\0\0\0\0", b"?").encode()
    assert check_policy(cosigned(1) + f"{stranger}\n".encode(), made).met
    key = WITNESSES[1].verifier
    wrong = Signature(key.name, key.key_id, bytes(72)).encode()
    with pytest.raises(SignatureError, match="does not fit"):
        check_policy(cosigned(1) + f"{wrong}\n".encode(), made)


def test_a_log_does_not_sign_for_another_one() -> None:
    """A key that the policy names for one origin says nothing about a checkpoint of another."""
    text = Checkpoint("example.com/other", 7, bytes(32)).encode()
    with pytest.raises(SignatureError, match="no log of the policy"):
        check_policy(cosigned(1, text=text), policy("quorum w1"))


def test_a_log_may_be_known_from_elsewhere() -> None:
    """A policy without logs serves where the log's key is known by other means."""
    made = Policy.parse(b"quorum none\n")
    assert check_policy(cosigned(), made, [LOG.verifier]).met
    with pytest.raises(SignatureError):
        check_policy(cosigned(), made)


def test_white_space_comments_and_octets_are_read_as_specified() -> None:
    """Spaces and tabs may stand anywhere between and around items; names and comments may hold any high octet."""
    text = f"\n \t\n# c\xe9\n\t# c\n  witness \t W\xff\xe2 \t{KEYS[0]}  \nquorum  W\xff\xe2\t\n"
    made = Policy.parse(text.encode("latin-1"))
    name = b"W\xff\xe2".decode(errors="surrogateescape")
    assert (made.quorum, made.witnesses[0].name, made.witnesses[0].url) == (name, name, None)
    assert made.met({name})


def test_names_are_octets_not_letters() -> None:
    """A kelvin sign is not the letter K, and a no-break space does not part two items."""
    text = f"witness K {KEYS[0]}\nwitness \u212a {KEYS[1]}\nwitness a\xa0b {KEYS[2]}\nquorum \u212a\n"
    made = Policy.parse(text.encode())
    assert [one.name for one in made.witnesses] == ["K", "\u212a", "a\xa0b"]
    assert made.met({"\u212a"})
    assert not made.met({"K"})


def test_every_octet_that_is_no_control_character_may_stand_in_a_comment() -> None:
    """From the first to the last of each stretch: space to tilde, and 80 to ff; and the tab."""
    octets = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
    assert Policy.parse(b"#" + octets + b"\nquorum none\n").quorum == "none"
    for octet in {*range(0x20), 0x7F} - {0x09, 0x0A}:
        with pytest.raises(FormatError, match=f"line 1: control character {octet:02x}"):
            Policy.parse(b"# " + bytes([octet]) + b"\nquorum none\n")


def test_addresses_are_kept() -> None:
    """Where a log is read and where a witness is asked stands on its line, if anywhere."""
    key = Ed25519Signer("example.com/other", bytes(32)).verifier.encode()
    made = policy(
        f"log {Ed25519Signer('b.example', bytes([9]) * 32).verifier.encode()} https://b.example", "quorum w1"
    )
    assert [one.url for one in made.logs] == [None, "https://b.example"]
    assert [one.url for one in made.witnesses] == [f"http://127.0.0.1/{n}" for n in range(1, 7)]
    with pytest.raises(FormatError, match="line 2: the key of 'example"):
        Policy.parse(f"log {LOG.verifier.encode()}\nlog {key}\nquorum none\n".encode())


def test_a_witness_under_the_name_of_the_log_is_not_the_log() -> None:
    """Name and key id together say who signed: a cosignature under the origin is still a cosignature."""
    namesake = Cosigner(LOG.name, bytes([8]) * 32)
    made = policy(f"witness namesake {namesake.verifier.encode()}", "quorum namesake")
    check = check_policy(sign_note(CHECKPOINT.encode(), [namesake.at(9), LOG]), made)
    assert (check.log, check.met) == (LOG.verifier, True)
    with pytest.raises(SignatureError, match="no log of the policy"):
        check_policy(sign_note(CHECKPOINT.encode(), [namesake.at(9)]), made)


def test_of_two_keys_of_a_log_the_first_that_signed_is_named() -> None:
    """While a log rotates, both of its keys may stand below a checkpoint."""
    new = Ed25519Signer(LOG.name, bytes([7]) * 32)
    made = policy(f"log {new.verifier.encode()}", "quorum none")
    for signers in ([new, LOG], [LOG, new]):
        assert check_policy(sign_note(CHECKPOINT.encode(), signers), made).log == signers[0].verifier


WITNESS = f"witness w {KEYS[0]}\n"
REFUSED = {
    "a word that starts no line": ("quorums none\n", "line 1: 'quorums' starts no line"),
    "no quorum": (WITNESS, "no quorum line"),
    "an empty file": ("", "no quorum line"),
    "two quorums": ("quorum none\nquorum none\n", "line 2: there is a quorum line above"),
    "no newline at the end": ("quorum none", "line 1: it does not end in a newline"),
    "a carriage return": ("quorum none\r\n", "line 1: control character 0d"),
    "a delete character": ("# \x7f\nquorum none\n", "line 1: control character 7f"),
    "a form feed": ("\n\x0c\nquorum none\n", "line 2: control character 0c"),
    "a log without key": ("log\n", r"line 1: expected: log <vkey> \[<url>\]$"),
    "a log with too many items": (
        f"log {LOG.verifier.encode()} u u\n",
        r"line 1: expected: log <vkey> \[<url>\]$",
    ),
    "a witness without key": ("witness w\n", r"line 1: expected: witness <name> <vkey> \[<url>\]$"),
    "a witness with too many items": (f"witness w {KEYS[0]} u u\n", "line 1: expected: witness"),
    "a quorum of nobody": ("quorum\n", "line 1: expected: quorum <name>$"),
    "a quorum of two": ("quorum none none\n", "line 1: expected: quorum <name>$"),
    "a log's key as a witness's": (f"witness w {LOG.verifier.encode()}\n", "line 1: .* of type 01"),
    "a witness's key as a log's": (f"log {KEYS[0]}\n", "line 1: .* of type 04"),
    "a mistyped key": (f"witness w {KEYS[0][:-4]}AAA=\n", "line 1: "),
    "the same log twice": (f"log {LOG.verifier.encode()}\n" * 2, "line 2: the key of"),
    "the same key under another name": (
        WITNESS + f"witness v {Cosigner('other', bytes([1]) * 32).verifier.encode()}\n",
        "line 2: the key of 'other' is that of 'witness.example/1'",
    ),
    "a name twice": (WITNESS + f"witness w {KEYS[1]}\n", "line 2: 'w' is taken"),
    "a group called like a witness": (WITNESS + "group w any w\n", "line 2: 'w' is taken"),
    "a witness called none": (f"witness none {KEYS[0]}\n", "line 1: 'none' is taken"),
    "a group called none": (WITNESS + "group none any w\n", "line 2: 'none' is taken"),
    "none as a member": (WITNESS + "group g any none\n", "line 2: 'none' is no witness or group"),
    "a member of a later line": (f"group g any w\n{WITNESS}quorum g\n", "line 1: 'w' is no witness"),
    "a group of itself": (WITNESS + "group g any g\n", "line 2: 'g' is no witness"),
    "a quorum of a later line": (f"quorum w\n{WITNESS}", "line 1: 'w' is no witness"),
    "a group of nobody": ("group g any\n", "line 1: expected: group <name> <k, all or any> <member>...$"),
    "a member twice in a group": (WITNESS + "group g 1 w w\n", "line 2: 'w' is a member already"),
    "a member of two groups": (WITNESS + "group g any w\ngroup h any w\n", "line 3: 'w' is a member already"),
    "a threshold of 0": (WITNESS + "group g 0 w\n", "line 2: a group of 1 needs"),
    "a threshold above n": (WITNESS + "group g 2 w\n", "line 2: a group of 1 needs"),
    "a threshold with a sign": (WITNESS + "group g +1 w\n", "line 2: a group of 1 needs"),
    "a threshold with a zero before": (WITNESS + "group g 01 w\n", "line 2: a group of 1 needs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_mistake_is_refused_with_its_line(name: str) -> None:
    """A policy decides whom to trust: what is not exactly right is not taken for something near it."""
    text, complaint = REFUSED[name]
    with pytest.raises(FormatError, match=complaint):
        Policy.parse(text.encode())


@given(st.binary(max_size=80) | st.text("quorum none\n\twitns#glop1 ", max_size=40).map(str.encode))
def test_any_bytes_are_a_policy_or_are_refused(data: bytes) -> None:
    """No bytes make the reader fail in any other way."""
    with suppress(FormatError):
        assert isinstance(Policy.parse(data), Policy)


def test_large_policies_are_read() -> None:
    """32 logs, 32 witnesses and 32 groups, as the specification recommends, and more."""
    lines = [f"log {Ed25519Signer(f'log{n}', bytes([n]) * 32).verifier.encode()}" for n in range(40)]
    lines += [f"witness w{n} {Cosigner(f'w{n}', bytes([n]) * 32).verifier.encode()}" for n in range(40)]
    lines += ["group g0 any w0", *(f"group g{n} all g{n - 1} w{n}" for n in range(1, 40)), "quorum g39"]
    made = Policy.parse("\n".join([*lines, ""]).encode())
    everybody = {f"w{n}" for n in range(40)}
    assert made.met(everybody)
    assert not any(made.met(everybody - {one}) for one in everybody)


def test_a_cosignature_without_a_time_counts_for_no_quorum() -> None:
    """It says of no moment that the log was seen: as in a witness's answer, it is none."""
    asked = policy("group g any w1 w2", "quorum g")
    verified = open_note(cosigned(1, 2), [one.verifier for one in WITNESSES]).verified
    first, second = verified
    untimed = dataclasses.replace(first, signature=bytes(8) + first.signature[8:])
    assert [(one.name, one.time_s) for one in asked.cosigned([first, second])] == [("w1", 101), ("w2", 102)]
    assert [one.name for one in asked.cosigned([untimed, second])] == ["w2"]
    assert asked.cosigned([untimed]) == ()
