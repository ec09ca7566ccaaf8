"""The host policy alone, at times that the test sets."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.host_limiter import Answer, HostPolicy, HostRules

HOST = "a.org"
GOOD, BAD = Answer(reached=True), Answer(reached=False)


def policy(**rules) -> HostPolicy:
    settings = {
        "max_concurrent_requests": 2,
        "max_requests_per_second": float("inf"),
        "max_consecutive_failures": 3,
        "pause_s": 10,
    }
    return HostPolicy(HostRules(**{**settings, **rules}))


def ask(policy: HostPolicy, *tickets: int, now: float = 0.0) -> tuple[list[int], list[int]]:
    for ticket in tickets:
        policy.add(ticket, HOST)
    decision = policy.decide(HOST, now)
    return decision.granted, decision.refused


def fail(policy: HostPolicy, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        assert ask(policy, 0, now=now)[0] == [0]
        policy.release(HOST, [BAD], now)


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["ask", "good", "bad", "busy", "wait"]), st.sampled_from("xy")),
        max_size=120,
    ),
    max_concurrent_requests=st.integers(1, 3),
    gap=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_limits_hold_and_no_ticket_is_lost(moves, max_concurrent_requests, gap):
    rules = HostRules(
        max_concurrent_requests, 1 / gap if gap else 1e9, max_consecutive_failures=2, pause_s=3
    )
    policy, now = HostPolicy(rules), 0.0
    waiting, open_, last = defaultdict(list), defaultdict(int), {}
    ended: list[int] = []
    number = 0
    for what, host in moves:
        if what == "ask":
            number += 1
            policy.add(number, host)
            waiting[host].append(number)
        elif what == "wait":
            now += 1.0
        elif open_[host]:
            open_[host] -= 1
            answer = {"good": GOOD, "bad": BAD, "busy": Answer(True, pause_s=2.0)}[what]
            policy.release(host, [answer], now)
        if not waiting[host]:
            continue
        decision = policy.decide(host, now)
        for _ in decision.granted:
            assert host not in last or now - last[host] >= gap - 1e-9
            last[host] = now
            open_[host] += 1
        assert open_[host] <= max_concurrent_requests
        for ticket in decision.granted + decision.refused:
            waiting[host].remove(ticket)
            ended.append(ticket)
        if decision.next_time is not None:
            assert decision.next_time > now and waiting[host]
    assert sorted(ended + [t for host in waiting.values() for t in host]) == [*range(1, number + 1)]


def test_tickets_are_granted_in_order_as_requests_end():
    hosts = policy()
    assert ask(hosts, 1, 2, 3, 4) == ([1, 2], [])
    hosts.release(HOST, [GOOD], 0)
    assert ask(hosts) == ([3], [])


def test_requests_are_spaced_by_the_rate():
    hosts = policy(max_concurrent_requests=10, max_requests_per_second=4)
    assert ask(hosts, 1, 2, 3) == ([1], [])
    assert hosts.decide(HOST, 0.2).next_time == pytest.approx(0.25)
    assert ask(hosts, now=0.25) == ([2], [])


def test_a_host_that_does_not_answer_is_paused_and_probed_once():
    hosts = policy()
    fail(hosts, 3)
    assert ask(hosts, 1, 2, now=9.9) == ([], [1, 2])
    assert ask(hosts, 3, 4, now=10) == ([3], [])  # 4 waits for the result of the probe
    hosts.release(HOST, [BAD], 11)
    assert ask(hosts, 5, now=30.9) == ([], [4, 5])  # twice as long
    assert ask(hosts, 6, 7, now=31) == ([6], [])
    hosts.release(HOST, [GOOD], 32)
    assert ask(hosts, 8, now=32) == ([7, 8], [])


def test_an_answer_resets_the_count_of_failures():
    hosts = policy()
    fail(hosts, 2)
    ask(hosts, 1)
    hosts.release(HOST, [GOOD], 0)
    fail(hosts, 2)
    assert ask(hosts, 2) == ([2], [])


def test_a_pause_that_a_host_asks_for_is_kept():
    hosts = policy()
    ask(hosts, 1)
    hosts.release(HOST, [Answer(True, pause_s=5)], 0)
    assert ask(hosts, 2, now=4.9) == ([], [])
    assert ask(hosts, now=5) == ([2], [])
    hosts.release(HOST, [Answer(True, pause_s=3600)], 5)
    assert ask(hosts, 3, now=6) == ([], [3])  # longer than a fetcher waits


def test_a_ticket_of_several_requests_takes_their_time_of_the_rate():
    hosts = policy(max_concurrent_requests=10, max_requests_per_second=4)
    hosts.add(1, HOST, 8)
    assert ask(hosts, 2) == ([1], [])
    assert hosts.decide(HOST, 0).next_time == pytest.approx(2)
    hosts.release(HOST, [GOOD], 0.5, num_unused=6)
    assert ask(hosts, now=0.5) == ([2], [])


def test_answers_before_a_failure_reset_the_count_of_failures():
    hosts = policy()
    for now in range(5):
        assert ask(hosts, now, now=now) == ([now], [])
        hosts.release(HOST, [GOOD, BAD], now)
    assert not hosts.is_paused(HOST, 5)


def test_a_probe_that_was_not_sent_is_followed_by_another():
    hosts = policy()
    fail(hosts, 3)
    assert ask(hosts, 1, 2, now=10) == ([1], [])
    hosts.release(HOST, [], 11)
    assert ask(hosts, 3, now=11) == ([2], [])
    assert hosts.is_paused(HOST, 11)
