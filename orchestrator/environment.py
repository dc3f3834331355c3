"""Settings as the environment has them; what cannot be used is named in one line."""

import os
from collections.abc import Iterable

import pydantic_settings
from pydantic import ValidationError

from orchestrator.contracts import CONTRACTS
from orchestrator.errors import SettingError
from orchestrator.settings import Settings

_PREFIX, _DELIMITER = "TOUCHLINE_", "__"


def read_settings() -> Settings:
    """Return the settings of the `TOUCHLINE_*` variables.

    Raises:
        SettingError: A variable is of no known name, or a value cannot be used; names it.
    """
    _expect_known_groups()
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise SettingError(".".join(map(str, first["loc"])), first["msg"]) from None
    except pydantic_settings.SettingsError as error:  # its text names the group only
        group = next(name for name in Settings.model_fields if f'"{name}"' in str(error))
        names = (name for name in _variables() if _group(name) == group)
        raise SettingError(group, f"expected JSON in {' or '.join(names)}") from error
    _expect_known_models(settings.triton.urls)
    return settings


def _expect_known_models(names: Iterable[str]) -> None:
    known = [contract.name for contract in CONTRACTS]
    for name in names:
        if name not in known:
            expected = f"expected names of models: {', '.join(known)}; got {name}"
            raise SettingError("triton.urls", expected)


def _expect_known_groups() -> None:
    """Check what pydantic passes over, since it asks for known names only.

    A name without two underscores is none of ours: Kubernetes adds such for each service.
    """
    for name in _variables():
        if _group(name) not in Settings.model_fields:
            groups = ", ".join(Settings.model_fields)
            raise SettingError(name, f"expected one of {groups} before the two underscores")


def _variables() -> list[str]:
    names = (name for name in os.environ if name.upper().startswith(_PREFIX))
    return sorted(name for name in names if _DELIMITER in name)


def _group(name: str) -> str:
    return name[len(_PREFIX) :].partition(_DELIMITER)[0].lower()
