"""Activations and messages: emitted once, from the activation on, by the reducers that are active, and by no replay."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reducers import Reducer
from replay import Runner
from tests.replay.kept import Kept, activation, world_of
from tests.world import bare, chatty, connection, event, frames, run, seen, touchy, union


def heard(*runners: Runner) -> list[tuple[int, str]]:
    """Return (index of the event, type) of every message that waits to be sent, in order."""
    return [(each.at, each.message.type) for one in runners for each in one.outbox]


def test_before_its_activation_a_module_is_mute() -> None:
    """Messages are emitted from the activation on: never for what came before it, in no replay."""
    kept = Kept(world_of([chatty, seen]))
    kept.append(event("ann"), event("ann"))
    one = kept.world.runner()
    run(one, kept.world.source)
    assert heard(one) == []
    kept.world.steer(activation(seen, chatty))
    third, fourth = kept.append(event("ann"), event("ann"))
    run(one, kept.world.source)
    want = [(third, "chatty.heard"), (third, "chatty.third"), (fourth, "chatty.heard")]
    assert heard(one) == want
    anew = bare(kept.world)
    run(anew, kept.world.source)
    assert heard(anew) == want
    assert union([anew]) == union([one]) == kept.fold()


@pytest.mark.parametrize(
    "active", [[seen], [chatty], [seen, chatty, touchy], []], ids=["fewer", "alone", "more", "none"]
)
def test_reducers_that_are_not_the_active_ones_are_mute(active: list[Reducer[Any]]) -> None:
    """Only exactly the reducers that are active emit: not those of yesterday, and not those of tomorrow."""
    world = world_of([chatty, seen])
    if active:
        world.steer(activation(*active))
    world.steer(activation(seen, chatty, module="another"))
    world.append([event("ann")])
    one = world.runner()
    run(one, world.source)
    assert heard(one) == []


def test_the_last_activation_counts() -> None:
    """Replaced, a module is mute; activated once more, it emits from there on and not from its first time."""
    world = world_of([chatty, seen])
    world.steer(activation(seen, chatty))
    world.append([event("ann")])
    world.steer(activation(seen))
    world.append([event("ann")])
    world.steer(activation(chatty, seen, undo=True))
    (receipt,) = world.append([event("bob")])
    one = world.runner()
    run(one, world.source)
    assert heard(one) == [(receipt.index, "chatty.heard")]


def test_activating_what_is_active_takes_nothing_back() -> None:
    """Where two workers activate the same reducers, what lies between the two entries is emitted all the same."""
    world = world_of([chatty])
    world.steer(activation(chatty))
    (receipt,) = world.append([event("ann")])
    world.steer(activation(chatty))
    one = world.runner()
    run(one, world.source)
    assert heard(one) == [(receipt.index, "chatty.heard")]


def test_a_message_of_the_backlog_is_emitted_at_its_binding() -> None:
    """An event from before the activation that is bound after it is new to the module, hence emitted."""
    world, lo = world_of([chatty]), connection()
    early = world.append(frames(lo, {"event": "a"}))[0].index
    world.steer(activation(chatty))
    world.append(frames(lo, {"event": "b", "user_id": "ann"}))
    one = world.runner()
    run(one, world.source)
    assert heard(one)[0] == (early, "chatty.heard")
    (first, *_) = one.outbox
    assert (first.module, first.reducer, first.key, first.ordinal, first.hops) == (
        "all", "chatty", ("testcase-ann",), 0, 1,
    )  # fmt: skip
    assert first.message.keys == {"student": "testcase-ann"}
    assert len(first.subjects) == 1


def test_a_failed_event_emits_nothing_and_folding_again_says_what_a_rebuild_says() -> None:
    """What was said before an exception does not count; a key that is folded again says what a fold from the beginning
    says, so that a restart at another time has nothing to add.
    """
    kept = Kept(world_of([chatty]))
    kept.world.steer(activation(chatty))
    first, mute, after = kept.append(event("ann"), event("ann", "mute"), event("ann"))
    one = kept.world.runner()
    run(one, kept.world.source)
    assert heard(one) == [(first, "chatty.heard")]
    one.sent()
    assert one.outbox == []
    kept.skip("chatty", mute)
    run(one, kept.world.source)
    assert heard(one) == [(first, "chatty.heard"), (after, "chatty.heard")]
    again = bare(kept.world)
    run(again, kept.world.source)
    assert sorted(one.outbox) == sorted(again.outbox)
    one.sent()
    (last,) = kept.append(event("ann"))
    run(one, kept.world.source)
    assert heard(one) == [(last, "chatty.heard"), (last, "chatty.third")]
    one.sent()
    one.save(kept.world.source)
    assert union([one]) == kept.fold()
    assert after < last


def test_new_code_speaks_from_where_the_old_code_stopped() -> None:
    """Events that the old code has not seen when it was replaced are spoken for by the new code, and by no other."""
    world = world_of([chatty])
    world.steer(activation(chatty))
    (spoken, unspoken) = (one.index for one in world.append([event("ann"), event("bob")]))
    body = msgspec.structs.replace(activation(chatty), since=unspoken)
    world.steer(activation(seen))
    world.steer(body)
    (after,) = (one.index for one in world.append([event("ann")]))
    one = world.runner()
    run(one, world.source)
    assert heard(one) == [(unspoken, "chatty.heard"), (after, "chatty.heard")]
    assert spoken < unspoken


def test_the_position_is_not_saved_before_the_messages_are_sent() -> None:
    """A message that is not in the log yet would be lost with the worker: saving first is a bug that shows."""
    world = world_of([chatty])
    world.steer(activation(chatty))
    world.append([event("ann")])
    one = world.runner()
    run(one, world.source)
    with pytest.raises(AssertionError, match="outbox"):
        one.save(world.source)
    one.sent()
    one.save(world.source)
