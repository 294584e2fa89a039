r"""What makes a notebook a page: sliders, figures, claim boxes, checks of exercises, and their style."""

from .checks import checker
from .claims import claim
from .explore import explore
from .figure import figure
from .observed import observed
from .style import (
    BLUE,
    DIVERGING,
    FAINT,
    GRAY,
    GREEN,
    HEAT,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    RED,
    canvas,
    ink_on,
    stroke,
)

__all__ = [
    "figure",
    "canvas",
    "stroke",
    "INK",
    "FAINT",
    "PAPER",
    "BLUE",
    "ORANGE",
    "GREEN",
    "RED",
    "PURPLE",
    "GRAY",
    "HEAT",
    "DIVERGING",
    "ink_on",
    "explore",
    "claim",
    "observed",
    "checker",
]
