"""Streams that are resumed in another worker than theirs."""

import asyncio
import json

import grpc
import pytest

from orchestrator.errors import ConnectionLostError
from orchestrator.handover import Handover
from orchestrator.security.keys import add_key
from orchestrator.settings import SecuritySettings, ServerSettings
from tests.unit.relay import Relay
from tests.unit.scripted_server import scripted_server
from tests.unit.stream_calls import call, config, end_of, finish, is_free, send, two_workers

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_stream_of_another_worker_is_resumed_there(tmp_path):
    async with two_workers(tmp_path) as (first, second):
        async with call(first.target) as (stream, started):
            before = await send(stream, range(4))
        await is_free(first)
        async with call(second.target, resume_token=started.resume_token) as (stream, again):
            assert (again.is_resumed, again.stream_id) == (True, started.stream_id)
            after = await send(stream, range(2, 7))
            summary = await finish(stream)
    assert after[:2] == before[2:]
    assert summary.recognized_frame_count == 7


async def test_the_audit_log_names_the_client_of_a_call_that_was_handed_over(tmp_path):
    security = SecuritySettings(audit_file=tmp_path / "audit.jsonl")
    forged = (("x-touchline-peer", "ipv4:192.0.2.1:1"),)
    async with two_workers(tmp_path, security=security) as (first, second):
        async with call(first.target, metadata=forged) as (_, started):
            pass
        await is_free(first)
        async with call(second.target, metadata=forged, resume_token=started.resume_token) as (
            stream,
            again,
        ):
            assert again.is_resumed
            await finish(stream)
    entries = [json.loads(line) for line in security.audit_file.read_text().splitlines()]
    peers = [entry["peer"] for entry in entries if entry["event"] == "started"]
    assert len(peers) == 2
    assert all(peer.startswith("ipv4:127.0.0.1:") for peer in peers)


async def test_the_worker_that_a_call_is_handed_over_to_knows_who_calls(tmp_path):
    (tmp_path / "tenants.toml").write_text("[tenants.acme]\n")
    (tmp_path / "keys.json").write_text("[]")
    security = SecuritySettings(
        tenants_file=tmp_path / "tenants.toml", api_keys_file=tmp_path / "keys.json"
    )
    headers = (("x-api-key", add_key(security.api_keys_file, "acme")),)
    async with two_workers(tmp_path, security=security) as (first, second):
        async with call(first.target, metadata=headers) as (_, started):
            pass
        await is_free(first)
        async with call(second.target, metadata=headers, resume_token=started.resume_token) as (
            stream,
            again,
        ):
            assert again.is_resumed
            await finish(stream)


async def test_a_handed_over_call_that_breaks_leaves_the_stream_to_be_resumed(tmp_path):
    async with two_workers(tmp_path) as (first, second), Relay(second.target) as relay:
        async with call(first.target) as (older, started):
            await send(older, range(2))
            token = started.resume_token
            async with call(relay.target, resume_token=token) as (newer, again):
                assert again.is_resumed
                assert (await end_of(older))[0] == "ABORTED"
                await send(newer, range(2, 4))
                relay.cut()
                await is_free(first)
        async with call(second.target, resume_token=token) as (stream, again):
            assert again.is_resumed
            await stream.write(config())
            assert await end_of(stream) == (
                "INVALID_ARGUMENT",
                "frame: expected in every message after the first",
            )


class GoneContext:
    """A call whose client is gone, which nothing but writing to it tells so far."""

    def invocation_metadata(self):
        return ()

    def peer(self):
        return "ipv4:192.0.2.1:1"

    async def write(self, response):
        raise grpc.aio.UsageError("RPC already finished.")


async def never():
    await asyncio.Event().wait()
    yield


async def test_a_handed_over_call_whose_client_is_gone_says_so():
    async with scripted_server() as holder:
        relay = Handover(ServerSettings()).relay
        with pytest.raises(ConnectionLostError):
            await relay(holder.target, config().config, never(), GoneContext())
        await is_free(holder)


async def test_a_stream_whose_worker_is_gone_starts_afresh(tmp_path):
    async with (
        scripted_server(workers=2, worker=1, worker_directory=tmp_path) as second,
        call(second.target, resume_token="0.gone") as (stream, started),
    ):
        assert not started.is_resumed
        await send(stream, range(2))
        assert (await finish(stream)).recognized_frame_count == 2
