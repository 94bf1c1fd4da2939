"""The configuration tried before it hurts, through the same code as `connect`."""

from wise_creds.validation._checks import validate
from wise_creds.validation._report import Report, Result

__all__ = ["Report", "Result", "validate"]
