"""How a quantity is written out: "1 credit", "5 credits". Pure."""

from decimal import Decimal

import msgspec

from billing.aggregation import plain


class Unit(msgspec.Struct, frozen=True):
    """The names of a feature's unit: one alone serves both, without any there is only a number."""

    singular: str | None = None
    plural: str | None = None

    def counted(self, number: Decimal) -> str:
        """A shown quantity with its unit; the singular for exactly 1."""
        forms = (self.singular, self.plural) if number == 1 else (self.plural, self.singular)
        name = forms[0] or forms[1]
        return f"{plain(number)} {name}" if name else plain(number)
