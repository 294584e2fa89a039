r"""What makes a notebook a page: sliders, figures, claim boxes, checks of exercises, and their style."""

from .checks import checker
from .claims import claim
from .explore import explore
from .figure import figure
from .style import BLUE, FAINT, GRAY, GREEN, INK, ORANGE, PURPLE, RED, canvas

__all__ = [
    "figure",
    "canvas",
    "INK",
    "FAINT",
    "BLUE",
    "ORANGE",
    "GREEN",
    "RED",
    "PURPLE",
    "GRAY",
    "explore",
    "claim",
    "checker",
]
