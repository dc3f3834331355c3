"""Settings from the environment: what cannot be used is named in one line."""

import pytest

from orchestrator.__main__ import main
from orchestrator.environment import read_settings
from orchestrator.errors import SettingError


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SERVER__PORT", "http", "server.port: "),
        ("SERVER__PORT", "", "server.port: "),
        ("SERVER__PROT", "1", "server.prot: "),
        ("SERVER", "50051", "server: "),
        ("SERVR__PORT", "1", "TOUCHLINE_SERVR__PORT: expected one of "),
        ("SERVER__DRAIN_S", "inf", "server.drain_s: "),
        ("SERVER__MAX_FRAME_BYTES", str(1 << 29), "server.max_frame_bytes: "),
        ("TRACING__ENDPOINT", "collector:4318", "tracing.endpoint: "),
        ("TRITON__URLS", '{"rfdetr": "gpu-1:8001"}', "triton.urls: expected names of models: "),
        ("SECURITY__RELOAD_S", "nan", "security.reload_s: "),
        ("TRITON__URLS", "gpu-1:8001", "triton: expected JSON in TOUCHLINE_TRITON__URLS"),
        ("TRITON__TLS__CERT", "tls.crt", "triton.tls: "),
        ("OVERLOAD__LOW_MARK", "2", "overload: "),
        ("SECURITY__JWT__ISSUER", "https://id.example", "security.jwt: "),
    ],
)
def test_what_cannot_be_used_is_named(monkeypatch, name, value, says):
    monkeypatch.setenv(f"TOUCHLINE_{name}", value)
    with pytest.raises(SettingError) as caught:
        read_settings()
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_variables_of_other_programs_are_none_of_ours(monkeypatch):
    monkeypatch.setenv("TOUCHLINE_ORCHESTRATOR_SERVICE_HOST", "10.0.0.1")  # as Kubernetes adds
    monkeypatch.setenv("touchline_server__port", "1234")
    assert read_settings().server.port == 1234


def test_a_process_with_a_wrong_setting_ends_with_one_line(monkeypatch, capsys):
    monkeypatch.setenv("TOUCHLINE_SERVER__WORKERS", "many")
    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("touchline: server.workers: ")
