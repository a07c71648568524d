"""When a failed request is tried again: after a random, growing delay, or when the server says so."""

from tenacity import RetryCallState
from tenacity.stop import stop_base
from tenacity.wait import wait_random_exponential

from selfrefine.engines.openai.transport import Again

# Seconds: the first delay is at most the first, later ones at most the second.
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


def failure_of(state: RetryCallState) -> Again:
    """Why the last attempt failed."""
    failure = state.outcome and state.outcome.exception()
    assert isinstance(failure, Again), "nothing else is tried again"
    return failure


def delay_after(state: RetryCallState) -> float:
    """Seconds until the next attempt, at least what the server asks for."""
    return max(failure_of(state).wait, wait_random_exponential(FIRST_DELAY, LONGEST_DELAY)(state))


class Patience(stop_base):
    """Gives up before a wait that would end later than so many seconds after the first failure.

    Tenacity's own `stop_before_delay` counts from the start of the first attempt: the time that a request waits for its
    slot under a rate limit, or for a slow answer, would count against the server.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.since: float | None = None

    def __call__(self, retry_state: RetryCallState) -> bool:
        now = retry_state.outcome_timestamp
        assert now is not None, "asked after an attempt"
        if self.since is None:
            self.since = now
        return now + retry_state.upcoming_sleep - self.since > self.seconds
