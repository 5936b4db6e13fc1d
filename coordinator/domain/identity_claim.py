"""How a request proves that it comes from the participant whose public id it gives."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.domain.errors import CoordinatorError


@dataclass(frozen=True, slots=True)
class IdentityClaim:
    """The token of such a request, as far as a room needs to know it.

    Attributes:
        is_presented: the request carries a token.
        is_required: this deployment asks everybody for one (`IDENTITY_PROOF=required`); otherwise a
            room asks only where the participant has proven itself before.
        fault: what is wrong with the token; None where it is the participant's own, or where there
            is none.
    """

    is_presented: bool
    is_required: bool
    fault: CoordinatorError | None = None
