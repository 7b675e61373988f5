"""From a YAML file and dotted overrides to frozen, checked settings.

OmegaConf (merging, interpolation) and pydantic (types) are imported in this room and nowhere else in the core, and this
room is imported by whatever needs a run's settings, never by `colatent --help`.
"""

from __future__ import annotations

from colatent.config.checks import validate
from colatent.config.load import Loaded, load
from colatent.config.schema import RunConfig
from colatent.config.settings import Settings

__all__ = ["Loaded", "RunConfig", "Settings", "load", "validate"]
