"""The present generation with a token, for whoever wants to send something; a refusal leads to a look at the source."""

from __future__ import annotations

from wise_creds._engine import Job
from wise_creds._generation import Generation
from wise_creds._refresh import Refresher
from wise_creds._token_cache import TokenCache
from wise_creds.errors import TokenError
from wise_creds.token import Token

_REFUSALS = ("WC501", "WC502")  # what a newer version may mend: the client, or its certificate, is refused
_AFTER_REFUSAL = 10.0  # seconds between two looks at the source because of refusals


class Rotator(Refresher):
    """What a connection and its clients stand on."""

    _not_before = 0.0

    def current(self) -> Generation:
        """Give the present generation."""
        return self.generation

    def ready(self, tokens: TokenCache | None = None) -> tuple[Generation, TokenCache, Token]:
        """Give a generation with a valid token, waiting for one if need be; `tokens` of a user instead of its own."""
        generation = self.generation
        cache = tokens or generation.cache
        token = cache.current()
        if token is not None:
            return generation, cache, token
        try:
            return generation, cache, cache.obtain()
        except TokenError as problem:
            refused = problem
        if not self.moved_on(generation, refused):
            raise refused
        cache = tokens or self.generation.cache
        return self.generation, cache, cache.current() or cache.obtain()

    async def aready(self, tokens: TokenCache | None = None) -> tuple[Generation, TokenCache, Token]:
        """Do the same as `ready` without blocking the event loop."""
        generation = self.generation
        cache = tokens or generation.cache
        token = cache.current()
        if token is not None:
            return generation, cache, token
        try:
            return generation, cache, await cache.obtain_async()
        except TokenError as problem:
            refused = problem
        if not await self.amoved_on(generation, refused):
            raise refused
        cache = tokens or self.generation.cache
        return self.generation, cache, cache.current() or await cache.obtain_async()

    def moved_on(self, generation: Generation, refused: TokenError) -> bool:
        """Look at the source if a newer version may mend a refusal; whether there is a newer generation now."""
        job = self._looking_anew(generation, refused)
        if job is not None:
            job.wait(self.clock, self.deadline())
        return self.generation is not generation

    async def amoved_on(self, generation: Generation, refused: TokenError) -> bool:
        """Do the same as `moved_on` without blocking the event loop."""
        job = self._looking_anew(generation, refused)
        if job is not None:
            await job.wait_async(self.clock, self.deadline())
        return self.generation is not generation

    def _looking_anew(self, generation: Generation, refused: BaseException) -> Job[bool] | None:
        """Read the source past every cache, if that may help and has not just been done."""
        if self.generation is not generation or getattr(refused, "code", None) not in _REFUSALS:
            return None
        now, running = self.clock.boot(), self.running()
        if running is not None:
            return running
        if now < self._not_before:
            return None
        self._not_before = now + _AFTER_REFUSAL
        return self.start()

    def refused(self, problem: BaseException) -> None:
        """Take note of a renewal that failed in the background."""
        self._looking_anew(self.generation, problem)

    def pulse(self) -> None:
        """Take note that tokens are in use."""
        self.watch.pulse()
