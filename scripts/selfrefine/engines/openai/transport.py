"""Sends one request to a server; says what an answer, a status or a broken connection means."""

import contextlib
import email.utils
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from selfrefine.engines.interface import Request
from selfrefine.engines.openai.bodies import (
    KeptAnswer,
    Malformed,
    answer_of,
    body_of,
    error_in,
    filtered,
    is_filtered,
)
from selfrefine.errors import UserError
from selfrefine.schema.server import Server

if TYPE_CHECKING:
    import aiohttp

# Statuses besides 5xx after which the same request may succeed.
PASSING = (408, 409, 425, 429)
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
# Shorter keys are dummies for servers that accept any; hiding "EMPTY" would damage answers.
SECRET = 12
PIECE = 8


class Again(Exception):
    """No answer for now. `charged`: the server may have charged for one; `wait`: seconds that it asks to wait."""

    def __init__(self, reason: str, charged: bool, wait: float = 0.0):
        super().__init__(reason)
        self.reason = reason
        self.charged = charged
        self.wait = wait


class OtherField(Exception):
    """The server calls the limit on a completion's tokens by the newer name."""


class _Filtered(Exception):
    """The server's content filter refused the prompt."""


class Transport:
    """Sends requests for a model to a server; `key` and `proxy` as for the engine."""

    def __init__(self, server: Server, served: str, extra: dict[str, Any], key: str | None, proxy: str | None):
        self.server = server
        self.served = served
        self.extra = extra
        self.proxy = proxy
        self.url = f"{server.endpoint}/chat/completions"
        self.limit_field = "max_tokens"
        self._key = (key or "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError(f"${server.key_variable}: the API key in it holds characters that no key has; set it again")

    async def send(self, session: "aiohttp.ClientSession", request: Request) -> KeptAnswer:
        """What to keep of a request's answer; `Again` if it failed for now, `UserError` if for good."""
        # Not at the top: it takes 0.15 s, and commands that only read the store need not wait for it.
        import aiohttp

        field = self.limit_field
        body = body_of(request, self.served, self.extra, field)
        try:
            async with session.post(self.url, json=body, allow_redirects=False, proxy=self.proxy) as response:
                content = await response.read()
        except aiohttp.ClientConnectorCertificateError as error:
            raise UserError(
                f"{self.server.endpoint}: its certificate is not trusted ({self._clean(str(error))}); set "
                "SSL_CERT_FILE to "
                "the certificates to trust, or correct server.endpoint"
            ) from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Again(f"no connection ({self._clean(str(error))})", charged=False) from None
        except TimeoutError:
            raise Again(f"timed out after {self.server.timeout:g} s", charged=True) from None
        except aiohttp.ClientPayloadError:
            raise Again("connection broke within the answer", charged=True) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Again(f"connection broke ({type(error).__name__})", charged=True) from None
        parsed = _json(content)
        try:
            if response.status >= 300:
                raise self._refusal(request, response.status, response.headers, parsed, content, field)
            if parsed is None:
                kind = response.headers.get("Content-Type", "no content type").split(";")[0]
                raise Malformed("JSON cut off" if "json" in kind else f"{self._clean(kind)} instead of JSON")
            if error_in(parsed) and "choices" not in parsed:
                code = error_in(parsed).get("code")
                status = code if isinstance(code, int) and code >= 400 else 500
                raise self._refusal(request, status, response.headers, parsed, content, field)
            return answer_of(request, parsed)
        except Malformed as error:
            raise Again(str(error), charged=True) from None
        except _Filtered:
            return filtered(request)

    def _refusal(
        self, request: Request, status: int, headers: Mapping[str, str], parsed: object, content: bytes, field: str
    ) -> Exception:
        """What to raise for an answer with an error's status."""
        error = error_in(parsed)
        told = self._clean(str(error.get("message") or content[:1000].decode(errors="replace")))
        told = f": {told}" if told else ""
        code = error.get("code") or error.get("type")
        variable = f"${self.server.key_variable}"
        where = self.server.endpoint
        if status == 402 or code in NO_CREDIT:
            return UserError(f"{where}: the account has no credit left{told}; top it up and run again")
        if status in PASSING or status >= 500:
            wait = _retry_after(headers)
            if wait > self.server.patience:
                return UserError(
                    f"{where}: status {status}, to be asked again in {wait:.0f} s, which is more than server.patience "
                    f"({self.server.patience:g} s){told}; run again then, or raise server.patience"
                )
            return Again(f"status {status}", charged=False, wait=wait)
        if status == 401:
            # Its own message may repeat parts of the key.
            fault = f"refused the key in {variable}" if self.headers() else f"wants a key, and {variable} is not set"
            return UserError(f"{where}: {fault} (status 401); set the variable to a valid key and run again")
        if status == 403:
            return UserError(
                f"{where}: forbids the request (status 403){told}; check what the key in {variable} may use"
            )
        if status == 404:
            return UserError(
                f"{where}: has no /chat/completions, or no model {self.served!r} (status 404){told}; correct the "
                "teacher's "
                "server.endpoint or served"
            )
        if status < 400:
            return UserError(
                f"{where}: redirects elsewhere (status {status}); set server.endpoint to the final address"
            )
        if is_filtered(error):
            return _Filtered()
        if field == "max_tokens" and "max_completion_tokens" in str(error.get("message")):
            self.limit_field = "max_completion_tokens"
            return OtherField()
        return UserError(
            f"{where}: refused {request.id} (status {status}){told}; change the teacher's generation, system, "
            "request or extra "
            "so that the server takes it"
        )

    def _clean(self, text: str) -> str:
        """A server's text for a message: one line, short, and without the key or pieces of it."""
        text = " ".join(text.split())
        if len(self._key) >= SECRET:
            pieces = {self._key[i : i + PIECE] for i in range(len(self._key) - PIECE + 1)}
            kept, at = [], 0
            while at < len(text):
                end = at
                while text[end : end + PIECE] in pieces:
                    end += 1
                kept.append("[key]" if end > at else text[at])
                at = end + PIECE - 1 if end > at else at + 1
            text = "".join(kept)
        return text if len(text) <= 300 else f"{text[:299]}…"

    def hide(self, row: KeptAnswer) -> KeptAnswer:
        """A row for the store without the key, should the server have repeated it."""
        if len(self._key) < SECRET:
            return row
        hidden = {name: v.replace(self._key, "[key]") if isinstance(v, str) else v for name, v in row.items()}
        return cast(KeptAnswer, hidden)

    def headers(self) -> dict[str, str]:
        """The headers that authorise a request."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}


def _json(content: bytes) -> Any:
    """Parsed JSON; None if it is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by the header Retry-After, in seconds or as a date; 0 where there is none."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.0, float(headers["Retry-After-Ms"]) / 1000)
    text = headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(text))
    with contextlib.suppress(ValueError, TypeError):
        date = email.utils.parsedate_to_datetime(text)
        told = headers.get("Date")
        # By the server's own clock, if it sends one.
        now = email.utils.parsedate_to_datetime(told).timestamp() if told else time.time()
        return max(0.0, date.timestamp() - now)
    return 0.0
