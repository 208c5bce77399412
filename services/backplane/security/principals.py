"""Reserved principal names: a key or user of that name is refused."""

from __future__ import annotations

from typing import Final

OTHERS: Final = "(others)"
"""All that are not counted by themselves."""

SYSTEM: Final = "(system)"
"""What no request has caused: loads of pinned models and operators, unloads of idle ones."""
