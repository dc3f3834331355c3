"""What all groups of settings have in common."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """Settings that belong together: frozen, and each of a known name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
