"""How a number of a request was written, where that makes a difference."""

from decimal import Decimal


class Whole(Decimal):
    """A number written without fraction and exponent."""
