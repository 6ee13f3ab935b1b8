"""Where a notification may be sent to: URLs of webhooks, and what of them the daemon's configuration allows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

URL_PATTERN = r'^https?://[A-Za-z0-9.\[\]:-]+(/[!-"$-~]*)?$'  # all that is printable but #
_URL = re.compile(URL_PATTERN.removesuffix("$") + r"\Z")
_DOTS = re.compile(r"(^|/)(\.|%2e){1,2}(/|\Z)", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
MAX_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class WebhookUrl:
    """One URL in its parts. target: path and query, as the request names them."""

    scheme: str
    host: str
    port: int
    path: str
    target: str

    @property
    def origin(self) -> str:
        """All of it that may stand in a log: paths and queries may hold what nobody is to see."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    def lies_below(self, prefix: WebhookUrl) -> bool:
        """Whether scheme, host and port are the same, and its path begins with all parts of the other one's."""
        same = (self.scheme, self.host, self.port) == (prefix.scheme, prefix.host, prefix.port)
        directory = prefix.path if prefix.path.endswith("/") else f"{prefix.path}/"
        return same and (self.path == prefix.path or self.path.startswith(directory))


def parse_webhook(text: str) -> WebhookUrl:
    """Raises ValueError. Messages do not show the URL: it may hold a secret."""
    if len(text) > MAX_LENGTH or not _URL.match(text):
        raise ValueError(
            "is no URL of a webhook (use https://host/path; no name and password, no #, at most 2000 letters)"
        )
    try:
        parts: SplitResult = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("is no URL of a webhook: its host or port makes no sense") from None
    if not host or port == 0:
        raise ValueError("is no URL of a webhook: its host or port makes no sense")
    path = parts.path or "/"
    if _DOTS.search(path):
        raise ValueError("has . or .. in its path")
    target = f"{path}?{parts.query}" if parts.query else path
    return WebhookUrl(parts.scheme, host, port or _PORTS[parts.scheme], path, target)


def check_webhook(value: object) -> str:
    """A webhook's URL in a manifest. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("is not text")
    parse_webhook(value)
    return value


def check_prefix(value: str) -> str:
    """What the configuration allows: a URL without a query. Raises ValueError."""
    if "?" in value:
        raise ValueError("has a query; allow the path alone")
    parse_webhook(value)
    return value


def is_allowed(url: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a URL, which was checked, lies below one of these."""
    target = parse_webhook(url)
    return any(target.lies_below(parse_webhook(prefix)) for prefix in prefixes)
