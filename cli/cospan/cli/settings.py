"""The settings, in layers: defaults < cospan.toml < COSPAN_* environment < flags.

None means that no layer says anything; each command then has its own default.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cospan.wire.errors import InvalidValueError
from cospan.wire.tls import TlsFiles, tls_files

DEFAULT_CONFIG = Path("cospan.toml")
_PREFIX = "COSPAN_"


class Settings(BaseSettings):
    """What all commands can be told; a description says what a value must be."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid")

    agents: int | None = Field(None, description="a whole number, 1 or more")
    rounds: int | None = Field(None, description="a whole number, 0 or more")
    feature_dim: int | None = Field(None, description="a whole number, 1 or more")
    fingerprint: str | None = Field(None, description="a text")
    index: int | None = Field(None, ge=0, description="a whole number, 0 or more")
    ids: str | None = Field(None, description="ranges of sites, as 0-999")
    processes: int | None = Field(None, ge=1, description="a whole number, 1 or more")
    seed: int | None = Field(None, description="a whole number, 0 or more")
    rank: int | None = Field(None, description="a whole number, 1 or more")
    steps_per_round: int | None = Field(None, description="a whole number, 1 or more")
    preset: Literal["paper", "practical", "compact"] | None = Field(None, description="paper, practical or compact")
    corrections: Literal["end-of-round", "every-step", "least-squares", "full-history"] | None = Field(
        None, description="end-of-round, every-step, least-squares or full-history"
    )
    head_step: float | None = Field(None, description="a number above 0")
    gain_step: float | None = Field(None, description="a number above 0, at most 1")
    head_radius: float | None = Field(None, description="a number above 0, or inf")
    basis_step: float | None = Field(None, description="a number, 0 or more")
    implicit_head_step: bool | None = Field(None, description="true or false")
    preconditioned: bool | None = Field(None, description="true or false")
    preconditioner_floor: float | None = Field(None, description="a number above 0")
    decay_horizon: float | None = Field(None, description="a number, 0 or more")
    decay_power: float | None = Field(None, description="a number, 0 to 1")
    trace_decay: float | None = Field(None, description="a number, 0 or more and below 1")
    forgetting: float | None = Field(None, description="a number, 0 or more")
    row_scaled: bool | None = Field(None, description="true or false")
    reward_scaled: bool | None = Field(None, description="true or false")
    explained_power: float | None = Field(None, description="a number, 0 or more")
    warm_up_rounds: int | None = Field(None, description="a whole number: 0, or 2 or more")
    aggregation: Literal["mean", "clipped", "trimmed", "geometric-median"] | None = Field(
        None, description="mean, clipped, trimmed or geometric-median"
    )
    trimmed_share: float | None = Field(None, description="a number above 0 and below 0.5")
    clip_norm: float | None = Field(None, description="a number, 0 or more")
    baseline: bool | None = Field(None, description="true or false")
    share_td_error: bool = Field(False, description="true or false")
    liveness_seconds: float | None = Field(None, description="a number above 0")
    round_seconds: float | None = Field(None, description="a number above 0")
    participation: Literal["all", "quorum"] | None = Field(None, description="all or quorum")
    quorum: float | None = Field(None, description="a share below 1, or a number of agents")
    deadline_seconds: float | None = Field(None, description="a number above 0, or 0 for a learnt one")
    max_staleness: int | None = Field(None, description="a whole number, 0 or more")
    min_agents: int | None = Field(None, description="a whole number, 0 or more")
    start_seconds: float | None = Field(None, gt=0, allow_inf_nan=False, description="a number above 0")
    patience: float = Field(60.0, ge=0, allow_inf_nan=False, description="a number, 0 or more")
    checkpoint_seconds: float = Field(5.0, ge=0, allow_inf_nan=False, description="a number, 0 or more")
    host: str = Field("127.0.0.1", min_length=1, description="an address to listen on")
    port: int | None = Field(None, ge=0, le=65535, description="a whole number, 0 to 65535")
    metrics: str | None = Field(None, pattern=r"^(\S+:)?\d{1,5}$", description="HOST:PORT, or a port of 127.0.0.1")
    traces: bool | None = Field(None, description="true or false")
    insecure: bool = Field(False, description="true or false")
    keep_every: int = Field(100, ge=1, description="a whole number, 1 or more")
    once: bool = Field(False, description="true or false")
    new_run: bool = Field(False, description="true or false")
    tls_cert: str | None = Field(None, description="a file")
    tls_key: str | None = Field(None, description="a file")
    tls_ca: str | None = Field(None, description="a file")
    dashboard: str | None = Field(None, pattern=r"^\S+:\d{1,5}$", description="HOST:PORT")
    dashboard_token_file: str | None = Field(None, description="a file")
    upstream: str | None = Field(None, pattern=r"^\S+:\d+$", description="HOST:PORT")
    level: int = Field(1, ge=1, le=5, description="a whole number, 1 to 5")
    upstream_tls_cert: str | None = Field(None, description="a file")
    upstream_tls_key: str | None = Field(None, description="a file")
    upstream_tls_ca: str | None = Field(None, description="a file")
    coordinator: str = Field("127.0.0.1:50051", pattern=r"^\S+:\d+$", description="HOST:PORT")

    @property
    def tls(self) -> TlsFiles | None:
        """Certificate, key and authority; None for no TLS.

        Raises:
            InvalidValueError: only some of them are said.
        """
        return tls_files(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def upstream_tls(self) -> TlsFiles | None:
        """The same, for what a relay shows its own coordinator; what is not said is as towards its agents.

        Raises:
            InvalidValueError: only some of them are said.
        """
        return tls_files(
            self.upstream_tls_cert or self.tls_cert,
            self.upstream_tls_key or self.tls_key,
            self.upstream_tls_ca or self.tls_ca,
        )


def load_settings(flags: Mapping[str, Any], config: Path | None) -> Settings:
    """The settings of all layers.

    Args:
        flags: what was said on the command line; names that are no settings are left out.
        config: the TOML file; `cospan.toml` of the current folder, if there is one, where left out.

    Raises:
        InvalidValueError: a layer says something that is not allowed, or the file cannot be read.
    """
    path = _config_path(config)
    said = {name: value for name, value in flags.items() if name in Settings.model_fields}
    try:
        return _reading(path)(**said)
    except ValidationError as failure:
        raise InvalidValueError("; ".join(_sentence(error, said, path) for error in failure.errors())) from failure
    except tomllib.TOMLDecodeError as failure:
        raise InvalidValueError(f"{path} is not TOML: {failure}") from failure
    except (OSError, UnicodeDecodeError) as failure:
        raise InvalidValueError(f"cannot read {path}: {failure}") from failure


def _config_path(config: Path | None) -> Path | None:
    if config is None:
        return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    if not config.is_file():
        raise InvalidValueError(f"there is no file {config}; --config names a TOML file of settings")
    return config


def _reading(path: Path | None) -> type[Settings]:
    """The settings with their layers, the file among them."""

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=path)

    return Layered


def _sentence(error: Any, said: Mapping[str, Any], path: Path | None) -> str:
    """One validation error as: the key, its value, where it was said, and what is allowed."""
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(Settings.model_fields)
        return f"{path} has {key} = {error['input']!r}, which is no setting; allowed are {allowed}"
    in_environment = {name.upper() for name in os.environ}
    if key in said:
        where = f"--{key.replace('_', '-')}"
    elif f"{_PREFIX}{key}".upper() in in_environment:
        where = f"the environment variable {_PREFIX}{key.upper()}"
    else:
        where = str(path)
    return f"{key} is {error['input']!r} in {where}; it must be {Settings.model_fields[key].description}"
