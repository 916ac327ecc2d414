"""A validator made of a model accepts whatever the model writes, through whichever ODM."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import enum
import ipaddress
import pathlib
import re
import uuid
import warnings
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Optional, TypeVar

import beanie
import bson
import odmantic
import pytest
from bson.codec_options import CodecOptions
from bson.errors import InvalidId
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    HttpUrl,
    JsonValue,
    PlainSerializer,
    RootModel,
    SecretBytes,
    SecretStr,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    computed_field,
    create_model,
    field_validator,
    model_serializer,
)
from pymongo import AsyncMongoClient
from pymongo.errors import WriteError
from typing_extensions import TypedDict

from mongover.errors import OperationConflict, OperationFailed
from mongover.operations.patterns import carried
from mongover.operations.validation import as_validator
from tests.support.depth import examples
from tests.support.operations_support import Desk, rebuilt, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymongo.database import Database

    from tests.support.servers import Server

    Db = Database[dict[str, Any]]

STANDARD: CodecOptions[dict[str, Any]] = CodecOptions(uuid_representation=4)
T = TypeVar("T")


# -- kinds of fields: an annotation, and values that it takes -------------------------------------


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    S = 1
    L = 2


class Mixed(enum.Enum):
    WORD = "word"
    ONE = 1
    NOTHING = None
    PAIR = (1, 2)
    RAW = b"x"


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int = Field(alias="nr", ge=0)
    words: list[str] = []
    back: Inner | None = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow", populate_by_name=True)
    name: str = Field(default="x", serialization_alias="written")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: Annotated[int, Field(le=9)] = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    owner: bson.ObjectId | None = None
    model_config = ConfigDict(arbitrary_types_allowed=True)


class Box(BaseModel, Generic[T]):
    held: T
    more: list[Box[T]] = []


class Keys(TypedDict, total=False):
    x: Annotated[int, Field(alias="ex")]
    y: str


class _FromText:
    """As the pages of pydantic and of FastAPI annotate a class of somebody else's."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        def convert(value: str) -> Any:
            return bson.ObjectId(value)

        return core_schema.json_or_python_schema(
            json_schema=core_schema.str_schema(),
            python_schema=core_schema.union_schema(
                [
                    core_schema.is_instance_schema(bson.ObjectId),
                    core_schema.no_info_plain_validator_function(convert),
                ]
            ),
            serialization=core_schema.to_string_ser_schema(),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return handler(core_schema.str_schema())


class OwnId(bson.ObjectId):
    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(cls.read)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: Any) -> Any:
        return {"type": "string"}

    @classmethod
    def read(cls, value: Any) -> Any:
        return bson.ObjectId(value)


class TextId(str):
    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls.read, core_schema.str_schema())

    @classmethod
    def read(cls, value: Any) -> Any:
        return bson.ObjectId(value)


def animal(value: Any) -> str:
    return str(value.get("kind") if isinstance(value, dict) else getattr(value, "kind", ""))


ids = st.binary(min_size=12, max_size=12).map(bson.ObjectId)
hex_ids = ids.map(str)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
long_ints = st.integers(-(2**63), 2**63 - 1)
moments = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))  # noqa: DTZ001 - as BSON's
decimals = st.decimals(-(10**9), 10**9, places=3, allow_nan=False)
inners = st.recursive(
    st.builds(lambda n: {"nr": n}, st.integers(0, 99)),
    lambda more: st.builds(lambda n, b: {"nr": n, "back": b}, st.integers(0, 9), more),
    max_leaves=4,
)
any_bson = st.one_of(st.none(), text, long_ints, st.booleans(), ids, moments, st.lists(text))

Kind = tuple[Any, st.SearchStrategy[Any]]

EVERYWHERE: list[Kind] = [
    (str, text),
    (Annotated[str, Field(min_length=2, max_length=4)], text),
    (Annotated[str, Field(pattern=r"^\w+ [a-c\d]{1,3}$")], st.from_regex(r"^\w+ [a-c\d]{1,3}$")),
    (int, long_ints),
    (Annotated[int, Field(gt=-5, le=2**70, multiple_of=3)],
     st.integers(-9, 99).map(lambda n: n * 3)),
    (float, st.floats()),
    (Annotated[float, Field(ge=0.1, lt=9)], st.floats()),
    (Annotated[float, Field(gt=0, multiple_of=0.1)], st.integers(1, 99).map(lambda n: n * 0.1)),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=4)),
    (Annotated[bytes, Field(max_length=3)], st.binary(max_size=3)),
    (uuid.UUID, st.uuids()),
    (Any, any_bson),
    (Literal["a", 1, True] | None, st.sampled_from(["a", 1, True, None])),
    (Colour, st.sampled_from(Colour)),
    (Size, st.sampled_from(Size)),
    (Rights, st.sampled_from([Rights.READ, Rights.READ | Rights.WRITE])),
    (dt.datetime, moments),
    (list[Any], st.lists(any_bson, max_size=2)),
]  # fmt: skip
IN_PYDANTIC: list[Kind] = [
    (beanie.PydanticObjectId, ids),
    (Annotated[bson.ObjectId, _FromText], st.one_of(ids, hex_ids)),
    (OwnId, hex_ids),
    (TextId, hex_ids),
    (bson.ObjectId, ids),
    (bson.Int64, long_ints.map(bson.Int64)),
    (bson.Decimal128, decimals.map(bson.Decimal128)),
    (bson.Binary, st.binary(max_size=4).map(bson.Binary)),
    (bson.Regex, st.just(bson.Regex("^a"))),
    (Annotated[str, AfterValidator(bson.ObjectId)], hex_ids),
    (Annotated[bson.ObjectId, BeforeValidator(bson.ObjectId), WithJsonSchema({"type": "string"})],
     hex_ids),
    (Annotated[dt.datetime, Field(ge=dt.datetime(1900, 1, 1))],  # noqa: DTZ001
     st.datetimes(dt.datetime(1900, 1, 1))),  # noqa: DTZ001
    (dt.date, st.dates()),
    (dt.timedelta, st.timedeltas()),
    (Decimal, decimals),
    (Annotated[Decimal, Field(ge=Decimal("0.1"), lt=7, max_digits=5)], st.decimals(0, 7, places=3)),
    (Annotated[Decimal, Field(gt=0.3)], st.decimals(0, 1, places=2)),
    (pathlib.Path, st.just(pathlib.Path("/a/b"))),
    (SecretStr, text.map(SecretStr)),
    (SecretBytes, st.binary(max_size=3).map(SecretBytes)),
    (HttpUrl, st.just("https://example.org/x")),
    (AnyUrl, st.just("mailto:a@example.org")),
    (ipaddress.IPv4Address, st.ip_addresses(v=4)),
    (ipaddress.IPv6Network, st.just(ipaddress.IPv6Network("::/64"))),
    (re.Pattern, st.just(re.compile("^a+$"))),
    (Mixed, st.sampled_from(Mixed)),
    (Inner, inners),
    (Open, st.dictionaries(st.sampled_from(["name", "other", "_x"]), text, max_size=3)),
    (Annotated[Cat | Dog, Field(discriminator="kind")],
     st.sampled_from([{"kind": "cat", "lives": 3}, {"kind": "dog", "owner": bson.ObjectId()}])),
    (Annotated[Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")], Discriminator(animal)],
     st.sampled_from([{"kind": "cat"}, {"kind": "dog"}])),
    (Box[int], st.builds(lambda n: {"held": n, "more": [{"held": n}]}, long_ints)),
    (JsonValue, st.recursive(text | st.integers(0, 9), lambda more: st.lists(more, max_size=2))),
    (RootModel[list[int]], st.lists(st.integers(0, 5), max_size=3)),
    (Keys, st.sampled_from([{}, {"ex": 1}, {"ex": 1, "y": "a"}])),
]  # fmt: skip
HASHABLE = {str, int, float, bool, bytes, uuid.UUID, dt.datetime, dt.date, Colour, bson.ObjectId}


def of(generic: Any, *parts: Any) -> Any:
    """A generic of kinds that are known only here."""
    return generic[parts if len(parts) > 1 else parts[0]]


def composites(kinds: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return st.one_of(
        kinds.map(lambda k: (of(list, k[0]), st.lists(k[1], max_size=3))),
        kinds.filter(lambda k: k[0] in HASHABLE).map(
            lambda k: (of(set, k[0]), st.sets(k[1], max_size=4))
        ),
        kinds.map(lambda k: (of(tuple, k[0], ...), st.lists(k[1], max_size=3).map(tuple))),
        st.tuples(kinds, kinds).map(
            lambda two: (of(tuple, two[0][0], two[1][0]), st.tuples(two[0][1], two[1][1]))
        ),
        kinds.map(
            lambda k: (
                of(dict, str, k[0]),
                st.dictionaries(st.sampled_from("ab"), k[1], max_size=2),
            )
        ),
        kinds.map(lambda k: (k[0] | None, st.none() | k[1])),
        st.tuples(kinds, kinds).map(lambda two: (two[0][0] | two[1][0], two[0][1] | two[1][1])),
    )


def more_composites(kinds: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return st.one_of(
        composites(kinds),
        kinds.map(lambda k: (of(Sequence, k[0]), st.lists(k[1], max_size=3))),
        kinds.map(lambda k: (of(collections.deque, k[0]), st.lists(k[1], max_size=3))),
        kinds.map(lambda k: (of(Mapping, str, k[0]), st.dictionaries(st.just("a"), k[1]))),
        kinds.map(
            lambda k: (
                create_model("Made", part=(k[0], Field(alias="Part")), __config__=LOOSE),
                k[1].map(lambda value: {"Part": value}),
            )
        ),
    )


LOOSE = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


@st.composite
def fields(draw: st.DrawFn, kinds: st.SearchStrategy[Kind]) -> dict[str, tuple[Any, list[Any]]]:
    """Some fields by name, each with the values of three instances."""
    chosen = draw(st.lists(kinds, min_size=1, max_size=4))
    return {
        f"f{place}": (kind, draw(st.lists(values, min_size=3, max_size=3)))
        for place, (kind, values) in enumerate(chosen)
    }


def kinds_of(leaves: list[Kind], more: Callable[..., Any]) -> st.SearchStrategy[Kind]:
    return st.recursive(st.sampled_from(leaves), more, max_leaves=3)


def instances(model: Any, found: dict[str, tuple[Any, list[Any]]]) -> list[Any]:
    """Those of the three that the model takes."""
    made = []
    for place in range(3):
        try:
            made.append(model(**{name: values[place] for name, (_, values) in found.items()}))
        except (ValidationError, TypeError, InvalidId):
            continue
    if not made:
        reject()
    return made


MANY = settings(max_examples=examples(0.6), suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def db(standalone: Server) -> Iterator[Db]:
    with standalone.client() as client:
        name = f"t_{uuid.uuid4().hex[:16]}"
        yield client.get_database(name, codec_options=STANDARD)
        client.drop_database(name)


def collection(db: Db, model: Any, *, verb: str = "create_collection") -> str:
    """A new collection that has the validator of the model, by either verb."""
    name = f"c_{uuid.uuid4().hex[:12]}"
    desk = Desk(db)
    if verb == "create_collection":
        desk.do("create_collection", name, validator=model)
    else:
        desk.do("create_collection", name)
        desk.do("set_validator", name, model)
    return name


# -- plain pydantic -------------------------------------------------------------------------------


def encoded(value: Any, way: str) -> Any:
    """What an application must do before the driver takes it: as BSON has it, or as text."""
    simple: dict[type, Any] = {
        pathlib.PurePath: str,
        SecretStr: SecretStr.get_secret_value,
        SecretBytes: SecretBytes.get_secret_value,
        AnyUrl: str,
        ipaddress.IPv4Address: str,
        ipaddress.IPv6Network: str,
        enum.Enum: lambda v: encoded(v.value, way),
        dt.timedelta: dt.timedelta.total_seconds if way == "bson" else str,
        Decimal: {"bson": bson.Decimal128, "text": str, "double": float}[way],
    }
    for cls, encode in simple.items():
        if isinstance(value, cls):
            return encode(value)
    if type(value) is dt.date:
        moment = dt.datetime.combine(value, dt.time.min)
        return moment if way == "bson" else value.isoformat()
    if isinstance(value, Mapping):
        return {key: encoded(item, way) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | collections.deque):
        return [encoded(item, way) for item in value]
    return value


PLAIN_KINDS = kinds_of(EVERYWHERE + IN_PYDANTIC, more_composites)


@MANY
@given(
    found=fields(PLAIN_KINDS), way=st.sampled_from(["bson", "text", "double"]), closed=st.booleans()
)
def test_a_plain_model_may_write_whatever_it_holds(
    db: Db, found: dict[str, Any], way: str, closed: bool
) -> None:
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid" if closed else "ignore")
    kinds: dict[str, Any] = {name: (kind, ...) for name, (kind, _) in found.items()}
    model: Any = create_model("Plain", __config__=config, **kinds)
    name = collection(db, model)
    for instance in instances(model, found):
        with warnings.catch_warnings(action="ignore"):
            document = instance.model_dump(by_alias=True)
        db[name].insert_one(encoded(document, way))


@pytest.mark.parametrize("verb", ["create_collection", "set_validator"])
def test_an_object_id_is_one_however_it_is_annotated(db: Db, verb: str) -> None:
    class Plain(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
        id: beanie.PydanticObjectId = Field(alias="_id", default_factory=beanie.PydanticObjectId)
        bare: bson.ObjectId
        read: Annotated[bson.ObjectId, _FromText]
        own: OwnId
        theirs: odmantic.bson.ObjectId
        many: list[beanie.PydanticObjectId] | None = None

    name = collection(db, Plain, verb=verb)
    one = bson.ObjectId()
    values: dict[str, Any] = {
        "bare": one,
        "read": str(one),
        "own": str(one),
        "theirs": one,
        "many": [one],
    }
    document = Plain(**values).model_dump(by_alias=True)
    db[name].insert_one(document)
    for field in document:
        refuses(db, name, {**document, field: str(one)}, but="_id" if field != "_id" else "")


def refuses(db: Db, name: str, document: dict[str, Any], *, but: str = "_id") -> None:
    """The collection does not take the document; `_id` is a new one."""
    with pytest.raises(WriteError, match="failed validation"):
        db[name].insert_one({key: value for key, value in document.items() if key != but})


def test_an_id_that_the_model_reads_as_text_may_be_the_drivers_own(db: Db) -> None:
    class Student(BaseModel):
        id: Annotated[str, BeforeValidator(str)] | None = Field(alias="_id", default=None)
        name: str

    name = collection(db, Student)
    db[name].insert_one(Student(name="a").model_dump(by_alias=True, exclude={"id"}))
    db[name].insert_one({"_id": "text", "name": "a"})
    refuses(db, name, {"_id": 3, "name": "a"}, but="")


def test_what_a_serializer_or_a_type_of_its_own_makes_is_accepted(db: Db) -> None:
    class Money:
        pass

    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        said: Annotated[int, PlainSerializer(str, return_type=str)]
        unsaid: Annotated[int, PlainSerializer(lambda v: [v])]
        only_json: Annotated[int, PlainSerializer(str, when_used="json")]
        unknown: Money | None = None
        text_id: TextId

        @computed_field
        def total(self) -> int:
            return 3

        @field_validator("only_json")
        @classmethod
        def check(cls, value: int) -> int:
            return value

    name = collection(db, Odd)
    odd = Odd(said=1, unsaid=1, only_json=1, text_id=TextId("0" * 24))
    with warnings.catch_warnings(action="ignore"):
        document = odd.model_dump()
    assert document["said"] == "1"
    assert document["total"] == 3
    db[name].insert_one(dict(document))
    db[name].insert_one({**document, "unknown": {"any": 1}, "text_id": 7})
    for wrong in ({"said": 1}, {"only_json": "1"}, {"total": "x"}):
        refuses(db, name, {**document, **wrong})


def test_a_model_with_a_serializer_of_its_own_may_write_anything_and_this_is_said(db: Db) -> None:
    class Whole(BaseModel):
        name: str

        @model_serializer
        def write(self):  # type: ignore[no-untyped-def] # noqa: ANN202 - without one on purpose
            return {"n": self.name}

    desk = Desk(db)
    name = f"c_{uuid.uuid4().hex}"
    desk.do("create_collection", name, validator=Whole)
    assert "the type (it has a serializer without a return type)" in desk.book.warnings[0]
    db[name].insert_one(Whole(name="a").model_dump())


@dataclasses.dataclass
class Point:
    """A place."""

    x: float
    tags: set[str] = dataclasses.field(default_factory=set)


@pytest.mark.parametrize(
    ("model", "good", "wrong"),
    [
        (Point, {"x": 1, "tags": ["a"]}, {"x": "1"}),
        (Keys, {"ex": 1}, {"ex": "1"}),
        (Cat | Dog, {"kind": "dog", "owner": None}, {"kind": "bird"}),
        (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": "cat"}, {"kind": "bird"}),
        (Box[int], {"held": 1, "more": []}, {"held": "x", "more": []}),
        (Cat, {"lives": 3}, {"lives": 10}),
        (create_model("Anything", v=(JsonValue, ...)), {"v": [[1]]}, {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["create_collection", "set_validator"])
def test_dataclasses_typed_dicts_generics_and_unions_are_models_too(
    db: Db, verb: str, model: Any, good: dict[str, Any], wrong: dict[str, Any]
) -> None:
    name = collection(db, model, verb=verb)
    db[name].insert_one(dict(good))
    refuses(db, name, wrong)


def test_a_model_that_contains_itself_is_open_from_there_on_and_this_is_said(db: Db) -> None:
    desk = Desk(db)
    name = f"c_{uuid.uuid4().hex}"
    desk.do("create_collection", name, validator=Inner)
    assert "Inner where it repeats, at back" in desk.book.warnings[0]
    document = {"nr": 1, "words": [], "back": {"nr": 1, "back": {"odd": "but accepted"}}}
    db[name].insert_one(dict(document))
    refuses(db, name, {**document, "back": 7})


def test_models_that_all_contain_each_other_make_no_endless_validator(db: Db) -> None:
    names = [f"M{number}" for number in range(9)]
    space: dict[str, Any] = {}
    for name in names:
        others: dict[str, Any] = {f"to_{other}": (f"{other} | None", None) for other in names}
        space[name] = create_model(name, __module__=__name__, number=(int, 0), **others)
    for model in space.values():
        model.model_rebuild(_types_namespace=space)
    name = collection(db, space["M0"])
    db[name].insert_one(space["M0"](to_M1=space["M1"](to_M2=space["M2"]())).model_dump())
    refuses(db, name, {"number": "x"})


FORBIDDING = {"type": "object", "additionalProperties": False, "properties": {"a": {}}}


@pytest.mark.parametrize("verb", ["create_collection", "set_validator"])
@pytest.mark.parametrize(
    "schema",
    [
        FORBIDDING,
        {"$jsonSchema": FORBIDDING},
        {"allOf": [FORBIDDING], "type": "object"},
        {"$jsonSchema": {"anyOf": [{"$ref": "#/$defs/F"}], "$defs": {"F": FORBIDDING}}},
        create_model("Closed", a=(int, 1), __config__=ConfigDict(extra="forbid")),
    ],
    ids=str,
)
def test_a_schema_without_further_fields_lets_every_document_have_its_id(
    db: Db, verb: str, schema: Any
) -> None:
    name = collection(db, schema, verb=verb)
    db[name].insert_one({"a": 1})
    refuses(db, name, {"b": 1})


@pytest.mark.parametrize("verb", ["create_collection", "set_validator"])
def test_a_format_that_mongodb_has_not_is_named_not_dropped_in_silence(db: Db, verb: str) -> None:
    desk = Desk(db)
    name = f"c_{uuid.uuid4().hex}"
    schema = {
        "type": "object",
        "properties": {
            "email": {"type": "string", "format": "email"},
            "born": {"type": "string", "format": "date"},
            "in": {"type": "array", "items": {"type": "string", "format": "uri"}},
            "id": {"bsonType": "objectId"},
        },
    }
    if verb == "create_collection":
        assert desk.do(verb, name, validator={"$jsonSchema": schema}) == "done"
    else:
        desk.do("create_collection", name)
        assert desk.do(verb, name, schema) == "done"
    said = (
        f"the validator of {db.name}.{name} leaves to the application what MongoDB cannot"
        " check: format email of email; format uri of in.*"
    )
    assert desk.book.warnings == [said]
    db[name].insert_one({"email": "x", "born": dt.datetime(2026, 1, 1), "id": bson.ObjectId()})  # noqa: DTZ001
    refuses(db, name, {"born": "2026-01-01"})
    refuses(db, name, {"id": "text"})


def test_both_verbs_make_the_same_of_the_same(db: Db) -> None:
    for model in (Inner, Cat | Dog, {"$jsonSchema": FORBIDDING}, FORBIDDING, Shop):
        made = recorded("create_collection", "a", validator=model)
        was_set = recorded("set_validator", "a", model)
        assert made.options["validator"] == was_set.validator  # type: ignore[attr-defined]
        assert as_validator(was_set.validator).query == was_set.validator  # type: ignore[attr-defined]
        assert rebuilt(made) == made
        assert "left_out" not in made.to_json()
        assert "left_out" not in was_set.render()


def test_a_collection_with_a_model_is_created_once_and_known_again(db: Db) -> None:
    desk = Desk(db)
    for model in (Inner, Shop):
        name = f"c_{uuid.uuid4().hex}"
        assert desk.do("create_collection", name, validator=model) == "done"
        assert desk.do("create_collection", name, validator=model) == "unchanged"
        assert desk.do("set_validator", name, model) == "unchanged"
    db.create_collection("by_hand", validator={"$jsonSchema": {"type": "object"}})
    same = {"$jsonSchema": {"type": "object"}}
    assert desk.do("create_collection", "by_hand", validator=same) == "unchanged"
    db.create_collection("refusing", validator={"$jsonSchema": FORBIDDING})
    with pytest.raises(OperationConflict, match="another definition"):
        desk.do("create_collection", "refusing", validator=FORBIDDING)


def test_a_query_stays_a_query_where_mongodb_takes_one(db: Db) -> None:
    desk = Desk(db)
    for query in ({"title": "x"}, {"age": {"$gt": 1}}, {"type": "user"}, {"$or": [{"a": 1}]}):
        name = f"c_{uuid.uuid4().hex}"
        desk.do("create_collection", name, validator=query)
        found = next(iter(db.list_collections(filter={"name": name})))
        assert found["options"]["validator"] == query


LATE: Any = {"a": ("Missing", ...)}  # a name that is never defined


@pytest.mark.parametrize("model", [RootModel[list[int]], create_model("Late", **LATE)])
def test_a_model_of_no_documents_is_refused_with_its_name(model: Any) -> None:
    with pytest.raises(OperationFailed, match=model.__name__.replace("[", r"\[")) as caught:
        recorded("set_validator", "a", model)
    assert caught.value.hint


def test_numbers_and_sets_are_what_the_database_can_hold(db: Db) -> None:
    class Held(BaseModel):
        share: float
        count: int
        moments: set[dt.datetime] = set()
        words: set[str] = set()

    name = collection(db, Held)
    first = dt.datetime(2026, 1, 1, microsecond=1)  # noqa: DTZ001
    two_in_one_millisecond = [first, first.replace(microsecond=2)]
    db[name].insert_one({"share": 1, "count": 2**40, "moments": two_in_one_millisecond})
    refuses(db, name, {"share": 1, "count": 1.5})
    refuses(db, name, {"share": 1, "count": 1, "words": ["a", "a"]})
    refuses(db, name, {"share": "1", "count": 1})


def test_a_bson_type_that_the_model_names_itself_stands(db: Db) -> None:
    class Chosen(BaseModel):
        whole: int = Field(json_schema_extra={"bsonType": ["int", "long", "double"]})
        text: Annotated[Any, WithJsonSchema({"bsonType": "string"})]
        other: str = Field(json_schema_extra={"x-unit": "m", "pattern": "^no$"})

    name = collection(db, Chosen)
    db[name].insert_one({"whole": 1.5, "text": "a", "other": "any"})
    refuses(db, name, {"whole": 1, "text": 3, "other": "any"})


# -- patterns -------------------------------------------------------------------------------------


PATTERNS = [
    r"^\d+$", r"^[^\d]+$", r"^\w{1,3}$", r"^[\w.-]+@[\w-]+\.\w{2,}$", r"^\S+\s\S+$", r"^.$",
    r"^(ab|cd)?e{2,4}?$", r"^[^a-c]$", r"^\D\W$", r"a|b", r"^(?:\d{3}-){2}\d$", r"^\x41[\]\\^-]$",
    r"^(?P<year>\d{4})-\d\d$", "^é+$", r"^[\s\d]$", r"^\$\.\*$",
]  # fmt: skip
NOT_CARRIED = [
    r"^(?=a)", r"\bword", r"(?i)abc", r"\p{L}", r"^[\w&&[^x]]$", r"a++", r"^(a+)+$", r"^(a|b)*$",
    r"^[^\W]$", r"^[[:alpha:]]$", r"a{,3}", r"\1", "x" * 2_000,
]  # fmt: skip


@pytest.mark.parametrize("pattern", NOT_CARRIED, ids=range(len(NOT_CARRIED)))
def test_a_pattern_that_would_mean_another_thing_is_not_carried_over(pattern: str) -> None:
    assert carried(pattern) is None


@MANY
@given(pattern=st.sampled_from(PATTERNS), data=st.data())
def test_a_pattern_of_the_server_accepts_what_the_models_does(
    db: Db, pattern: str, data: st.DataObject
) -> None:
    adapter = TypeAdapter(Annotated[str, Field(pattern=pattern)])
    model = create_model("Text", text=(Annotated[str, Field(pattern=pattern)], ...))
    name = collection(db, model)
    for _ in range(3):
        words = data.draw(st.from_regex(pattern) | text)
        try:
            adapter.validate_python(words)
        except ValidationError:
            continue
        db[name].insert_one({"text": words})


def test_a_pattern_still_refuses_what_is_plainly_wrong(db: Db) -> None:
    held: Any = {"text": (Annotated[str, Field(pattern=r"^\d{3}-[a-z\s]+$")], ...)}
    model = create_model("Text", **held)
    name = collection(db, model)
    db[name].insert_one({"text": "123-a b"})
    for wrong in ("12-a", "abc-a", "123-A", "123-"):
        refuses(db, name, {"text": wrong})


# -- Beanie ---------------------------------------------------------------------------------------


class Shop(beanie.Document):
    """A document with whatever Beanie has."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, beanie.Indexed(unique=True)] = Field(alias="Name", min_length=1)
    owner: beanie.PydanticObjectId
    best: beanie.Link[Shop] | None = None
    links: list[beanie.Link[Shop]] = Field(default_factory=list)
    back: list[beanie.BackLink[Shop]] = Field(json_schema_extra={"original_field": "best"})
    seen: Annotated[str, Field(serialization_alias="watched")] = "x"
    secret: str = Field(default="", exclude=True)
    inner: Inner | None = None

    class Settings:
        use_revision = True
        use_state_management = True

    @computed_field
    def total(self) -> int:
        return 1


class Vehicle(beanie.Document):
    model_config = ConfigDict(extra="forbid")
    wheels: int

    class Settings:
        is_root = True


class Car(Vehicle):
    fuel: str


class Dated(BaseModel):
    day: dt.date


class Sparse(beanie.Document):
    must: int | None
    inner: Open | None = None
    when: dt.date
    price: Decimal
    colour: Mixed
    dated: Dated

    class Settings:
        keep_nulls = False
        bson_encoders = {dt.date: lambda day: day.isoformat(), Mixed: lambda member: member.name}  # noqa: RUF012


class Async:
    """Beanie on a loop of its own."""

    def __init__(self, server: Server, db: Db) -> None:
        self.runner = asyncio.Runner()
        self.client: AsyncMongoClient[dict[str, Any]] = self.runner.run(self._open(server))
        self.database = self.client.get_database(db.name, codec_options=STANDARD)

    async def _open(self, server: Server) -> AsyncMongoClient[dict[str, Any]]:
        return AsyncMongoClient(server.url)

    def use(self, *models: Any) -> None:
        self.run(beanie.init_beanie(self.database, document_models=list(models)))

    def run(self, work: Any) -> Any:
        return self.runner.run(self._awaited(work))

    async def _awaited(self, work: Any) -> Any:
        return await work

    def close(self) -> None:
        self.run(self.client.close())
        self.runner.close()


@pytest.fixture(scope="module")
def loop(standalone: Server, db: Db) -> Iterator[Async]:
    found = Async(standalone, db)
    yield found
    found.close()


BEANIE_KINDS = kinds_of(
    [kind for kind in EVERYWHERE + IN_PYDANTIC if kind[0] is not Keys], more_composites
)


@MANY
@given(found=fields(BEANIE_KINDS), closed=st.booleans(), nulls=st.booleans())
def test_beanie_may_write_whatever_a_document_holds(
    db: Db, loop: Async, found: dict[str, Any], closed: bool, nulls: bool
) -> None:
    name = f"c_{uuid.uuid4().hex[:12]}"
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid" if closed else "allow")
    space = {
        "__module__": __name__,
        "__annotations__": {field: kind for field, (kind, _) in found.items()},
        "model_config": config,
    }
    meta: Any = type(beanie.Document)
    model: Any = meta("Made", (beanie.Document,), space)
    model.Settings = type("Settings", (), {"name": name, "keep_nulls": nulls})
    Desk(db).do("create_collection", name, validator=model)
    loop.use(model)
    for instance in instances(model, found):
        loop.run(instance.insert())


@pytest.mark.parametrize("verb", ["create_collection", "set_validator"])
def test_beanies_ids_links_revisions_and_aliases_are_accepted_and_wrong_ones_not(
    db: Db, loop: Async, verb: str
) -> None:
    name = collection(db, Shop, verb=verb)
    Shop.Settings.name = name  # type: ignore[attr-defined]
    loop.use(Shop)
    first = Shop(Name="a", owner=bson.ObjectId())
    loop.run(first.insert())
    second = Shop(Name="b", owner=bson.ObjectId(), best=first, links=[first], inner={"nr": 1})
    loop.run(second.insert())
    loop.run(second.set({"seen": "y"}))
    second.seen = "z"
    loop.run(second.save_changes())
    loop.run(second.replace())
    document = db[name].find_one({"Name": "b"})
    assert document is not None
    names = {"_id", "revision_id", "Name", "owner", "best", "links", "seen", "inner"}
    assert document.keys() == names
    for wrong in ({"owner": "x"}, {"Name": ""}, {"best": "x"}, {"odd": 1}, {"inner": {"nr": "1"}}):
        refuses(db, name, {**document, "Name": "c", **wrong})
    refuses(db, name, {"Name": "c"})


def test_documents_of_subclasses_pass_the_validator_of_their_root(db: Db, loop: Async) -> None:
    Vehicle.Settings.name = name = f"c_{uuid.uuid4().hex}"  # type: ignore[attr-defined]
    desk = Desk(db)
    desk.do("create_collection", name, validator=Vehicle)
    assert "subclasses" in desk.book.warnings[0]
    loop.use(Vehicle, Car)
    loop.run(Vehicle(wheels=2).insert())
    loop.run(Car(wheels=4, fuel="air").insert())
    assert {row["_class_id"] for row in db[name].find()} == {"Vehicle", "Vehicle.Car"}
    refuses(db, name, {"wheels": "4"})


def test_beanies_own_encoders_and_left_out_nulls_are_respected(db: Db, loop: Async) -> None:
    name = collection(db, Sparse)
    Sparse.Settings.name = name  # type: ignore[attr-defined]
    loop.use(Sparse)
    day = dt.date(2026, 1, 1)
    sparse = Sparse(
        must=None, when=day, price=Decimal("1.5"), colour=Mixed.PAIR, dated=Dated(day=day)
    )
    loop.run(sparse.insert())
    document = db[name].find_one({})
    assert document is not None
    assert "must" not in document
    assert (document["when"], document["colour"]) == ("2026-01-01", "PAIR")
    refuses(db, name, {**document, "price": "1.5"})
    refuses(db, name, {**document, "must": "1"})


# -- ODMantic -------------------------------------------------------------------------------------


class Publisher(odmantic.Model):
    name: str = odmantic.Field(primary_field=True)


class Part(odmantic.EmbeddedModel):
    number: int = odmantic.Field(key_name="nr", ge=0)


class Book(odmantic.Model):
    model_config = odmantic.config.ODMConfigDict(extra="forbid")
    title: str = odmantic.Field(key_name="t", min_length=1)
    publisher: Publisher = odmantic.Reference(key_name="publisher_name")
    part: Part
    parts: list[Part] = odmantic.Field(default_factory=list)
    by_name: dict[str, Part] = odmantic.Field(default_factory=dict)
    price: Decimal = Decimal(1)
    other: Optional[bson.ObjectId] = None  # noqa: UP045 - as ODMantic's pages write it


ODMANTIC_KINDS = kinds_of(
    [*EVERYWHERE, (bson.ObjectId, ids), (bson.Decimal128, decimals.map(bson.Decimal128)),
     (bson.Int64, long_ints.map(bson.Int64)), (bson.Regex, st.just(bson.Regex("^a"))),
     (bson.Binary, st.binary(max_size=3).map(bson.Binary)), (re.Pattern, st.just(re.compile("a"))),
     (Inner, inners), (Keys, st.just({"ex": 1}))],
    lambda kinds: composites(kinds).filter(lambda kind: "set[" not in str(kind[0])),
)  # fmt: skip


@MANY
@given(found=fields(ODMANTIC_KINDS), closed=st.booleans())
def test_odmantic_may_write_whatever_a_model_holds(
    db: Db, found: dict[str, Any], closed: bool
) -> None:
    name = f"c_{uuid.uuid4().hex[:12]}"
    space = {
        "__module__": __name__,
        "__annotations__": {field: kind for field, (kind, _) in found.items()},
        "model_config": {"collection": name, "extra": "forbid" if closed else "allow"},
        "f0": odmantic.Field(key_name="F0"),
    }
    meta: Any = type(odmantic.Model)
    model: Any = meta("Made", (odmantic.Model,), space)
    Desk(db).do("create_collection", name, validator=model)
    engine = odmantic.SyncEngine(db.client, db.name)
    engine.database = db
    for instance in instances(model, found):
        engine.save(instance)


@pytest.mark.parametrize("verb", ["create_collection", "set_validator"])
def test_odmantics_key_names_references_and_embedded_models_are_accepted_and_wrong_ones_not(
    db: Db, verb: str
) -> None:
    name = collection(db, Book, verb=verb)
    book: Any = Book  # its plugin for mypy is not in use
    publisher: Any = Publisher
    document = book(
        title="a", publisher=publisher(name="p"), part=Part(number=1), parts=[Part(number=2)],
        by_name={"x": Part(number=3)},
    ).model_dump_doc()  # fmt: skip
    db[name].insert_one(dict(document))
    assert {"_id", "t", "publisher_name"} < set(document)
    wrong: dict[str, Any]
    for wrong in ({"_id": "x"}, {"t": ""}, {"publisher_name": 1}, {"part": {"nr": -1}},
                  {"parts": [{}]}, {"by_name": {"x": 1}}, {"odd": 1}, {"other": "x"}):  # fmt: skip
        refuses(db, name, {**document, "_id": bson.ObjectId(), **wrong}, but="")
    refuses(db, name, {"t": "a"})
