"""What worker processes count together: exact in a race, and right again after a kill."""

import subprocess
import sys

import pytest

from orchestrator.errors import QuotaExceededError
from orchestrator.ledger import Ledger
from orchestrator.security.rates import FrameRates
from orchestrator.security.tenants import Tenants
from orchestrator.settings import ServerSettings
from tests.unit.test_tenants import Clock

# Takes and gives back the only place for a while: two that have it at once clash over a directory.
# Then takes all it can get of 37, says how many, and keeps them.
RACER = """
import os, sys
from orchestrator.ledger import Ledger
from orchestrator.settings import ServerSettings
number, directory = sys.argv[1:]
settings = ServerSettings(workers=4, worker=number, worker_directory=directory)
account = Ledger(settings).account("acme")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(500):
    if account.take_place(1):
        os.mkdir(f"{directory}/mine")
        os.rmdir(f"{directory}/mine")
        account.give_place_back()
print("done", flush=True)
sys.stdin.readline()
print(sum(account.take_place(37) for _ in range(100)), flush=True)
sys.stdin.readline()
"""


def ask(racers: list[subprocess.Popen[str]]) -> list[str]:
    """Tell all to go on, then return what they say."""
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return [racer.stdout.readline().strip() for racer in racers]


@pytest.fixture
def worker(tmp_path):
    """Make the ledger of a worker; each open of a lock file is another holder to the kernel."""
    ledgers = []

    def make(number: int) -> Ledger:
        settings = ServerSettings(workers=4, worker=number, worker_directory=tmp_path)
        ledgers.append(Ledger(settings))
        return ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close()


def test_what_workers_have_open_counts_together(worker):
    first, second = worker(0).account("acme"), worker(1).account("acme")
    assert [first.take_place(3), second.take_place(3), first.take_place(3)] == [True] * 3
    assert not first.take_place(3)
    assert not second.take_place(3)
    second.give_place_back()
    assert first.take_place(3)
    assert not first.take_place(3)


def test_accounts_are_apart_and_without_a_limit_everything_counts(worker):
    account, other = worker(0).account("acme"), worker(1).account("other")
    assert all(account.take_place(None) for _ in range(9))
    assert other.take_place(1)
    assert not account.take_place(9)


def test_a_worker_that_left_counts_no_more_and_begins_again_with_nothing(worker):
    first, second = worker(0), worker(1)
    account = first.account("acme")
    assert all(second.account("acme").take_place(4) for _ in range(3))
    second.close()
    assert all(account.take_place(4) for _ in range(4))
    assert not worker(1).account("acme").take_place(4)
    account.give_place_back()
    assert worker(2).account("acme").take_place(4)


def test_workers_that_ask_at_once_get_no_place_too_many_and_a_killed_one_frees_its_own(
    worker, tmp_path
):
    racers = [
        subprocess.Popen(
            (sys.executable, "-c", RACER, str(number), str(tmp_path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1, 2)
    ]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
        assert ask(racers) == ["done"] * 3
        taken = [int(count) for count in ask(racers)]
        assert sum(taken) == 37
        account = worker(3).account("acme")
        assert not account.take_place(37)
        busiest = taken.index(max(taken))
        racers[busiest].kill()
        racers[busiest].wait(60)
        assert [account.take_place(37) for _ in range(max(taken) + 1)] == [
            *[True] * max(taken),
            False,
        ]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def test_streams_in_several_workers_share_one_rate(worker):
    clock = Clock()
    shares = [FrameRates(10, 1000, worker(n).account("acme"), clock) for n in range(3)]
    passed = 0
    for tick in range(100):
        passed += sum(shares[(tick + k) % 3].exceeded(1) is None for k in range(3))
        clock.now += 0.1
    assert 10 + 99 <= passed <= 10 + 100


def test_a_large_frame_in_one_worker_holds_those_in_the_others_back(worker):
    clock = Clock()
    one, other = (FrameRates(None, 1000, worker(n).account("acme"), clock) for n in range(2))
    assert one.exceeded(5000) is None
    clock.now += 3.9
    assert other.exceeded(1) == "bytes_per_s"
    clock.now += 0.2
    assert other.exceeded(1) is None


async def test_lossless_streams_in_several_workers_wait_for_the_same_rate(worker):
    one, other = (FrameRates(50, None, worker(n).account("acme")) for n in range(2))
    while one.exceeded(1) is None:
        pass
    assert other._pass_or_wait(1) > 0
    await other.wait(1)
    assert one._pass_or_wait(1) > 0


def test_a_changed_quota_holds_for_what_is_open_in_all_workers(worker, tmp_path):
    path = tmp_path / "tenants.toml"
    path.write_text("[tenants.acme]\n")
    here, there = (Tenants(path, worker(n), reload_s=1e-9) for n in range(2))
    with here.get("acme").place():
        path.write_text("[tenants.other]\n")
        assert (here.get("acme"), there.get("acme")) == (None, None)
        path.write_text("[tenants.acme.quota]\nstreams = 1\n")
        for tenants in (here, there):
            with pytest.raises(QuotaExceededError), tenants.get("acme").place():
                pass
    with there.get("acme").place():
        pass
