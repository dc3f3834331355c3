"""The tenants of a server: their share of it, and the quotas that they are held to.

The file, TOML:

    [tenants.acme]
    weight = 2.0

    [tenants.acme.quota]
    streams = 4
    frames_per_s = 200
    bytes_per_s = 200_000_000
    max_pixels = 8_294_400

Quotas hold for a server as a whole, exactly, however many worker processes it has; further servers
(pods) grant the same again. Each worker looks at the file for itself: within `security.reload_s` of
a change all hold to it.
"""

import logging
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestrator.errors import QuotaExceededError, SettingError
from orchestrator.ledger import Account, Ledger
from orchestrator.security.files import WatchedFiles
from orchestrator.security.hearing import Hearing
from orchestrator.security.rates import FrameRates
from orchestrator.settings import ServerSettings
from orchestrator.types.frames import EncodedFrame, GapReason, LostFrame
from orchestrator.types.streams import StreamConfig

DEFAULT_TENANT = "default"
"""Whom callers belong to where nobody is asked who they are."""

_SETTING = "security.tenants_file"

log = logging.getLogger(__name__)

TenantName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
"""Safe in logs, metrics and file names."""


class Quota(BaseModel):
    """What a tenant may use of a server, all its workers together; None is no limit of its own."""

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

    Args:
        name: Its name.
        account: What it uses.
        weight: As the attribute.
        quota: As the attribute; None is without limits.

    Attributes:
        name: Its name.
        weight: Its share of a contended model, relative to other tenants, more than 0.
        quota: What it may use.
        rates: Holds its frames to the quota.
        hearing: Where its calls begin.
    """

    def __init__(
        self, name: str, account: Account, *, weight: float = 1.0, quota: Quota | None = None
    ) -> None:
        self.name = name
        self.hearing = Hearing()
        self._account = account
        self.revise(weight, quota or Quota())

    def revise(self, weight: float, quota: Quota) -> None:
        """Take over what the file says now; open streams stay open."""
        self.weight = weight
        self.quota = quota
        self.rates = FrameRates(quota.frames_per_s, quota.bytes_per_s, self._account)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the tenant's streams for as long as the context is open.

        Raises:
            QuotaExceededError: All are taken.
        """
        most = self.quota.streams
        if not self._account.take_place(most):
            assert most is not None
            raise QuotaExceededError(self.name, "streams", most)
        try:
            yield
        finally:
            self._account.give_place_back()

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
        ledger: Has the tenants' accounts.
        reload_s: How often the file is looked at, in seconds.

    Raises:
        SettingError: The file cannot be read, or breaks its form; names field and expectation.
    """

    def __init__(self, path: Path | None, ledger: Ledger, *, reload_s: float) -> None:
        self._files = (
            WatchedFiles({_SETTING: path}, _parse, reload_s=reload_s) if path is not None else None
        )
        self._ledger = ledger
        self._entries: dict[str, _Entry] = {}
        self._tenants: dict[str, Tenant] = {}
        self._default = self._tenant(DEFAULT_TENANT)
        self._refresh()

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
        known = self._tenants
        try:
            tenants = {name: known.get(name) or self._tenant(name) for name in entries}
        except OSError as error:  # as a full disk or table of files; later, perhaps
            log.warning("%s: no account for a new tenant: %s", _SETTING, error)
            return
        self._entries, self._tenants = entries, tenants
        for name, entry in entries.items():
            self._tenants[name].revise(entry.weight, entry.quota)

    def _tenant(self, name: str) -> Tenant:
        return Tenant(name, self._ledger.account(name))


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
