"""Limits counted in the plainest way, to compare with."""

from fractions import Fraction

from extauth.rules.model import Algorithm, Limit


class Plain:
    """One counter, one call at a time, in exact fractions: GCRA as the texts have it, and a window that is counted.

    Instants do not go back.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._interval = Fraction(limit.period_us, limit.requests_per_unit or 1)
        self._tat = Fraction(0)
        self._window: tuple[int, int] = 0, 0  # its number, and its hits
        self._log: list[tuple[int, int]] = []

    def fits(self, now: int, cost: int) -> bool:
        """Whether a call fits."""
        requests, period = self.limit.requests_per_unit, self.limit.period_us
        if self.limit.algorithm is Algorithm.GCRA:
            return max(self._tat, Fraction(now)) + cost * self._interval - now <= requests * self._interval
        if self.limit.algorithm is Algorithm.SLIDING_WINDOW:
            return sum(hits for at, hits in self._log if at > now - period) + cost <= requests
        number, hits = self._window
        return (hits if number == now // period else 0) + cost <= requests

    def take(self, now: int, cost: int) -> bool:
        """Whether a call fits; if so, or where denied hits count, it is counted."""
        fits = self.fits(now, cost)
        if fits or self.limit.count_denied:
            self._count(now, cost)
        return fits

    def _count(self, now: int, cost: int) -> None:
        period = self.limit.period_us
        if self.limit.algorithm is Algorithm.GCRA:
            self._tat = max(self._tat, Fraction(now)) + cost * self._interval
        elif self.limit.algorithm is Algorithm.SLIDING_WINDOW:
            self._log = [*((at, hits) for at, hits in self._log if at > now - period), (now, cost)]
        else:
            number, hits = self._window
            self._window = now // period, cost + (hits if number == now // period else 0)
