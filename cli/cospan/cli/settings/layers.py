"""The settings, in layers: defaults < cospan.toml < COSPAN_* environment < flags.

None means that no layer sets the value; each command then has its own default.
"""

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from cospan.core import fields
from cospan.core.method import DEFAULT_MIN_STEPS, Method
from cospan.core.privacy.request import PrivacyRequest
from cospan.core.run_fields import RunFields
from cospan.wire.address import DEFAULT_COORDINATOR, parse_host, parse_listening, parse_source
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.safe_files import MAX_TOML_BYTES, read_text
from cospan.wire.files.spec_file import toml_values
from cospan.wire.security.tls import TlsFiles, tls_files

DEFAULT_CONFIG = Path("cospan.toml")
_PREFIX = "COSPAN_"
_NO_SETTINGS = (
    *("COSPAN_WORKLOAD", "COSPAN_IMAGE", "COSPAN_BASE_IMAGE", "COSPAN_CERTS", "COSPAN_AGENT_CERTS"),
    *("COSPAN_FAST_PATH", "COSPAN_PICTURES"),
)
"""Read by the Compose files, and the last by `cospan.wire.codec.fast_path` and `cospan run`; none is a setting."""
_ENGINE_TIMEOUT_SECONDS = 600.0
"""Longer than an engine takes to move a coordinator to another machine; Kubernetes waits 300 s before it begins."""
_ALIKE = 0.8
"""Similarity, 0 to 1, from which a name is suggested."""


def _checked(parse: Callable[[str], object]) -> AfterValidator:
    """Checks a value with a parser of `cospan.wire.address`; the text stays unchanged."""

    def check(text: str) -> str:
        try:
            parse(text)
        except InvalidValueError as failure:
            raise ValueError(str(failure).removeprefix(f" is {text[:200]!r}; ")) from failure
        return text

    return AfterValidator(check)


def _checked_privacy(text: str) -> str:
    PrivacyRequest.parse(text)
    return text


_Host: TypeAlias = Annotated[str, _checked(lambda text: parse_host(text, 0, ""))]
_Source: TypeAlias = Annotated[str, _checked(lambda text: parse_source(text, ""))]
_Privacy: TypeAlias = Annotated[str, AfterValidator(_checked_privacy)]
_Listening: TypeAlias = Annotated[str, _checked(lambda text: parse_listening(text, ""))]


def _fields_of(kind: type[Any]) -> dict[str, Any]:
    """The settings of a dataclass: their types, and what their values must be."""
    return {
        name: (field.type | None, Field(None, description=field.allowed))
        for name, field in fields.settings(kind).items()
    }


if TYPE_CHECKING:
    _RunSettings = BaseModel  # `Settings.of` gives the values of the fields that are made here
else:
    _OF_A_RUN = _fields_of(RunFields) | _fields_of(Method)
    _RunSettings = create_model("_RunSettings", __base__=BaseModel, **_OF_A_RUN)


class Settings(_RunSettings):
    """The settings of all commands; a description says what a value must be."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    preset: Literal["paper", "practical", "compact", "full-history"] | None = Field(
        None, description="paper, practical, compact or full-history"
    )
    dp: _Privacy | None = Field(None, description="a promise as epsilon=8,delta=1e-5, or off")
    index: int | None = Field(None, ge=0, description="a whole number, 0 or more")
    ids: str | None = Field(None, description="ranges of sites, as 0-999")
    shard: str | None = Field(None, description="K/N, as 3/8")
    processes: int | None = Field(None, ge=1, description="a whole number, 1 or more")
    baseline: bool | None = Field(None, description="true or false")
    share_td_error: bool = Field(False, description="true or false")
    start_seconds: float | None = Field(None, gt=0, allow_inf_nan=False, description="a number above 0")
    engine_patience: bool = Field(False, description="true or false")
    progress_timeout_seconds: float = Field(60.0, ge=0, allow_inf_nan=False, description="a number, 0 or more")
    min_steps_per_round: int = Field(DEFAULT_MIN_STEPS, ge=1, lt=2**32, description="a whole number, 1 to 2^32 − 1")
    require_secure_sums: bool = Field(False, description="true or false")
    max_epsilon: float | None = Field(None, gt=0, allow_inf_nan=False, description="a number above 0")
    agent_restarts: int = Field(3, ge=0, description="a whole number, 0 or more")
    memory_gib: float = Field(4.0, gt=0, allow_inf_nan=False, description="a number above 0")
    checkpoint_seconds: float = Field(5.0, ge=0, allow_inf_nan=False, description="a number, 0 or more")
    host: _Host = Field("127.0.0.1", description="an address to listen on")
    port: int | None = Field(None, ge=0, le=65535, description="a whole number, 0 to 65535")
    address_file: str | None = Field(None, description="a file")
    metrics: _Listening | None = Field(None, description="HOST:PORT, or a port of 127.0.0.1")
    traces: bool | None = Field(None, description="true or false")
    insecure: bool = Field(False, description="true or false")
    checkpoint_interval: int = Field(100, ge=1, description="a whole number, 1 or more")
    once: bool = Field(False, description="true or false")
    new_run: bool = Field(False, description="true or false")
    tls_cert: str | None = Field(None, description="a file")
    tls_key: str | None = Field(None, description="a file")
    tls_ca: str | None = Field(None, description="a file")
    dashboard: _Listening | None = Field(None, description="HOST:PORT, or a port of 127.0.0.1")
    dashboard_token_file: str | None = Field(None, description="a file")
    dashboard_root_path: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$",
        description="a path as /cospan, without a slash at its end",
    )
    allowed_hosts: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._:-]+(,[A-Za-z0-9._:-]+)*$",
        description="names or addresses without ports, with commas between",
    )
    upstream: _Source | None = Field(None, description="HOST:PORT, [IPV6]:PORT, unix:PATH or @FILE")
    level: int = Field(1, ge=1, le=5, description="a whole number, 1 to 5")
    upstream_tls_cert: str | None = Field(None, description="a file")
    upstream_tls_key: str | None = Field(None, description="a file")
    upstream_tls_ca: str | None = Field(None, description="a file")
    coordinator: _Source = Field(DEFAULT_COORDINATOR, description="HOST:PORT, [IPV6]:PORT, unix:PATH or @FILE")

    @model_validator(mode="after")
    def _waits_for_engines(self) -> Self:
        """Sets the progress timeout of `engine_patience`, unless it is set itself."""
        if self.engine_patience and "progress_timeout_seconds" not in self.model_fields_set:
            self.progress_timeout_seconds = _ENGINE_TIMEOUT_SECONDS
        return self

    def of(self, kind: type[Any]) -> dict[str, Any]:
        """The values that are set of the fields of `RunFields` or `Method`, under the fields' names."""
        values = {field.name: getattr(self, name) for name, field in fields.settings(kind).items()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def further_hosts(self) -> tuple[str, ...]:
        """The names of `allowed_hosts`."""
        return tuple((self.allowed_hosts or "").split(",")) if self.allowed_hosts else ()

    @property
    def tls(self) -> TlsFiles | None:
        """Certificate, key and authority; None for no TLS.

        Raises:
            InvalidValueError: only some of them are set.
        """
        return tls_files(self.tls_cert, self.tls_key, self.tls_ca)

    @property
    def upstream_tls(self) -> TlsFiles | None:
        """Certificate, key and authority towards a relay's coordinator; by default those towards its agents.

        Raises:
            InvalidValueError: only some of them are set.
        """
        return tls_files(
            self.upstream_tls_cert or self.tls_cert,
            self.upstream_tls_key or self.tls_key,
            self.upstream_tls_ca or self.tls_ca,
        )


def load_settings(flags: Mapping[str, Any], config: Path | None) -> Settings:
    """The settings of all layers.

    Args:
        flags: of the command line; names that are not settings are ignored.
        config: the TOML file; None for `cospan.toml` of the current folder, if it exists.

    Raises:
        InvalidValueError: a layer has an invalid value, or the file cannot be read.
    """
    path = _config_path(config)
    said = {name: value for name, value in flags.items() if name in Settings.model_fields}
    try:
        written = {} if path is None else toml_values(read_text(path, MAX_TOML_BYTES))
        return Settings(**written | _of_environment() | said)
    except ValidationError as failure:
        raise InvalidValueError("; ".join(_sentence(error, said, path) for error in failure.errors())) from failure
    except UnicodeDecodeError as failure:
        raise InvalidValueError(f"cannot read {path}: it is not UTF-8 text") from failure
    except ValueError as failure:  # TOMLDecodeError is one, and so is what `int` says of thousands of digits
        raise InvalidValueError(f"{path} is not TOML: {failure}") from failure
    except OSError as failure:
        raise InvalidValueError(f"cannot read {path}: {failure.strerror}") from failure


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A sentence on each `COSPAN_…` variable that is not a setting, with the most similar setting."""
    known = [f"{_PREFIX}{name.upper()}" for name in Settings.model_fields]
    strange = sorted(
        name
        for name in environment
        if name.upper().startswith(_PREFIX) and name.upper() not in {*known, *_NO_SETTINGS}
    )
    found = []
    for name in strange:
        near = _nearest(name[len(_PREFIX) :].lower())
        hint = f"; did you mean {_PREFIX}{near.upper()}?" if near else ""
        found.append(f"the environment variable {name} is no setting and changes nothing{hint}")
    return found


def _nearest(name: str) -> str:
    """The setting with the most similar name; empty if none is similar."""
    return next(iter(difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=_ALIKE)), "")


def _config_path(config: Path | None) -> Path | None:
    if config is None:
        return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None
    if not config.is_file():
        raise InvalidValueError(f"there is no file {config}; --config names a TOML file of settings")
    return config


def _of_environment() -> dict[str, str]:
    """The settings of `COSPAN_…` variables, in any case of letters; an empty one is not set."""
    known = {f"{_PREFIX}{name.upper()}": name for name in Settings.model_fields}
    said = ((known.get(variable.upper()), value) for variable, value in os.environ.items())
    return {name: value for name, value in said if name is not None and value}


def _sentence(error: Any, said: Mapping[str, Any], path: Path | None) -> str:
    """A validation error as one sentence: key, value, source, and what is allowed."""
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        near = _nearest(key)
        hint = f"did you mean {near}? " if near else ""
        allowed = ", ".join(Settings.model_fields)
        return f"{path} has {key} = {error['input']!r}, which is no setting; {hint}allowed are {allowed}"
    in_environment = {name.upper() for name in os.environ}
    if key in said:
        where = f"--{key.replace('_', '-')}"
    elif f"{_PREFIX}{key}".upper() in in_environment:
        where = f"the environment variable {_PREFIX}{key.upper()}"
    else:
        where = str(path)
    said_why = error["type"] == "value_error"
    expected = str(error["ctx"]["error"]) if said_why else f"it must be {Settings.model_fields[key].description}"
    return f"{key} is {error['input']!r} in {where}; {expected}"
