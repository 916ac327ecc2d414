"""`op`: what a revision's `upgrade` and `downgrade` are given."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from mongover.errors import NotInTransaction, OperationFailed, RevisionError
from mongover.operations.arguments import check_name, check_path
from mongover.operations.backup import Backup, RestoreBackup
from mongover.operations.base import TRANSACTION_HINT, Document, Operation, Outcome, Target
from mongover.operations.bulk.change import DELETE
from mongover.operations.bulk.pace import Pace
from mongover.operations.bulk.worker import BATCH
from mongover.operations.collections import (
    CreateCollection,
    CreateView,
    DropCollection,
    ModifyCollection,
    RenameCollection,
    collation_document,
)
from mongover.operations.conversion import ConvertField
from mongover.operations.copying import Copy
from mongover.operations.documents import (
    AddField,
    Delete,
    Insert,
    RemoveField,
    RenameField,
    Update,
    check_filter,
    check_update,
)
from mongover.operations.failures import translate
from mongover.operations.index import Index
from mongover.operations.indexes import (
    CreateIndex,
    CreateIndexes,
    DropIndex,
    HideIndex,
    ReplaceIndex,
    UnhideIndex,
)
from mongover.operations.transform import Transform, check_projection
from mongover.operations.validators import DropValidator, SetValidator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Executor
    from typing import Unpack

    from pymongo.database import Database

    from mongover.operations.base import Former
    from mongover.operations.bulk.pace import PaceOptions
    from mongover.operations.collections import CollectionOptions, ModifyOptions
    from mongover.operations.index import IndexOptions


class Operations:
    """The verbs of a revision, each idempotent; every one becomes an `Operation` and is run.

    Raises, from every verb:
        OperationFailed: Arguments that make no sense, before the server is asked; a refusal.
        OperationConflict: What shall be created exists with another definition.
        NotInTransaction: It cannot run in the open transaction; nothing was sent.
        DuplicateValues: A unique index meets values that occur more than once.
        InvalidDocuments: Documents violate a new validator.
        NotOurs: A downgrade would destroy what no revision made.
    """

    DELETE: Final = DELETE
    """What the function of a `transform` returns for a document that shall go."""

    def __init__(self, target: Target) -> None:
        self._target = target

    # -- collections --------------------------------------------------------------------------

    def create_collection(self, name: str, **options: Unpack[CollectionOptions]) -> None:
        """Create a collection: plain, validated, capped, time series, clustered, collated."""
        self.run(CreateCollection.of(name, options))

    def drop_collection(
        self,
        name: str,
        *,
        even_if_not_ours: bool = False,
        repoint_views: str | Literal[False] | None = None,
    ) -> None:
        """Drop a collection or view with all it holds; nothing happens when it is not there.

        In a downgrade one that holds documents and that no revision made is refused, unless
        `even_if_not_ours` is said; so it is with the other verbs that take it.

        Views that read from it are a warning, unless `repoint_views` names what they read from
        now, or is False.
        """
        drop = DropCollection.of(
            name, even_if_not_ours=even_if_not_ours, repoint_views=repoint_views
        )
        self.run(drop)

    def rename_collection(
        self,
        name: str,
        to: str,
        *,
        missing: str = "refuse",
        repoint_views: bool | None = None,
    ) -> None:
        """Rename a collection; never over an existing one.

        Args:
            name: The old name.
            to: The new name.
            missing: Where neither is there: `refuse`, or `skip`.
            repoint_views: Whether the views that read from it read from the new name; when left
                out they are a warning.
        """
        self.run(RenameCollection.of(name, to, missing=missing, repoint_views=repoint_views))

    def modify_collection(self, name: str, **options: Unpack[ModifyOptions]) -> None:
        """Change options in place: expiry, granularity, capped size, images, a view's pipeline."""
        self.run(ModifyCollection.of(name, options))

    def create_view(
        self, name: str, source: str, pipeline: list[Document], *, collation: Any = None
    ) -> None:
        """Create a view: an aggregation over a collection, under a name of its own."""
        collation = None if collation is None else collation_document(collation)
        self.run(CreateView(check_name(name), check_name(source), list(pipeline), collation))

    # -- indexes ------------------------------------------------------------------------------

    def index(self, keys: Any, **options: Unpack[IndexOptions]) -> Index:
        """The definition of an index with options, for `create_indexes`; nothing is created."""
        return Index.of(keys, options)

    def create_index(self, collection: str, keys: Any, **options: Unpack[IndexOptions]) -> None:
        """Create one index.

        Args:
            collection: Where; a collection that is not there is created by the server.
            keys: `"email"`, `("a", "b")`, `[("a", 1), ("b", -1)]` or `{"a": "text"}`.
            **options: `unique`, `sparse`, `expire_after_seconds`, `name`, ...
        """
        self.run(CreateIndex(check_name(collection), Index.of(keys, options)))

    def create_indexes(self, collection: str, indexes: Iterable[Any]) -> None:
        """Create several indexes in one command: `["a", ("a", "b"), op.index("c", unique=True)]`.

        Either all of them are built or none.
        """
        self.run(CreateIndexes.of(collection, indexes))

    def drop_index(self, collection: str, index: Any, *, even_if_not_ours: bool = False) -> None:
        """Drop an index by its name or keys; nothing happens when there is none."""
        self.run(DropIndex.of(collection, index, even_if_not_ours=even_if_not_ours))

    def replace_index(
        self, collection: str, keys: Any, *, old: Any = None, **options: Unpack[IndexOptions]
    ) -> None:
        """Put an index in the place of `old`, or of the one that has its name, else its identity.

        The identity is keys, collation, partial filter and `sparse`. The old index stands until
        the new one does, and no other is touched.
        """
        self.run(ReplaceIndex.of(collection, Index.of(keys, options), old=old))

    def hide_index(self, collection: str, index: Any) -> None:
        """Keep the planner from using an index, by name or keys."""
        self.run(HideIndex.of(collection, index))

    def unhide_index(self, collection: str, index: Any) -> None:
        """Let the planner use a hidden index again."""
        self.run(UnhideIndex.of(collection, index))

    # -- validators ---------------------------------------------------------------------------

    def set_validator(
        self,
        collection: str,
        schema: Any,
        *,
        level: str = "strict",
        action: str = "error",
        on_invalid: str = "refuse",
    ) -> None:
        """Set a validator: a JSON Schema, a model class, or a query.

        Args:
            collection: An existing collection.
            schema: What its documents must be.
            level: `strict`, `moderate` (spares what is invalid already) or `off`.
            action: `error`, or `warn`: the server only logs.
            on_invalid: When documents violate it already: `refuse`, `moderate` or `warn`.
        """
        self.run(
            SetValidator.of(collection, schema, level=level, action=action, on_invalid=on_invalid)
        )

    def drop_validator(self, collection: str) -> None:
        """Drop a collection's validator; nothing happens when it has none."""
        self.run(DropValidator(check_name(collection)))

    # -- documents ----------------------------------------------------------------------------

    def insert(
        self,
        collection: str,
        documents: Iterable[Mapping[str, Any]] | Mapping[str, Any],
        *,
        key: str | Iterable[str] | None = None,
        on_existing: str = "keep",
    ) -> None:
        """Insert documents that are not there yet, found by `key` or `_id`.

        Args:
            collection: Where.
            documents: One document or many; a generator is read in batches.
            key: The field or fields by which a document is found; `_id` when left out.
            on_existing: `keep` what is there, `replace` it, or `update` the given fields.
        """
        self.run(Insert.of(collection, documents, key=key, on_existing=on_existing))

    def update(
        self,
        collection: str,
        filter: Document,  # noqa: A002 - MongoDB's own word for it
        update: Document | list[Document],
        *,
        array_filters: list[Document] | None = None,
        collation: Any = None,
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Change all documents that the filter finds, by operators or by a pipeline.

        Many documents are changed in ranges of `_id`, each with a checkpoint. `max_rate`
        (documents a second), `pause` (seconds after each batch) and `max_lag` (seconds that a
        secondary may be behind) slow that down, here and in the other verbs that take them.
        """
        collation = None if collation is None else collation_document(collation)
        found = check_filter(filter, verb="update")
        change = check_update(update)
        slow = Pace.of(pace)
        self.run(Update(check_name(collection), found, change, array_filters, collation, slow))

    def delete(
        self,
        collection: str,
        filter: Document,  # noqa: A002 - MongoDB's own word for it
        *,
        collation: Any = None,
        even_if_not_ours: bool = False,
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Delete all documents that the filter finds; `{}` means every one."""
        collation = None if collation is None else collation_document(collation)
        found = check_filter(filter, verb="delete")
        slow = Pace.of(pace)
        self.run(Delete(check_name(collection), found, collation, slow, even_if_not_ours))

    def add_field(
        self,
        collection: str,
        field: str,
        value: Any,
        *,
        filter: Document | None = None,  # noqa: A002 - MongoDB's own word for it
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Give a field to all documents that lack it; null counts as having it."""
        name, slow = check_path(field), Pace.of(pace)
        self.run(AddField(check_name(collection), name, value, filter or None, slow))

    def remove_field(
        self,
        collection: str,
        field: str,
        *,
        filter: Document | None = None,  # noqa: A002 - MongoDB's own word for it
        even_if_not_ours: bool = False,
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Take a field from all documents that have it."""
        if check_path(field) == "_id":
            raise OperationFailed("_id cannot be removed")
        slow = Pace.of(pace)
        found = filter or None
        self.run(RemoveField(check_name(collection), field, found, slow, even_if_not_ours))

    def rename_field(
        self,
        collection: str,
        field: str,
        to: str,
        *,
        on_existing: str = "refuse",
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Rename a field; documents that have both names: `refuse`, `skip` or `overwrite`."""
        slow = Pace.of(pace)
        self.run(RenameField.of(collection, field, to, on_existing=on_existing, pace=slow))

    def convert_field(
        self,
        collection: str,
        field: str,
        to: str,
        *,
        on_error: str = "refuse",
        filter: Document | None = None,  # noqa: A002 - MongoDB's own word for it
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Convert a field's values to another BSON type; null, missing and arrays stay.

        Args:
            collection: Where.
            field: The path.
            to: `double`, `string`, `objectId`, `bool`, `date`, `int`, `long` or `decimal`.
            on_error: For values that cannot be converted: `refuse` before anything is changed,
                `keep` them, or give them up for `null` or `unset`.
            filter: Which documents; all without one.
            **pace: `max_rate`, `pause`, `max_lag`.
        """
        slow = Pace.of(pace)
        self.run(
            ConvertField.of(collection, field, to, on_error=on_error, filter=filter, pace=slow)
        )

    def copy(
        self,
        collection: str,
        to: str,
        *,
        pipeline: list[Document] | None = None,
        filter: Document | None = None,  # noqa: A002 - MongoDB's own word for it
        on: str | Iterable[str] = "_id",
        on_match: str = "replace",
        whole: bool = False,
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Copy documents on the server into another collection, through a pipeline if given.

        Documents that would share a key are refused with their count before anything is written.
        Where the pipeline takes `_id` away, each run would add the documents anew: such a copy is
        not repeated by itself.

        Args:
            collection: From where; a view or a time series too.
            to: Where to.
            pipeline: Stages; where one needs all documents at once (`$group`, `$sort`, `$limit`),
                it is one command.
            filter: Which documents; all without one.
            on: The field or fields by which a document of `to` is the same; they need a unique
                index there.
            on_match: What happens to that one: `replace`, `merge`, `keep`, or `fail`.
            whole: It shall be one command however many documents there are.
            **pace: `max_rate`, `pause`, `max_lag`; one command takes none of them.
        """
        self.run(
            Copy.of(
                collection,
                to,
                pipeline=pipeline,
                filter=filter or None,
                on=on,
                on_match=on_match,
                whole=whole,
                pace=Pace.of(pace),
            )
        )

    def merge_into(self, collection: str, to: str, **options: Any) -> None:
        """`copy` that keeps the top-level fields of `to` that the documents do not have.

        A collection may be merged into itself, to write what a pipeline finds in others: the
        pipeline then ends with a `$project` that names the fields to be written.
        """
        self.copy(collection, to, **{"on_match": "merge", **options})

    def backup(
        self,
        collection: str,
        *,
        fields: str | Iterable[str] | None = None,
        filter: Document | None = None,  # noqa: A002 - MongoDB's own word for it
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Keep top-level fields (or whole documents) so that `restore_backup` can put them back.

        `mongover backups` lists and drops what is kept.
        """
        names = check_projection(fields)
        self.run(Backup(check_name(collection), names, filter or None, Pace.of(pace)))

    def restore_backup(
        self,
        collection: str,
        *,
        fields: str | Iterable[str] | None = None,
        on_existing: str = "keep",
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Put back what `backup` of this revision kept, with the same `fields`.

        A value that is there again is newer: it is kept, unless `on_existing` is `overwrite`.
        """
        names = check_projection(fields)
        self.run(RestoreBackup.of(collection, names, on_existing, Pace.of(pace)))

    def transform(
        self,
        collection: str,
        function: Callable[[Any], Any],
        *,
        filter: Document | None = None,  # noqa: A002 - MongoDB's own word for it
        projection: str | Iterable[str] | None = None,
        batch_size: int = BATCH,
        workers: int | None = 1,
        executor: Executor | None = None,
        model_from: Any = None,
        model_to: Any = None,
        unnamed: str = "keep",
        on_error: str = "stop",
        idempotent: bool = True,
        **pace: Unpack[PaceOptions],
    ) -> None:
        """Call a Python function with every document and write what it changed.

        The function returns the new document, an update (`{"$set": ...}`) or a pipeline, None to
        leave the document as it is, or `op.DELETE`. Only the difference is written, and only if
        the document has not changed since it was read; else it is read again, so the function may
        be called more than once for a document.

        Args:
            collection: Where.
            function: Takes a document, or an instance of `model_from`.
            filter: Which documents; all without one.
            projection: The top-level fields to read, where the function needs only these.
            batch_size: At most so many documents at once.
            workers: Processes of this machine, each with parts of the collection; None for one per
                core. With more than one, the function stands at the top level of the revision.
            executor: Any `concurrent.futures` executor to run the workers on instead.
            model_from: A pydantic model that the function is given instances of.
            model_to: The pydantic model of which the function returns instances.
            unnamed: Fields that no model names: `keep` or `drop`.
            on_error: `stop` at the first document that fails, or `skip` or `collect` them:
                `mongover rejects` lists those, and runs them again.
            idempotent: False where a second call for a written document would do harm; then,
                without transactions, a crash blocks the revision until it is resolved.
            **pace: `max_rate`, `pause`, `max_lag`.
        """
        self.run(
            Transform.of(
                collection,
                function,
                filter=None if filter is None else check_filter(filter, verb="transform") or None,
                projection=projection,
                batch_size=batch_size,
                workers=workers,
                executor=executor,
                model_from=model_from,
                model_to=model_to,
                unnamed=unnamed,
                on_error=on_error,
                idempotent=idempotent,
                pace=Pace.of(pace),
            )
        )

    # -- escape -------------------------------------------------------------------------------

    @property
    def db(self) -> Database[Document]:
        """The pymongo database, in the transaction's session where there is one.

        Outside a transaction its use makes the revision one that is not repeated by itself
        after a crash, because nobody can know what was done.
        """
        self._target.journal.check()
        if not self._target.transaction:
            self._target.journal.unrepeatable("op.db")
        if self._target.watch is not None:
            self._target.watch.escape()
        return self._target.db

    def log(self, text: str) -> None:
        """Show a line while the revision runs."""
        self._target.journal.message(str(text))

    def run(self, operation: Operation) -> None:
        """Run one operation: one of mongover's, or a subclass of `Operation` of your own."""
        if not isinstance(operation, Operation):
            raise OperationFailed(
                f"op.run takes an Operation, not a {type(operation).__name__}",
                hint="derive it from mongover.operations.Operation",
            )
        target, journal = self._target, self._target.journal
        journal.check()
        self._check_allowed(operation)
        former = journal.arrive(operation)
        for name in operation.collections:
            journal.touched(name)
        if former is not None and former.outcome:
            return
        if target.watch is not None:
            with _translated(operation, target):
                target.watch.begin(operation)
        journal.operation_started(operation)
        started = time.monotonic()
        with _translated(operation, target):
            landed = former is not None and self._landed(operation, former)
            outcome = "done" if landed else self._applied(operation)
        journal.operation_finished(operation, time.monotonic() - started, outcome)

    def _landed(self, operation: Operation, former: Former) -> bool:
        """Whether an earlier attempt that began the operation carried it out."""
        if former.proof is None:
            return False
        landed = operation.landed(self._target, former.proof)
        if landed is None:
            self._target.journal.lost_track(operation)
        return landed

    def _check_allowed(self, operation: Operation) -> None:
        target = self._target
        for name in operation.collections:
            if name in target.protected:
                raise OperationFailed(
                    f"{name} holds the history of the migrations or a backup beside it: "
                    "no operation may change it",
                    hint="`mongover stamp`, `resolve` and `repair` change the history; "
                    "`op.restore_backup` uses a backup, `mongover backups --drop` ends it",
                )
        if target.transaction:
            with _translated(operation, target):
                why = operation.refused(target)
            if why:
                raise NotInTransaction(why, notes=(operation.describe(),), hint=TRANSACTION_HINT)

    def _applied(self, operation: Operation) -> Outcome:
        target = self._target
        target.journal.begin(operation, operation.stake(target))
        try:
            with _translated(operation, target):
                return operation.apply(target)
        except RevisionError as error:
            if target.strict or target.transaction or not operation.creation:
                target.journal.broke_off(operation, error)
                raise
            target.journal.warning(f"{operation.describe()}: {error.message}")
            return "warning"
        except BaseException as error:
            target.journal.broke_off(operation, error)
            raise


@contextmanager
def _translated(operation: Operation, target: Target) -> Iterator[None]:
    """Errors of the driver and the server become mongover's; the cause is kept."""
    from bson.errors import BSONError
    from pymongo.errors import PyMongoError

    try:
        yield
    except (PyMongoError, BSONError, OverflowError) as error:
        ours = translate(error, operation, target)
        if ours is None:
            raise
        raise ours from error
