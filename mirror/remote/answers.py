"""Reads a server's answers: returns their content, or raises what is wrong and whether a retry may help."""

from __future__ import annotations

import re
from typing import Any

import httpx
import orjson

from mirror.remote import errors
from mirror.remote.errors import (
    AuthError,
    CommError,
    Denied,
    FeatureMissing,
    Malformed,
    NotFound,
    RateLimited,
    Refused,
    SlowAnswer,
    TooMuch,
)
from mirror.remote.limits import retry_after
from mirror.wandb_json import loads

_NAME = re.compile(r"\w+")
_FIELD_OF_TYPE = re.compile(r"""field ["'`](\w+)["'`] on type ["'`](\w+)["'`]""", re.IGNORECASE)


class Retry(Exception):
    """The attempt failed, but a retry may succeed, perhaps `after` this many seconds."""

    def __init__(self, failure: CommError, after: float | None = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.after = after


def _parsed(content: bytes) -> Any:
    """Parse an answer. Raises ValueError if it is incomplete or not JSON."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # A run's name that is half of a surrogate pair must not spoil the answer for all the others.
        return loads(content)


class Reader:
    """Reads the answers of one server. `key_source` is where the key is from, for the message about a wrong one."""

    def __init__(self, base_url: str, key_source: str) -> None:
        self._base_url = base_url
        self._key_source = key_source

    def read(self, operation: str, answer: httpx.Response, raw: bytes, *, within: str | None) -> dict[str, Any]:
        """Return the answer's content. Raises Retry for a failure that may be temporary, CommError for any other."""
        status = answer.status_code
        failure = httpx.HTTPStatusError(f"status {status}", request=answer.request, response=answer)
        if status == httpx.codes.UNAUTHORIZED:
            raise self.bad_key(failure)
        if status == httpx.codes.TOO_MANY_REQUESTS:
            after = retry_after(answer.headers)
            message = f"{self._base_url} limits the rate of requests (429); try again later"
            raise Retry(RateLimited(message, failure), after)
        if status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.GATEWAY_TIMEOUT):
            raise Retry(SlowAnswer(f"{self._base_url} did not answer {operation} in time ({status})", failure))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            failed = TooMuch(f"{self._base_url} failed to answer {operation} ({status})", failure)
            raise Retry(failed, retry_after(answer.headers))
        if (page := errors.of_page(self._base_url, operation, answer, raw)) is not None:
            raise Retry(page)
        try:
            content = _parsed(raw)
        except ValueError as error:
            if status >= httpx.codes.BAD_REQUEST:
                title = errors.page_title(answer, raw)
                raise self._refused(operation, status, title or "", failure) from error
            raise Retry(TooMuch(f"{self._base_url} sent a broken answer to {operation}", error)) from error
        if not isinstance(content, dict):
            raise Malformed(f"{self._base_url} does not speak the W&B API; check WANDB_BASE_URL", failure)
        if errors_of_graphql := content.get("errors"):
            raise self._refusal(operation, status, errors_of_graphql, failure)
        if status >= httpx.codes.BAD_REQUEST:
            raise self._refused(operation, status, "", failure)
        if within is None:
            return content
        data = content.get(within)
        if not isinstance(data, dict):
            raise Retry(TooMuch(f"{self._base_url} sent an empty answer to {operation}", failure))
        return data

    def _refused(self, operation: str, status: int, text: str, failure: httpx.HTTPStatusError) -> CommError:
        """Return the exception for a refusal that is not in GraphQL's format."""
        kind = Denied if status == httpx.codes.FORBIDDEN else Refused
        return kind(f"{self._base_url} refused {operation} ({status}{': ' if text else ''}{text})", failure)

    def _refusal(self, operation: str, status: int, errors: Any, failure: httpx.HTTPStatusError) -> Exception:
        """Return the exception for GraphQL errors, which come with 200 as well as with 4xx."""
        messages = [
            str(error.get("message", error)) if isinstance(error, dict) else str(error)
            for error in (errors if isinstance(errors, list) else [errors])
        ]
        text = "; ".join(" ".join(message.split()) for message in messages)
        shown, low = text[:300], text[:300].lower()
        refused: Refused
        if status == httpx.codes.FORBIDDEN or "permission" in low or "forbidden" in low:
            refused = Denied(f"{self._base_url} denies {operation}: {shown}", failure)
        elif "cannot query field" in low or "unknown argument" in low or "unknown type" in low or "filter" in low:
            refused = FeatureMissing(f"{self._base_url} refuses {operation}: {shown}", failure)
        elif status == httpx.codes.NOT_FOUND or "not found" in low or "could not find" in low:
            refused = NotFound(f'{self._base_url} reports "not found": {shown}', failure)
        else:
            message = f"{self._base_url} answered {operation} with an error: {shown}"
            if status not in (400, 409, 422):
                # An error without an explanation may be the server's own time limit.
                return Retry(TooMuch(message, failure))
            refused = Refused(message, failure)
        refused.names = frozenset(_NAME.findall(text.lower()))
        refused.fields = frozenset((kind, field) for field, kind in _FIELD_OF_TYPE.findall(text))
        return refused

    def bad_key(self, failure: BaseException | None) -> AuthError:
        """Return the exception for a key that belongs to nobody."""
        source = f" from {self._key_source}" if self._key_source else ""
        return AuthError(
            f"{self._base_url} does not accept the API key{source}; run `mirror login` or set WANDB_API_KEY", failure
        )
