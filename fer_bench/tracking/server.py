"""A tracking server: whether it answers, and how long MLflow may wait for it."""

from __future__ import annotations

import http.client
import math
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

from fer_bench.base.credentials import hide, public_address
from fer_bench.errors import TrackingError


def check_server(uri: str, timeout: float) -> None:
    """Raise TrackingError unless something answers at `uri`; any answer will do, for MLflow reports the rest."""
    try:
        parts = urlsplit(uri)
        health = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/") + "/health")
        urllib.request.urlopen(urlunsplit(health._replace(query="", fragment="")), timeout=timeout).close()
    except urllib.error.HTTPError:
        return
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # MLflow has its own settings for certificates
            return
        what = f"no answer from {public_address(uri)} ({hide(str(reason), uri)})"
        raise TrackingError(what, hint="start the server, or correct its address") from None


@contextmanager
def http_limits(timeout: float) -> Iterator[None]:
    """MLflow waits for 2 minutes and tries 7 times; here it may not, unless the user has set it to."""
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(timeout)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the password with it
    }
    added = {k: v for k, v in limits.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
