"""The error of networks and trainings whose numbers are no longer finite."""

from __future__ import annotations


class NonFiniteError(ValueError):
    """Raised when a number becomes NaN or infinite. The message says where, and what to try."""
