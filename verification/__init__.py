"""Checks of the protocols and of the native core; see docs/verification.md."""
