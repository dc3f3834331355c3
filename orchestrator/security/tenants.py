"""The tenants of a server: their share of it, and the quotas that they are held to.

The file, TOML:

    [tenants.acme]
    weight = 2.0

    [tenants.acme.quota]
    streams = 4
    frames_per_s = 200
    bytes_per_s = 200_000_000
    max_pixels = 8_294_400
"""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestrator.errors import QuotaExceededError, SettingError
from orchestrator.security.files import WatchedFiles
from orchestrator.security.rates import FrameRates
from orchestrator.settings import ServerSettings
from orchestrator.types import EncodedFrame, GapReason, LostFrame, StreamConfig

DEFAULT_TENANT = "default"
"""Whom callers belong to where nobody is asked who they are."""

_SETTING = "security.tenants_file"

TenantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
"""Safe in logs, metrics and file names."""


class Quota(BaseModel):
    """What one tenant may use of one orchestrator process; None is no limit of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    streams: int | None = Field(default=None, ge=1)
    """Streams and single images at once."""
    frames_per_s: float | None = Field(default=None, ge=0.1, allow_inf_nan=False)
    """Frames a second over all streams; a second's worth may come at once."""
    bytes_per_s: float | None = Field(default=None, ge=1024, allow_inf_nan=False)
    """Bytes of `Frame.data` a second over all streams."""
    max_pixels: int | None = Field(default=None, ge=256)
    """Largest picture in pixels."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(default=1.0, gt=0, le=1000)
    quota: Quota = Quota()


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenants: dict[TenantName, _Entry] = {}


class Tenant:
    """A tenant and what it uses now. Lives as long as it stands in the file.

    Attributes:
        name: Its name.
        weight: Its share of a contended model, relative to other tenants, more than 0.
        quota: What it may use.
        rates: Holds its frames to the quota.
    """

    def __init__(self, name: str, *, weight: float = 1.0, quota: Quota | None = None) -> None:
        self.name = name
        self.weight = weight
        self.quota = quota or Quota()
        self.rates = _rates(self.quota)
        self._open_streams = 0

    def revise(self, weight: float, quota: Quota) -> None:
        """Take over what the file says now; open streams stay open."""
        self.weight = weight
        if quota != self.quota:
            self.quota = quota
            self.rates = _rates(quota)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the tenant's streams for as long as the context is open.

        Raises:
            QuotaExceededError: All are taken.
        """
        most = self.quota.streams
        if most is not None and self._open_streams >= most:
            raise QuotaExceededError(self.name, "streams", most)
        self._open_streams += 1
        try:
            yield
        finally:
            self._open_streams -= 1

    def check_size(self, config: StreamConfig) -> None:
        """Check the size that a stream announces.

        Raises:
            QuotaExceededError: Its pictures are too large for the tenant.
        """
        most, pixels = self.quota.max_pixels, (config.width or 0) * (config.height or 0)
        if most is not None and pixels > most:
            raise QuotaExceededError(self.name, "max_pixels", most)

    def limited(self, server: ServerSettings) -> ServerSettings:
        """Return the server's limits, or the tenant's where these are lower."""
        most = server.max_frame_pixels
        update = {"max_frame_pixels": min(most, self.quota.max_pixels or most)}
        return server.model_copy(update=update)

    async def admit(self, frame: EncodedFrame, *, is_live: bool) -> EncodedFrame | LostFrame:
        """Hold a frame to the tenant's rates: a live one is lost beyond them, others wait."""
        if not is_live:
            await self.rates.wait(len(frame.data))
            return frame
        try:
            self.check_rates(len(frame.data))
        except QuotaExceededError as error:
            return LostFrame(frame.header, GapReason.QUOTA_EXCEEDED, str(error))
        return frame

    def check_rates(self, byte_count: int) -> None:
        """Let one frame pass.

        Raises:
            QuotaExceededError: It is beyond the tenant's rates.
        """
        exceeded = self.rates.exceeded(byte_count)
        if exceeded is not None:
            raise QuotaExceededError(self.name, exceeded, getattr(self.quota, exceeded))


class Tenants:
    """All tenants of the file, which is read again when it changes.

    Args:
        path: The file; None knows `DEFAULT_TENANT` only.
        reload_s: How often the file is looked at, in seconds.

    Raises:
        SettingError: The file cannot be read, or breaks its form; names field and expectation.
    """

    def __init__(self, path: Path | None, *, reload_s: float) -> None:
        self._files = (
            WatchedFiles({_SETTING: path}, _parse, reload_s=reload_s) if path is not None else None
        )
        self._entries = self._files.current() if self._files is not None else {}
        self._tenants = {name: _tenant(name, entry) for name, entry in self._entries.items()}
        self._default = Tenant(DEFAULT_TENANT)

    def get(self, name: str) -> Tenant | None:
        """Return a tenant by its name; None if it is unknown."""
        self._refresh()
        return self._tenants.get(name)

    @property
    def default(self) -> Tenant:
        """Whom unnamed callers belong to; unlimited unless the file says otherwise."""
        return self.get(DEFAULT_TENANT) or self._default

    def _refresh(self) -> None:
        if self._files is None:
            return
        entries = self._files.current()
        if entries is self._entries:
            return
        self._entries = entries
        known = self._tenants
        self._tenants = {name: known.get(name) or Tenant(name) for name in entries}
        for name, entry in entries.items():
            self._tenants[name].revise(entry.weight, entry.quota)


def _rates(quota: Quota) -> FrameRates:
    return FrameRates(quota.frames_per_s, quota.bytes_per_s)


def _tenant(name: str, entry: _Entry) -> Tenant:
    return Tenant(name, weight=entry.weight, quota=entry.quota)


def _parse(contents: Mapping[str, bytes]) -> dict[str, _Entry]:
    try:
        document = tomllib.loads(contents[_SETTING].decode())
    except ValueError as error:  # also bytes that are no UTF-8
        raise SettingError(_SETTING, f"expected TOML: {error}") from error
    try:
        return _File.model_validate(document).tenants
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise SettingError(_SETTING, f"{field}: {first['msg']}") from error
