"""The values that keys of the daemon's configuration take: how each is written, checked, and told to JSON Schema."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from joblet.manifest.names import check_capability
from joblet.manifest.quantities import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size
from joblet.manifest.webhook_url import URL_PATTERN, check_prefix

_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp))?")
CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io")
TYPE = "x-joblet-type"  # in JSON Schema: the kind of value, in words
WITHOUT_EFFECT = ("devices",)  # a controller that Go Joblet names; here devices are what is not in a job's /dev


def _seconds(value: object) -> object:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a duration (use 500ms, 30s, 5m or 1h30m)") from error
    return seconds


def _some_seconds(value: object) -> object:
    seconds = _seconds(value)
    if not seconds:
        raise ValueError("has to be more than nothing (use 500ms, 30s, 5m or 1h30m)")
    return seconds


def _seconds_or_none(value: object) -> object:
    return 0.0 if value in (0, "0") and not isinstance(value, bool) else _seconds(value)


def _level(value: object) -> object:
    upper = value.upper() if isinstance(value, str) else value
    return "WARNING" if upper == "WARN" else upper


def _absolute(value: str) -> str:
    if not os.path.isabs(value):
        raise ValueError(f"{value!r} is not an absolute path")
    return os.path.normpath(value)


def _output(value: str) -> str:
    if value in ("stdout", "stderr"):
        return value
    if not os.path.isabs(value):
        raise ValueError(f"{value!r} is neither stdout, stderr nor an absolute path")
    return os.path.normpath(value)


def _size(value: object) -> object:
    size = parse_size(value)
    if size < 1 << 20:
        raise ValueError(f"{value!r} is too small (at least 1Mi)")
    return size


def _message_size(value: object) -> object:
    size = parse_size(value)
    if not 1 << 16 <= size < 1 << 31:
        raise ValueError(f"{value!r} is out of range (64Ki to 2Gi)")
    return size


def _header_size(value: object) -> object:
    size = parse_size(value)
    if not 1 << 13 <= size < 1 << 31:
        raise ValueError(f"{value!r} is out of range (8Ki to 2Gi)")
    return size


def _io_rate(value: object) -> object:
    size = parse_size(value)
    if 0 < size < 1 << 12:
        raise ValueError(f"{value!r} is too small (at least 4Ki; 0: unlimited)")
    return size


def _pool(value: IPv4Network) -> IPv4Network:
    if not 16 <= value.prefixlen <= 24:
        raise ValueError(f"{value} is not /16 to /24")
    return value


def _host_port(value: object) -> str:
    match = _PORT.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if match is None or not 1 <= int(match[1]) <= 65535:
        raise ValueError(f"{value!r} is not a port (use 8080 or 53/udp)")
    return f"{match[1]}/{match[2] or 'tcp'}"


def _controller(value: object) -> object:
    if value not in (*CONTROLLERS, *WITHOUT_EFFECT):
        raise ValueError(f"{value!r} is not a controller ({', '.join(CONTROLLERS)})")
    return value


def _text(value: object) -> object:
    """``1.3`` without quotes is a number to YAML."""
    return str(value) if isinstance(value, float) else value


def _is(kind: str, text: str, **more: object) -> WithJsonSchema:
    """What JSON Schema and the reference say of a value. text: as people read it."""
    return WithJsonSchema({"type": kind, TYPE: text, **more})


_A_SIZE = WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": SIZE_PATTERN}], TYPE: "size"})
_A_DURATION = _is("string", "duration", pattern=DURATION_PATTERN)

Pool = Annotated[IPv4Network, AfterValidator(_pool), _is("string", "IPv4 network, /16 to /24")]
NetworkAddress = Annotated[IPv4Network, _is("string", "IPv4 network")]
HostPort = Annotated[str, BeforeValidator(_host_port), WithJsonSchema({"type": ["string", "integer"], TYPE: "port"})]
Seconds = Annotated[float, BeforeValidator(_some_seconds), _A_DURATION]
SecondsOrNone = Annotated[
    float,
    BeforeValidator(_seconds_or_none),
    WithJsonSchema({"anyOf": [{"const": 0}, {"type": "string", "pattern": DURATION_PATTERN}], TYPE: "duration or 0"}),
]
Size = Annotated[int, BeforeValidator(_size), _A_SIZE]
IoRate = Annotated[int, BeforeValidator(_io_rate), _A_SIZE]
MessageSize = Annotated[int, BeforeValidator(_message_size), _A_SIZE]
HeaderSize = Annotated[int, BeforeValidator(_header_size), _A_SIZE]
Capability = Annotated[str, BeforeValidator(check_capability), _is("string", "capability")]
AbsolutePath = Annotated[str, AfterValidator(_absolute), _is("string", "absolute path", pattern="^/")]
Controller = Annotated[
    str, BeforeValidator(_controller), _is("string", "controller", enum=[*CONTROLLERS, *WITHOUT_EFFECT])
]
LogOutput = Annotated[str, AfterValidator(_output), _is("string", "stdout, stderr or absolute path")]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(_level),
    _is(
        "string",
        "DEBUG, INFO, WARNING or ERROR",
        pattern="^([Dd][Ee][Bb][Uu][Gg]|[Ii][Nn][Ff][Oo]|[Ww][Aa][Rr][Nn]([Ii][Nn][Gg])?|[Ee][Rr][Rr][Oo][Rr])$",
    ),
]
TlsVersion = Annotated[
    Literal["1.2", "1.3"],
    BeforeValidator(_text),
    WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3], TYPE: "1.2 or 1.3"}),
]
WebhookPrefix = Annotated[str, AfterValidator(check_prefix), _is("string", "URL", pattern=URL_PATTERN)]
Pem = Annotated[str, _is("string", "PEM text")]
