"""Quotas: what is refused, what waits, what is lost, and new files in flight."""

import asyncio
from unittest.mock import Mock

import grpc
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.errors import QuotaExceededError, SettingError
from orchestrator.ledger import Account, Ledger
from orchestrator.security.rates import FrameRates, TokenBucket
from orchestrator.security.tenants import Quota, Tenant, Tenants
from orchestrator.settings import SecuritySettings, ServerSettings
from tests.stream.streams import answered, gaps, play, recognitions
from tests.unit.scripted_server import scripted_server
from tests.unit.test_session import GOOD

CONFIG = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG)
LIVE = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG, delivery_mode=pb.DELIVERY_MODE_LIVE)
FRAMES = [pb.Frame(frame_index=i, data=GOOD) for i in range(12)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


ALONE = Ledger(ServerSettings())


def account() -> Account:
    return ALONE.account("acme")


def limited(tmp_path, quota: str) -> SecuritySettings:
    path = tmp_path / "tenants.toml"
    path.write_text(f"[tenants.default.quota]\n{quota}\n")
    return SecuritySettings(tenants_file=path, reload_s=1e-3)


def test_a_bucket_gives_a_second_at_once_and_its_rate_afterwards():
    clock = Clock()
    bucket = TokenBucket(10, clock=clock)
    given = 0
    for _ in range(100):
        for _ in range(3):
            if not bucket.is_empty:
                bucket.take(1)
                given += 1
        clock.now += 0.1
    assert 10 + 99 <= given <= 10 + 100


def test_a_frame_larger_than_a_seconds_bytes_is_late_but_never_stuck():
    clock = Clock()
    rates = FrameRates(None, 1000, account(), clock)
    assert rates.exceeded(5000) is None
    assert rates.exceeded(1) == "bytes_per_s"
    clock.now += 3.9
    assert rates.exceeded(1) == "bytes_per_s"
    clock.now += 0.2
    assert rates.exceeded(1) is None


def test_a_refused_frame_costs_no_tokens():
    clock = Clock()
    rates = FrameRates(1, None, account(), clock)
    assert [rates.exceeded(1) for _ in range(50)] == [None] * 2 + ["frames_per_s"] * 48
    clock.now += 1.01
    assert rates.exceeded(1) is None


async def test_lossless_frames_leave_room_for_live_ones():
    rates = FrameRates(200, None, account())

    async def greedy():
        while True:
            await rates.wait(1)

    greed = [asyncio.create_task(greedy()) for _ in range(3)]
    try:
        for _ in range(20):
            assert rates.exceeded(1) is None
            await asyncio.sleep(0.01)
    finally:
        for task in greed:
            task.cancel()
        await asyncio.gather(*greed, return_exceptions=True)


async def test_live_frames_beyond_the_rate_are_gaps_that_name_the_quota(tmp_path):
    security = limited(tmp_path, "frames_per_s = 0.5")
    async with scripted_server(security=security) as running:
        responses = await play(running.target, LIVE, FRAMES)
    lost = gaps(responses)
    assert len(lost) >= 8
    assert {reason for _, reason in lost} == {"QUOTA_EXCEEDED"}
    assert answered(responses) == list(range(12))
    details = {r.gap.detail for r in responses if r.HasField("gap")}
    assert details == {"quota.frames_per_s: tenant default may have 0.5 and has reached that"}


async def test_lossless_frames_beyond_the_rate_wait_and_none_is_lost(tmp_path):
    security = limited(tmp_path, "frames_per_s = 20")
    loop = asyncio.get_running_loop()
    async with scripted_server(security=security) as running:
        begun = loop.time()
        responses = await play(running.target, CONFIG, [*FRAMES, *more(12, 30)])
        seconds = loop.time() - begun
    assert len(recognitions(responses)) == 30
    assert seconds > 0.8  # ten of the thirty at once, the others at 20 a second


def more(first: int, end: int) -> list[pb.Frame]:
    return [pb.Frame(frame_index=i, data=GOOD) for i in range(first, end)]


async def test_one_stream_too_many_is_refused_naming_the_quota_and_fits_later(tmp_path):
    security = limited(tmp_path, "streams = 1")
    async with (
        scripted_server(security=security) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
        await call.write(pb.RecognizeStreamRequest(config=CONFIG))
        assert (await call.read()).HasField("started")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await play(running.target, CONFIG, FRAMES[:1])
        assert caught.value.code().name == "RESOURCE_EXHAUSTED"
        assert "quota.streams" in caught.value.details()
        await call.done_writing()
        assert (await call.read()).HasField("summary")
        assert await call.read() is grpc.aio.EOF
        assert len(recognitions(await play(running.target, CONFIG, FRAMES[:1]))) == 1


async def test_pictures_larger_than_the_quota_are_refused_or_lost(tmp_path):
    security = limited(tmp_path, "max_pixels = 1000")
    announced = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG, width_px=160, height_px=96)
    async with scripted_server(security=security) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await play(running.target, announced, FRAMES[:1])
        assert caught.value.code().name == "RESOURCE_EXHAUSTED"
        assert "quota.max_pixels" in caught.value.details()
        just_allowed = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG, width_px=40, height_px=25)
        for config in (CONFIG, just_allowed):
            assert gaps(await play(running.target, config, FRAMES[:2])) == [
                (0, "DECODE_ERROR"),
                (1, "DECODE_ERROR"),
            ]


async def test_single_images_count_towards_the_rates(tmp_path):
    security = limited(tmp_path, "frames_per_s = 0.1")
    request = pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_JPEG, data=GOOD)
    async with (
        scripted_server(security=security) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        stub = pb_grpc.PlayerRecognitionServiceStub(channel)
        for _ in range(2):
            await stub.RecognizeFrame(request)
        refused = []
        for _ in range(3):
            try:
                await stub.RecognizeFrame(request)
            except grpc.aio.AioRpcError as error:
                refused.append(f"{error.code().name} {error.details()}")
    assert refused
    assert all(text.startswith("RESOURCE_EXHAUSTED quota.frames_per_s") for text in refused)


def test_a_place_comes_back_whatever_happens():
    tenant = Tenant("acme", account(), quota=Quota(streams=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), tenant.place():
            raise ZeroDivisionError
    with tenant.place(), pytest.raises(QuotaExceededError), tenant.place():
        pass


def test_a_changed_file_revises_tenants_and_keeps_their_open_streams(tmp_path):
    path = tmp_path / "tenants.toml"
    path.write_text("[tenants.acme]\nweight = 2\nquota = {streams = 2}\n[tenants.gone]\n")
    tenants = Tenants(path, ALONE, reload_s=1e-9)
    acme = tenants.get("acme")
    assert acme is not None
    with acme.place():
        path.write_text("[tenants.acme]\nweight = 5\nquota = {streams = 1}\n[tenants.new]\n")
        assert tenants.get("acme") is acme
        assert (acme.weight, acme.quota.streams) == (5, 1)
        with pytest.raises(QuotaExceededError), acme.place():
            pass
    assert tenants.get("gone") is None
    assert tenants.get("new") is not None


def test_a_broken_or_missing_new_file_leaves_the_old_tenants(tmp_path, caplog):
    path = tmp_path / "tenants.toml"
    path.write_text("[tenants.acme]\n")
    tenants = Tenants(path, ALONE, reload_s=1e-9)
    path.write_text("[tenants.acme]\nweight = -1\n")
    assert tenants.get("acme") is not None
    assert "tenants.acme.weight: Input should be greater than 0" in caplog.text
    path.unlink()
    assert tenants.get("acme") is not None
    assert "cannot read" in caplog.text


def test_a_tenant_without_room_for_an_account_comes_once_there_is(tmp_path, monkeypatch, caplog):
    path = tmp_path / "tenants.toml"
    path.write_text("[tenants.acme]\n")
    tenants = Tenants(path, ALONE, reload_s=1e-9)
    acme = tenants.get("acme")
    path.write_text("[tenants.acme]\n[tenants.new]\n")
    with monkeypatch.context() as meanwhile:
        full = Mock(side_effect=OSError(28, "No space left on device"))
        meanwhile.setattr(ALONE, "account", full)
        assert tenants.get("acme") is acme
        assert tenants.get("new") is None
    assert "No space left on device" in caplog.text
    assert tenants.get("new") is not None
    assert tenants.get("acme") is acme


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("tenants = [", "expected TOML"),
        ("[tenants.acme]\nwieght = 2", r"tenants\.acme\.wieght"),
        ("[tenants.acme.quota]\nstreams = 0", r"tenants\.acme\.quota\.streams"),
        ("[tenants.acme.quota]\nframes_per_s = nan", r"tenants\.acme\.quota\.frames_per_s"),
        ("[tenants.'Acme Corp']", r"tenants\.Acme Corp"),
        ("[tenant.acme]", r"tenant: Extra"),
    ],
)
def test_a_wrong_file_is_refused_at_start_naming_the_field(tmp_path, content, says):
    path = tmp_path / "tenants.toml"
    path.write_text(content)
    with pytest.raises(SettingError, match=says) as caught:
        Tenants(path, ALONE, reload_s=1)
    assert caught.value.setting == "security.tenants_file"
