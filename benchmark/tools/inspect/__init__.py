"""Inspect a teacher: its attention on one image as data, as numbers and as a picture."""

from benchmark.tools.inspect.look import Look, Query, Request, as_json, look, query_of
from benchmark.tools.inspect.measures import kind_of, magnitudes, measures, show
from benchmark.tools.inspect.picture import check_format, draw, picture, shown

__all__ = [
    "Look", "Query", "Request", "as_json", "check_format", "draw", "kind_of", "look", "magnitudes", "measures", "picture",
    "query_of", "show", "shown",
]  # fmt: skip
