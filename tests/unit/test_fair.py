"""The fair queue: shares by weight, nobody forgotten, nothing remembered for nothing."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.triton.fair import FairQueue

NAMES = st.sampled_from("abcde")


def path(tenant, weight=1.0, stream="s"):
    return ((tenant, weight), (stream, 1.0))


@given(
    weights=st.dictionaries(NAMES, st.integers(1, 8), min_size=2),
    costs=st.lists(st.integers(1, 32), min_size=1, max_size=6),
    taken=st.integers(1, 150),
)
def test_the_backlogged_get_rows_in_proportion_to_their_weights(weights, costs, taken):
    queue = FairQueue()
    for number in range(taken):
        for name, weight in weights.items():
            cost = costs[number % len(costs)]
            queue.push((name, cost), path(name, weight), cost=cost, rank=0)
    served = Counter()
    for _ in range(taken):
        name, cost = queue.pop().value
        served[name] += cost
    shares = [served[name] / weight for name, weight in weights.items()]
    # The bound of start-time fair queueing: one largest request of either side.
    worst = max(costs) * 2 / min(weights.values())
    assert max(shares) - min(shares) <= worst


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(1, 9), st.integers(0, 5)), max_size=60))
def test_what_goes_in_comes_out_once_and_each_stream_by_rank(pushed):
    queue = FairQueue()
    for number, (tenant, stream, cost, rank) in enumerate(pushed):
        value = (tenant, stream, rank, number)
        queue.push(value, path(tenant, stream=stream), cost=cost, rank=rank)
    popped = [queue.pop().value for _ in range(len(queue))]
    assert sorted(v[3] for v in popped) == list(range(len(pushed)))
    for key in {v[:2] for v in popped}:
        of_stream = [v[2:] for v in popped if v[:2] == key]
        assert of_stream == sorted(of_stream)


@given(st.data())
def test_pushing_removing_and_popping_in_any_order_lose_nothing(data):
    queue, waiting = FairQueue(), {}
    for number in range(data.draw(st.integers(1, 60))):
        action = data.draw(st.sampled_from(["push", "push", "pop", "remove"]))
        if action == "push" or not waiting:
            where = path(data.draw(NAMES), stream=data.draw(NAMES))
            waiting[number] = queue.push(number, where, cost=1, rank=data.draw(st.integers(0, 3)))
        elif action == "pop":
            head = queue.peek()
            assert queue.pop() is head
            del waiting[head.value]
        else:
            queue.remove(waiting.pop(data.draw(st.sampled_from(sorted(waiting)))))
        assert len(queue) == len(waiting)
    assert {queue.pop().value for _ in range(len(queue))} == waiting.keys()


def test_one_who_comes_late_neither_waits_for_the_past_nor_overtakes_for_ever():
    queue = FairQueue()
    for number in range(40):
        queue.push(("old", number), path("old"), cost=1, rank=0)
    for _ in range(20):
        queue.pop()
    for number in range(10):
        queue.push(("new", number), path("new"), cost=1, rank=0)
    names = [queue.pop().value[0] for _ in range(10)]
    assert 4 <= names.count("new") <= 6


def test_who_has_had_much_is_not_next_because_somebody_new_came():
    queue = FairQueue()
    queue.push("greedy", path("greedy"), cost=10, rank=0)
    for _ in range(12):
        queue.push("modest", path("modest"), cost=1, rank=0)
    assert "greedy" in {queue.pop().value for _ in range(2)}
    queue.push("new", path("new"), cost=1, rank=0)
    queue.push("greedy again", path("greedy"), cost=10, rank=0)
    order = [queue.pop().value for _ in range(len(queue))]
    assert order[: order.index("greedy again")].count("modest") >= 8


def test_streams_of_a_tenant_share_what_the_tenant_gets():
    queue = FairQueue()
    for number in range(40):
        for stream in ("1", "2", "3"):
            queue.push(("many", stream), path("many", stream=stream), cost=1, rank=number)
        queue.push(("one", "1"), path("one", stream="1"), cost=1, rank=number)
    served = Counter(queue.pop().value for _ in range(24))
    assert served == {("many", "1"): 4, ("many", "2"): 4, ("many", "3"): 4, ("one", "1"): 12}


def test_ever_new_streams_in_a_rush_without_end_are_forgotten_again():
    queue = FairQueue()
    queue.push(0, path("t", stream="first"), cost=1, rank=0)
    for number in range(2000):
        queue.push(number, path("t", stream=str(number)), cost=1, rank=0)
        queue.pop()
    tenants = queue._root._shares
    assert len(tenants["t"].queue._shares) <= 129
