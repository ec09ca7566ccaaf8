"""How hosts are treated: the policy alone, with a clock that the test turns."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.host_limiter import Answer, HostBook, HostRules

HOST = "a.org"
GOOD, BAD = Answer(reached=True), Answer(reached=False)


def book(**rules) -> HostBook:
    settings = {"at_once": 2, "per_second": float("inf"), "failures": 3, "pause_s": 10}
    return HostBook(HostRules(**{**settings, **rules}))


def ask(book: HostBook, *tickets: int, now: float = 0.0) -> tuple[list[int], list[int]]:
    for ticket in tickets:
        book.ask(ticket, HOST)
    verdict = book.decide(HOST, now)
    return verdict.granted, verdict.refused


def fail(book: HostBook, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        assert ask(book, 0, now=now)[0] == [0]
        book.leave(HOST, BAD, now)


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["ask", "good", "bad", "busy", "wait"]), st.sampled_from("xy")),
        max_size=120,
    ),
    at_once=st.integers(1, 3),
    gap=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_no_host_is_asked_too_often_and_no_ticket_is_lost(moves, at_once, gap):
    rules = HostRules(at_once, 1 / gap if gap else 1e9, failures=2, pause_s=3)
    book, now = HostBook(rules), 0.0
    waiting, open_, last = defaultdict(list), defaultdict(int), {}
    ended: list[int] = []
    number = 0
    for what, host in moves:
        if what == "ask":
            number += 1
            book.ask(number, host)
            waiting[host].append(number)
        elif what == "wait":
            now += 1.0
        elif open_[host]:
            open_[host] -= 1
            answer = {"good": GOOD, "bad": BAD, "busy": Answer(True, pause_s=2.0)}[what]
            book.leave(host, answer, now)
        if not waiting[host]:
            continue
        verdict = book.decide(host, now)
        for _ in verdict.granted:
            assert host not in last or now - last[host] >= gap - 1e-9
            last[host] = now
            open_[host] += 1
        assert open_[host] <= at_once
        for ticket in verdict.granted + verdict.refused:
            waiting[host].remove(ticket)
            ended.append(ticket)
        if verdict.next_time is not None:
            assert verdict.next_time > now and waiting[host]
    assert sorted(ended + [t for host in waiting.values() for t in host]) == [*range(1, number + 1)]


def test_tickets_go_in_order_as_places_become_free():
    hosts = book()
    assert ask(hosts, 1, 2, 3, 4) == ([1, 2], [])
    hosts.leave(HOST, GOOD, 0)
    assert ask(hosts) == ([3], [])


def test_requests_are_spread_over_a_second():
    hosts = book(at_once=10, per_second=4)
    assert ask(hosts, 1, 2, 3) == ([1], [])
    assert hosts.decide(HOST, 0.2).next_time == pytest.approx(0.25)
    assert ask(hosts, now=0.25) == ([2], [])


def test_a_host_that_does_not_answer_is_left_alone_and_probed_once():
    hosts = book()
    fail(hosts, 3)
    assert ask(hosts, 1, 2, now=9.9) == ([], [1, 2])
    assert ask(hosts, 3, 4, now=10) == ([3], [])  # 4 waits for what the probe says
    hosts.leave(HOST, BAD, 11)
    assert ask(hosts, 5, now=30.9) == ([], [4, 5])  # twice as long
    assert ask(hosts, 6, 7, now=31) == ([6], [])
    hosts.leave(HOST, GOOD, 32)
    assert ask(hosts, 8, now=32) == ([7, 8], [])


def test_an_answer_ends_a_row_of_failures():
    hosts = book()
    fail(hosts, 2)
    ask(hosts, 1)
    hosts.leave(HOST, GOOD, 0)
    fail(hosts, 2)
    assert ask(hosts, 2) == ([2], [])


def test_a_host_that_asks_for_time_gets_it():
    hosts = book()
    ask(hosts, 1)
    hosts.leave(HOST, Answer(True, pause_s=5), 0)
    assert ask(hosts, 2, now=4.9) == ([], [])
    assert ask(hosts, now=5) == ([2], [])
    hosts.leave(HOST, Answer(True, pause_s=3600), 5)
    assert ask(hosts, 3, now=6) == ([], [3])  # more than anybody waits for
