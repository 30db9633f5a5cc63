"""Words and signs that several reports share."""

FIGURES = {"rank1": "R1", "rank5": "R5", "rank10": "R10", "mAP": "mAP", "mINP": "mINP"}
SETTINGS = {"rerank": "re-ranked", "flip": "with mirror images"}  # of evaluate, off by default
MINUS = "\u2212"


def signed(number: float, digits: int = 2) -> str:
    """A difference with its sign; what rounds to zero has a plus."""
    return f"{number:+z.{digits}f}".replace("-", MINUS)


def settings_words(settings: dict) -> str:
    """What of evaluate is on beyond the plain protocol: "", or ", re-ranked" and the like, to stand behind a name.

    Args:
        settings: name -> whether it is on; others than SETTINGS are not looked at.
    """
    return "".join(f", {word}" for name, word in SETTINGS.items() if settings.get(name))


def interval_of(figures: dict, name: str) -> tuple[float, float] | None:
    """Both ends of a figure's interval as metrics.json has them, if it has them."""
    ends = [figures.get(f"{name}_ci_{end}") for end in ("low", "high")]
    return None if None in ends else tuple(ends)


def with_interval(figures: dict, name: str) -> str:
    """A figure in percent, behind it its interval, if it has one."""
    ends = interval_of(figures, name)
    return f"{figures[name]:.2f}" + (f" ({ends[0]:.1f}-{ends[1]:.1f})" if ends else "")
