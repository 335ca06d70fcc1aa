"""What every schedule of a GPU takes a lane to do."""

from __future__ import annotations

ACCESS_BYTES = 16
"""The widest access of one lane."""
