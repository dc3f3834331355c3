"""Who is let in: API keys and tokens, over a real channel, and how little a refusal says."""

import json
import time

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.client import BROKEN_WRITE
from orchestrator.errors import SettingError, UnauthenticatedError
from orchestrator.ledger import Ledger
from orchestrator.security.auth import Authenticator
from orchestrator.security.keys import add_key, list_keys, revoke_key
from orchestrator.security.tokens import TokenVerifier
from orchestrator.settings import JwtSettings, SecuritySettings, ServerSettings
from tests.unit.scripted_server import scripted_server

ALONE = Ledger(ServerSettings())
TENANTS = "[tenants.acme]\nweight = 2\n"
ISSUER, AUDIENCE = "https://id.example", "touchline"
SIGNING = ec.generate_private_key(ec.SECP256R1())
CONFIG = pb.RecognizeStreamRequest(config=pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG))
REFUSED = ("UNAUTHENTICATED", "expected valid credentials: an API key or a token")


def jwk(key, **more) -> dict[str, str]:
    return json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key)) | more


def token(*, key=SIGNING, algorithm="ES256", kid: str | None = "k1", **changed) -> str:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "tenant": "acme", "exp": time.time() + 600}
    claims = {k: v for k, v in (claims | changed).items() if v is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else None)


WEAK = jwt.algorithms.RSAAlgorithm.to_jwk(
    rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key(), as_dict=True
)


@pytest.fixture
def security(tmp_path) -> SecuritySettings:
    """Both kinds of credentials; files are looked at before every call."""
    (tmp_path / "tenants.toml").write_text(TENANTS)
    (tmp_path / "keys.json").write_text("[]")
    keys = {"keys": [jwk(SIGNING.public_key(), kid="k1", use="sig")]}
    (tmp_path / "jwks.json").write_text(json.dumps(keys))
    return SecuritySettings(
        tenants_file=tmp_path / "tenants.toml",
        api_keys_file=tmp_path / "keys.json",
        jwt=JwtSettings(jwks_file=tmp_path / "jwks.json", issuer=ISSUER, audience=AUDIENCE),
        audit_file=tmp_path / "audit.jsonl",
        reload_s=1e-3,
    )


async def outcome(target: str, **metadata: str) -> tuple[str, str]:
    """Status and text of an empty stream opened with some metadata."""
    headers = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    async with grpc.aio.insecure_channel(target) as channel:
        stub = pb_grpc.PlayerRecognitionServiceStub(channel)
        for _ in range(5):
            call = stub.RecognizeStream(iter([CONFIG]), metadata=headers)
            try:
                kinds = [response.WhichOneof("response") async for response in call]
            except grpc.aio.AioRpcError as error:
                if error.details() != BROKEN_WRITE:
                    return error.code().name, str(error.details())
            else:
                return "OK", ",".join(kinds)
    pytest.fail("no call came through")


async def test_a_key_opens_streams_in_either_header(security):
    key = add_key(security.api_keys_file, "acme")
    async with scripted_server(security=security) as running:
        assert await outcome(running.target, x_api_key=key) == ("OK", "started,summary")
        assert (await outcome(running.target, authorization=f"Bearer {key}"))[0] == "OK"
        assert (await outcome(running.target, authorization=f"bearer {key}"))[0] == "OK"


async def test_a_token_opens_streams(security):
    async with scripted_server(security=security) as running:
        assert (await outcome(running.target, authorization=f"Bearer {token()}"))[0] == "OK"
        only_key = f"Bearer {token(kid=None)}"
        assert (await outcome(running.target, authorization=only_key))[0] == "OK"


BAD_METADATA = [
    {},
    {"authorization": ""},
    {"authorization": "Bearer "},
    {"authorization": "Basic dXNlcjpwYXNz"},
    {"x_api_key": "touchline_"},
    {"x_api_key": "touchline_000000000000_" + "A" * 43},
    {"x_api_key": token()},
    {"authorization": "Bearer eyJ.eyJ.x"},
    {"authorization": "Bearer " + "A" * 8000},
]


@pytest.mark.parametrize("metadata", BAD_METADATA, ids=range(len(BAD_METADATA)))
async def test_bad_credentials_are_refused_with_one_and_the_same_text(security, metadata):
    add_key(security.api_keys_file, "acme")
    async with scripted_server(security=security) as running:
        assert await outcome(running.target, **metadata) == REFUSED


BAD_TOKENS = {
    "expired": {"exp": time.time() - 60},
    "no expiry": {"exp": None},
    "expiry beyond numbers": {"exp": "never"},
    "endless": {"exp": float("inf")},
    "expiry a list": {"exp": []},
    "expiry beyond all time": {"exp": 10**400},
    "not yet valid": {"nbf": time.time() + 86_400},
    "another issuer": {"iss": "https://id.example.evil"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "billing"},
    "no audience": {"aud": None},
    "no tenant": {"tenant": None},
    "tenant no text": {"tenant": ["acme"]},
    "another key": {"key": ec.generate_private_key(ec.SECP256R1())},
    "unknown key id": {"kid": "k2"},
    "key id no text": {"kid": "../k1"},
    "another algorithm": {
        "key": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "algorithm": "RS256",
    },
    "secret shared": {"key": "k" * 64, "algorithm": "HS256"},
    "unsigned": {"key": None, "algorithm": "none"},
}


@pytest.mark.parametrize("changed", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_token_that_is_not_the_issuers_for_us_and_now_is_refused(security, changed):
    authenticator = Authenticator(security, ALONE)
    authenticator.authenticate([("authorization", f"Bearer {token()}")])
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate([("authorization", f"Bearer {token(**changed)}")])


@pytest.mark.parametrize(("named", "accepted"), [({}, True), ({"alg": "RS256"}, False)])
def test_a_key_that_names_no_algorithm_serves_for_all_of_its_kind(security, named, accepted):
    key = rsa.generate_private_key(65537, 2048)
    entry = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    keys = {"keys": [{**entry, "kid": "k1", "alg": None, **named}]}
    security.jwt.jwks_file.write_text(json.dumps(keys))
    settings = security.jwt.model_copy(update={"algorithms": ("PS256", "ES256")})
    verifier = TokenVerifier(settings, reload_s=1)
    if accepted:
        assert verifier.verify(token(key=key, algorithm="PS256")).tenant == "acme"
    else:
        with pytest.raises(UnauthenticatedError):
            verifier.verify(token(key=key, algorithm="PS256"))
    for algorithm, other in (("RS256", key), ("ES256", SIGNING)):
        with pytest.raises(UnauthenticatedError):
            verifier.verify(token(key=other, algorithm=algorithm))


def test_a_clock_that_differs_a_little_shuts_nobody_out(security):
    late, early = token(exp=time.time() - 10), token(nbf=time.time() + 10)
    for one in (late, early):
        assert Authenticator(security, ALONE).authenticate([("authorization", f"Bearer {one}")])


def test_a_token_that_names_no_key_fits_only_where_there_is_one(security):
    nameless = [("authorization", f"Bearer {token(kid=None)}")]
    assert Authenticator(security, ALONE).authenticate(nameless)
    another = ec.generate_private_key(ec.SECP256R1()).public_key()
    keys = {"keys": [jwk(SIGNING.public_key(), kid="k1"), jwk(another, kid="k2")]}
    security.jwt.jwks_file.write_text(json.dumps(keys))
    with pytest.raises(UnauthenticatedError):
        Authenticator(security, ALONE).authenticate(nameless)


def test_a_token_with_a_tampered_claim_is_refused(security):
    header, _, signature = token().split(".")
    _, claims, _ = token(tenant="other").split(".")
    with pytest.raises(UnauthenticatedError, match="credentials"):
        Authenticator(security, ALONE).authenticate(
            [("authorization", f"Bearer {header}.{claims}.{signature}")]
        )


async def test_a_tenant_that_nobody_knows_is_denied(security):
    key = add_key(security.api_keys_file, "stranger")
    async with scripted_server(security=security) as running:
        for metadata in (
            {"x_api_key": key},
            {"authorization": f"Bearer {token(tenant='stranger')}"},
        ):
            code, details = await outcome(running.target, **metadata)
            assert code == "PERMISSION_DENIED", details
            assert "stranger" not in details


async def test_single_images_ask_for_credentials_and_are_not_read_without(security):
    key = add_key(security.api_keys_file, "acme")
    oversized = pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_JPEG, data=bytes(8 << 10))
    async with (
        scripted_server(security=security, max_frame_bytes=1 << 10) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        stub = pb_grpc.PlayerRecognitionServiceStub(channel)
        known = (("x-api-key", key),)
        for metadata, code in (((), "UNAUTHENTICATED"), (known, "RESOURCE_EXHAUSTED")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.RecognizeFrame(oversized, metadata=metadata)
            assert caught.value.code().name == code


async def test_health_is_open_and_reflection_is_not(security):
    async with (
        scripted_server(security=security) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert await reflected(channel) == "UNAUTHENTICATED"


async def test_reflection_can_be_switched_off():
    for is_on, code in ((True, "OK"), (False, "UNIMPLEMENTED")):
        async with (
            scripted_server(security=SecuritySettings(reflection=is_on)) as running,
            grpc.aio.insecure_channel(running.target) as channel,
        ):
            assert await reflected(channel) == code


async def reflected(channel: grpc.aio.Channel) -> str:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([request]))
    try:
        assert [reply async for reply in call]
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_a_new_key_opens_and_a_revoked_one_closes_without_a_restart(security):
    async with scripted_server(security=security) as running:
        key = add_key(security.api_keys_file, "acme")
        assert (await outcome(running.target, x_api_key=key))[0] == "OK"
        (stored,) = list_keys(security.api_keys_file)
        revoke_key(security.api_keys_file, stored.id)
        assert await outcome(running.target, x_api_key=key) == REFUSED


@pytest.mark.parametrize("withdrawn", ["key", "tenant", "token"])
async def test_a_running_stream_ends_soon_after_its_credentials(security, withdrawn):
    key = add_key(security.api_keys_file, "acme")
    grace = security.jwt.model_copy(update={"stream_grace_s": 1.0, "leeway_s": 0})
    security = security.model_copy(update={"jwt": grace})
    lasting = token(exp=time.time() + 1) if withdrawn == "token" else key
    async with (
        scripted_server(security=security) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream(
            metadata=[("authorization", f"Bearer {lasting}")]
        )
        await call.write(CONFIG)
        assert (await call.read()).HasField("started")
        if withdrawn == "key":
            revoke_key(security.api_keys_file, list_keys(security.api_keys_file)[0].id)
        if withdrawn == "tenant":
            security.tenants_file.write_text("")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code().name == "UNAUTHENTICATED"


def test_a_stream_outlives_its_token_by_the_grace_and_no_longer(security, monkeypatch):
    authenticator = Authenticator(security, ALONE)
    expires = time.time() + 600
    principal = authenticator.authenticate([("authorization", f"Bearer {token(exp=expires)}")])
    for after, is_valid in ((-1, True), (4 * 3600 - 2, True), (4 * 3600 + 1, False)):
        monkeypatch.setattr(time, "time", lambda after=after: expires + after)
        assert authenticator.is_valid(principal) is is_valid


def test_a_broken_key_file_is_named_and_not_quoted(security):
    digest = "ab" * 31
    entry = {"id": "0" * 12, "tenant": "acme", "sha256": digest}
    security.api_keys_file.write_text(json.dumps([entry]))
    with pytest.raises(SettingError) as caught:
        Authenticator(security, ALONE)
    assert caught.value.setting == "security.api_keys_file"
    assert "0.sha256: " in str(caught.value)
    assert digest not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"keys": []}',
        '{"keys": [1]}',
        '{"keys": [{"kty": "AKP", "kid": "k1"}]}',
        json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}]}),
        json.dumps({"keys": [jwk(SIGNING, kid="k1")]}),
        json.dumps({"keys": [jwk(SIGNING.public_key(), kid="k1")] * 2}),
        json.dumps({"keys": [WEAK]}),
    ],
)
def test_a_key_set_that_is_none_or_holds_secrets_is_refused(security, content):
    security.jwt.jwks_file.write_text(content)
    with pytest.raises(SettingError) as caught:
        Authenticator(security, ALONE)
    assert caught.value.setting == "security.jwt.jwks_file"


def test_a_key_of_an_unknown_kind_does_not_shut_out_the_others(security, caplog):
    new = {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA", "kid": "after-quantum"}
    keys = {"keys": [new, jwk(SIGNING.public_key(), kid="k1"), {"kty": "EC", "kid": []}]}
    security.jwt.jwks_file.write_text(json.dumps(keys))
    authenticator = Authenticator(security, ALONE)
    assert authenticator.authenticate([("authorization", f"Bearer {token()}")])
    assert "after-quantum" in caplog.text
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate([("authorization", f"Bearer {token(kid='after-quantum')}")])


@pytest.mark.parametrize("missing", ["issuer", "audience"])
def test_tokens_need_issuer_and_audience(security, missing):
    incomplete = security.jwt.model_copy(update={missing: ""})
    with pytest.raises(SettingError, match=missing):
        Authenticator(security.model_copy(update={"jwt": incomplete}), ALONE)


def test_credentials_need_tenants(security):
    with pytest.raises(SettingError, match="security.tenants_file"):
        Authenticator(security.model_copy(update={"tenants_file": None}), ALONE)


def test_without_credentials_everybody_is_the_default_tenant(tmp_path):
    principal = Authenticator(SecuritySettings(), ALONE).authenticate([])
    assert (principal.tenant.name, principal.tenant.weight) == ("default", 1.0)
    path = tmp_path / "tenants.toml"
    path.write_text("[tenants.default]\nquota = {streams = 3}\n")
    limited = Authenticator(SecuritySettings(tenants_file=path), ALONE).authenticate([])
    assert limited.tenant.quota.streams == 3
