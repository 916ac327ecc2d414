"""What a downgrade would destroy, foreseen from its text and counted in the database.

Nothing of a revision is run. What a text does not tell is named, and met when the verb is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mongover.errors import OperationFailed
from mongover.history.record import Direction
from mongover.running.destroying import DESTROYING
from mongover.running.foresight import Foreseen, Unforeseen, foresee
from mongover.running.ownership import effects_foreseen, look, may_go, refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mongover.errors import NotOurs
    from mongover.history.effects import Ours
    from mongover.operations import Operation
    from mongover.planning.plan import Plan, Step
    from mongover.running.destroying import Destroying, Loss

# What none of its documents is lost by, and that makes no index or field which is dropped after it.
_HARMLESS: Final = frozenset(
    {
        "backup",
        "hide_index",
        "unhide_index",
        "set_validator",
        "drop_validator",
        "modify_collection",
        "drop_index",
        "remove_field",
    }
)


@dataclass(frozen=True, slots=True)
class Foretold:
    """One thing that the downgrade of a revision would destroy.

    Attributes:
        ours: Whether a revision made it; what is not ours is refused without a further word.
        certain: Whether it will be destroyed as things stand; else it may be.
        refused: Why it is not the revision's, in a word, where nobody said that it may go.
    """

    revision: str
    loss: Loss
    ours: bool
    certain: bool
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """The value as `--json` and the HTTP API show it."""
        return {
            "revision": self.revision,
            "what": self.loss.what,
            "collection": self.loss.thing.collection,
            "name": self.loss.thing.name or None,
            "documents": self.loss.documents,
            "ours": self.ours,
            "certain": self.certain,
            "refused": bool(self.refused),
            "message": self.sentence(),
        }

    def sentence(self) -> str:
        """`0003 destroys the collection users with 500 documents`."""
        verb = "destroys" if self.certain else "may destroy"
        text = f"{self.revision} {verb} {self.loss.sentence()}"
        if self.refused:
            return f"{text}, which it did not make: refused unless it is allowed"
        return text if self.ours else f"{text}, which it did not make"


@dataclass(frozen=True, slots=True)
class Losses:
    """All that a plan would destroy, and what nobody can foresee."""

    destroys: tuple[Foretold, ...] = ()
    unforeseen: tuple[str, ...] = ()


def losses_of(
    plan: Plan, owners: Mapping[str, Ours], db: Any, allowed: Collection[str] = ()
) -> Losses:
    """What the steps of a downgrade would destroy; reads only."""
    look = _Look(db, allowed)
    for step in plan.steps:
        if step.direction is Direction.DOWN:
            look.step(step, owners[step.revision.id].copy())
    return Losses(tuple(look.destroys), tuple(dict.fromkeys(look.unforeseen)))


def refuse_losses(plan: Plan, losses: Losses) -> None:
    """Refuse a plan that is certain to destroy what no revision made.

    Raises:
        NotOurs: names the first such thing, and the others in notes.
    """
    errors = [_error(plan, each) for each in losses.destroys if each.certain and each.refused]
    if errors:
        errors[0].notes = tuple(f"also: {each.message}" for each in errors[1:])
        raise errors[0]


def _error(plan: Plan, foretold: Foretold) -> NotOurs:
    return refusal(
        foretold.revision, foretold.loss, foretold.refused, plan.target, after="nothing was run."
    )


class _Look:
    """Goes through the steps and remembers what an earlier one will have changed."""

    def __init__(self, db: Any, allowed: Collection[str]) -> None:
        self._db = db
        self._allowed = allowed
        self._shaken: set[str] = set()  # collections that are not what they are now by then
        self.destroys: list[Foretold] = []
        self.unforeseen: list[str] = []

    def step(self, step: Step, ours: Ours) -> None:
        """Foresee one downgrade."""
        blind = step.continues  # nobody sees here which operations an earlier attempt finished
        for seen in foresee(step.revision.code, "downgrade"):
            if isinstance(seen, Unforeseen):
                blind = True
                self.unforeseen.append(f"{step.revision.id} line {seen.line}: {seen.what}")
                continue
            if isinstance(seen.operation, DESTROYING):
                self._destroying(step, seen, seen.operation, ours, blind=blind)
            self._then(seen.operation, ours)

    def _destroying(
        self, step: Step, seen: Foreseen, operation: Destroying, ours: Ours, *, blind: bool
    ) -> None:
        from pymongo.errors import OperationFailure

        try:
            loss, why = look(self._db, operation, ours)
        except (OperationFailed, OperationFailure) as error:  # a run meets the same, and says more
            where = f"{step.revision.id} line {seen.line}"
            self.unforeseen.append(f"{where}: {operation.describe()} ({type(error).__name__})")
            return
        if loss is None:
            return
        certain = seen.certain and not blind and operation.collection not in self._shaken
        free = operation.even_if_not_ours or may_go(loss.thing, self._allowed)
        self.destroys.append(
            Foretold(step.revision.id, loss, not why, certain, "" if free else why)
        )

    def _then(self, operation: Operation, ours: Ours) -> None:
        for effect in effects_foreseen(operation):
            if effect["did"] != "created":
                ours.add(effect)
        if operation.verb not in _HARMLESS:
            self._shaken |= set(operation.collections)
            self._shaken |= {getattr(operation, "to", "")}
