"""Two operators, in any order, dying at any call: the current version is always whole, and nothing staged gets lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from rotation_stores import KINDS, Content, Killed, Store, store_of
from support import CLIENT_ID

from wise_creds import LoadError, RotationError, Secret, rotation
from wise_creds.testing import Authority

AUTHORITY = Authority()
PAIRS = [
    {"certificate": one.pem.decode().rstrip(), "private_key": one.key_pem.decode().rstrip()}
    for one in (AUTHORITY.client(CLIENT_ID) for _ in range(3))
]
FIRST = {"client_id": CLIENT_ID, "client_secret": "secret-0", "environment": "sandbox", **PAIRS[0]}
GIVEN: list[Content] = [
    {"client_secret": "secret-1"},
    {"client_secret": "secret-2"},
    PAIRS[1],
    {**PAIRS[2], "client_secret": "secret-3"},
    {"private_key": PAIRS[1]["private_key"]},
    {"certificate": PAIRS[2]["certificate"]},
]
Step = Callable[..., object]


STEPS: list[Step] = [
    partial(rotation.stage, client_secret=Secret("secret-4")),
    partial(rotation.stage, certificate=PAIRS[1]["certificate"], private_key=Secret(PAIRS[1]["private_key"])),
    rotation.promote,
    rotation.rollback,
    rotation.discard,
]
CRASHES = st.one_of(st.none(), st.tuples(st.integers(1, 12), st.booleans()))
EXAMPLES = {"files": 20, "aws": 6, "vault": 5}  # as many as some seconds allow
Crash = tuple[int, bool] | None


def whole(content: Content) -> bool:
    """Whether all is there, and the key belongs to the certificate."""
    pair = {name: content[name] for name in ("certificate", "private_key")}
    return content.keys() == FIRST.keys() and pair in PAIRS


class Rotations(RuleBasedStateMachine):
    """
    What operators do with one store.

    Attributes:
        waiting: the set that was staged and must be found again.
        known: every set that was staged by somebody or was there in the beginning.
    """

    store: Store

    @initialize()
    def fill(self) -> None:
        self.store.put(FIRST)
        self.waiting: Content | None = None
        self.known = [FIRST]

    @rule(given=st.sampled_from(GIVEN), crash=CRASHES)
    def stage(self, given: Content, crash: Crash) -> None:
        base = self.store.pending() or self.store.current()
        wanted = {**base, **given}
        secrets = {name: Secret(value) for name, value in given.items() if name != "certificate"}
        done = self.doing(crash, rotation.stage, certificate=given.get("certificate"), **secrets)
        self.known.append(wanted)
        if done:
            self.waiting = wanted
        else:
            # Nobody was told that it is staged; what was staged before is still there or under it.
            assert self.store.pending() in (wanted, self.waiting)
            self.waiting = self.store.pending()

    @rule(given=st.sampled_from(GIVEN), crash=CRASHES)
    def rotate(self, given: Content, crash: Crash) -> None:
        self.stage(given, None)
        self.promote(crash)

    @precondition(lambda self: self.waiting is not None)
    @rule(crash=CRASHES)
    def promote(self, crash: Crash) -> None:
        before, staged = self.store.current(), self.waiting
        done = self.doing(crash, rotation.promote)
        if done:
            assert (self.store.current(), self.store.pending()) == (staged, None)
        assert self.store.current() in (before, staged)
        if self.store.current() == staged:
            self.waiting = self.store.pending()

    @precondition(lambda self: len(self.known) > 1)
    @rule(crash=CRASHES)
    def rollback(self, crash: Crash) -> None:
        current = self.store.current()
        self.store.age()
        self.doing(crash, rotation.rollback)
        if self.store.pending() != self.waiting:
            # A promotion that died halfway: what it made current is not staged any more.
            assert (self.waiting, self.store.pending()) == (current, None)
            self.waiting = None

    @precondition(lambda self: self.waiting is not None)
    @rule(crash=CRASHES)
    def discard(self, crash: Crash) -> None:
        done = self.doing(crash, rotation.discard)
        assert self.store.pending() in ((None,) if done else (None, self.waiting))
        self.waiting = self.store.pending()

    @precondition(lambda self: self.store.table["provider"] != "files")  # there the second waits for the first's lock
    @rule(one=st.sampled_from(STEPS), other=st.sampled_from(STEPS), at=st.integers(2, 9))
    def meanwhile(self, one: Step, other: Step, at: int) -> None:
        """Another operator takes a whole step between two calls of the first one's."""
        calls = 0

        def overtaken(_name: str, call: Callable[[], Any]) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                self.store.on_call = None
                self.note(other)
                self.tried(other)
            return call()

        self.note(one)
        self.store.on_call = overtaken
        self.tried(one)
        self.store.on_call = None
        self.waiting = self.store.pending()

    @invariant()
    def the_current_version_is_whole(self) -> None:
        assert whole(self.store.current())
        assert self.store.current() in self.known

    @invariant()
    def what_is_staged_is_there(self) -> None:
        assert self.store.pending() == self.waiting

    def doing(self, crash: Crash, step: Step, **given: Any) -> bool:
        """Take a step, die in it perhaps; whether it came to its end."""
        at, before = crash or (10**6, True)
        if self.store.table["provider"] != "files" and crash is not None:
            at = 1 + at % 3  # no step writes more often
        with self.store.dying(at, before=before):
            return self.tried(partial(step, **given))

    def tried(self, step: Step) -> bool:
        config = {"sandbox": {**self.store.table, "base_url": "https://127.0.0.1:9"}}
        try:
            step("sandbox", config=config)
        except (Killed, RotationError, LoadError):
            return False
        return True

    def note(self, step: Step) -> None:
        """Remember every set that a step may come to stage."""
        if isinstance(step, partial):
            given = {
                name: getattr(value, "reveal", lambda value=value: value)() for name, value in step.keywords.items()
            }
            self.known += [{**base, **given} for base in self.known]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each of the three."""
    with store_of(request.param, tmp_path / "store") as opened:
        yield opened


def test_whatever_two_operators_do_the_current_version_is_whole(store: Store) -> None:
    """And what one of them staged is there until it is promoted, replaced or dropped."""
    machine = type("RotationsOfThisStore", (Rotations,), {"store": store})
    chosen = settings(
        max_examples=EXAMPLES[store.table["provider"]],
        stateful_step_count=8,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=chosen)


def test_the_machine_would_notice_a_torn_set(store: Store) -> None:
    """The control: a promotion that takes any set, and one that forgets what is staged."""
    assert not whole({**FIRST, "certificate": PAIRS[1]["certificate"]})
    assert not whole({name: value for name, value in FIRST.items() if name != "client_secret"})
    careless = Rotations.__new__(Rotations)
    careless.store, careless.waiting, careless.known = store, FIRST, [FIRST]
    store.put({**FIRST, "certificate": PAIRS[1]["certificate"]})
    for invariant_ in (careless.the_current_version_is_whole, careless.what_is_staged_is_there):
        with pytest.raises(AssertionError):
            invariant_()
