"""Studies: the arms that are trained for some teachers, and the claims that they test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

import families
from benchmark.spec import plugins
from benchmark.spec.arm import Arm, star_filled
from benchmark.spec.protocol import Need
from benchmark.spec.records import NUMBER, Record, validated
from benchmark.spec.yaml_files import find_file, read_yaml, shipped
from families.spec import Family, UserError, quoted

if TYPE_CHECKING:
    TableName: TypeAlias = str
else:
    TableName = Literal[plugins.names("reporting/tables")]


class Teachers(Record):
    """Which teachers a study is for: of these families (None: of all), with native components or
    without any, or with the one named, of several sizes. A family that a request names is taken as
    it is."""

    families: tuple[str, ...] | None = None
    native: bool | str | None = None
    several_sizes: bool = False

    def chosen(self, names: Iterable[str], spec: Callable[[str], Family]) -> list[str]:
        """The families among `names` that a study is for; `spec` gives a family's file."""
        found = []
        for name in names:
            native = [component.name for component in spec(name).native]
            fits = self.families is None or name in self.families
            fits &= self.native is None or (
                self.native in native if isinstance(self.native, str) else bool(native) == self.native
            )
            if fits and (not self.several_sizes or len(spec(name).sizes) > 1):
                found.append(name)
        return found


Expected = Literal["above", "below", "not-above", "not-below", "same"]
Group = Literal["teacher", "family", "size"]


class Test(Record):
    """Part of a claim: differences between arms and the sign that is claimed of them.

    Attributes:
        of: differences, as in `matched-copy - matched-none - standard-copy + standard-none`: arms
            with signs between them. A `*` in an arm stands for each value that the teacher has, the
            same one throughout a difference.
        expect: the side of 0 that is claimed of each difference, or denied; `same`: one sign for
            the whole group, whichever. None: nothing is claimed.
        per: the group of `same`: all differences of a teacher, of a family at all its sizes, or of
            all teachers of a size.
        families: restricts the claim to their teachers; None: all that have results.
        failing: a difference; restricts the claim to teachers that have it below 0, for whom a
            transfer fails.
        metric: the protocol's measure, or top-1 on each shifted set, in percentage points; or the
            KL of maps from the teacher's in nats, mean over blocks.
    """

    __test__: ClassVar[bool] = False  # or pytest takes it for one of its own

    of: tuple[str, ...] = Field(min_length=1)
    expect: Expected | None = None
    per: Group = "teacher"
    families: tuple[str, ...] | None = None
    failing: str | None = None
    metric: Literal["score", "shifted", "kl"] = "score"

    @model_validator(mode="after")
    def _differences(self) -> Test:
        try:
            given = (*self.of, *([] if self.failing is None else [self.failing]))
            for arm in (arm for difference in given for arm in signed_terms(difference)):
                Arm.parse(star_filled(arm))
        except UserError as error:
            raise ValueError(str(error)) from None
        return self


def signed_terms(difference: str) -> dict[str, float]:
    """Arms with weight 1 or -1 of a difference as `arm - arm + arm`. Raises UserError."""
    first, *rest = difference.split() or [""]
    signs, arms = rest[::2], [first, *rest[1::2]]
    if len(signs) != len(arms) - 1 or not signs or not set(signs) <= {"+", "-"} or len(set(arms)) < len(arms):
        raise UserError(
            f"{quoted(difference)} is no difference, such as 'standard-copy - standard-none', of arms that are not the same"
        )
    return dict(zip(arms, [1.0, *(1.0 if sign == "+" else -1.0 for sign in signs)], strict=True))


class Claim(Record):
    """What somebody says of what a study measures.

    Attributes:
        description: the claim in one sentence, without figures: those stand in
            results/published.yaml.
        by: who says so; None: a question of this suite's own.
        rows: the numbers of the experiments among those of both papers (docs/claims.md); published
            figures have them too.
        needs: what a protocol has to offer for it to be judged there, a list or one word:
            `pretrained`, teachers with a pre-training of their own; `unsaturated`, a task that
            students do not solve in the end.
        tests: what it says of measured differences; none where nothing is told of them.
    """

    description: str
    by: str | None = None
    rows: tuple[Annotated[int, NUMBER, Field(ge=1, le=1000)], ...] = ()
    needs: tuple[Need, ...] = ()
    tests: tuple[Test, ...] = ()

    @field_validator("needs", mode="before")
    @classmethod
    def _one_word(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given


class Study(Record):
    """Which arms are trained for which teachers, and what is asked of them.

    A `*` in an arm's variant stands for each value that the teacher has (benchmark.plan.arms_of).
    `choose` names the variant whose best value the report chooses on val, of the baseline too, to
    compare both by their best. `tables` are printed besides the usual ones, if there is something
    in them. `ways` sorts families in two ways, each into named groups, for a table of one by the
    other. `asks` is what the study tests, `claims` what is said of that, and `limits` tells by the
    name of a protocol what that can and cannot say about it.
    """

    title: str
    arms: tuple[str, ...] = Field(min_length=1)
    teachers: Teachers = Teachers()
    choose: Literal["weight", "lr"] | None = None
    tables: tuple[TableName, ...] = ()
    ways: dict[str, dict[str, tuple[str, ...]]] = {}
    asks: str = ""
    claims: tuple[Claim, ...] = ()
    limits: dict[str, str] = {}

    @field_validator("arms")
    @classmethod
    def _arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for arm in arms:
                Arm.parse(star_filled(arm))
        except UserError as error:
            raise ValueError(str(error)) from None
        if len(set(arms)) < len(arms):
            raise ValueError("an arm is listed twice")
        return arms

    @field_validator("ways")
    @classmethod
    def _ways(cls, ways: dict[str, dict[str, tuple[str, ...]]]) -> dict[str, dict[str, tuple[str, ...]]]:
        if ways and len(ways) != 2:
            raise ValueError(f"families are sorted in two ways, not {len(ways)}")
        for way, groups in ways.items():
            members = [family for group in groups.values() for family in group]
            if len(set(members)) < len(members):
                raise ValueError(f"{way}: a family is listed twice")
        return ways


def load_study(word: str) -> tuple[str, Study]:
    """(name, study) by name or YAML path. Raises UnknownName or UserError, one line each."""
    path = find_file("study", word, shipped("studies"))
    where = str(path) if path.stem != word else f"study {word}"
    if path.stem == "claims":
        raise UserError(f"{where}: the reports call their page of claims so; give this file another name")
    study = validated(Study, read_yaml(path), where)
    named = [("claims", family) for claim in study.claims for test in claim.tests for family in test.families or ()]
    named += [("ways", family) for groups in study.ways.values() for group in groups.values() for family in group]
    for key, family in named:
        try:
            families.spec(family)
        except UserError as error:
            raise UserError(f"{where}: {key}: {error}") from None
    return path.stem, study


def load_studies(words: str) -> dict[str, Study]:
    """Studies by name, of several names or YAML paths with commas between them, each once. Raises
    UserError, one line."""
    found: dict[str, Study] = {}
    for word in dict.fromkeys(word.strip() for word in words.split(",")):
        name, study = load_study(word)
        if name in found:
            raise UserError(f"--study {words}: two studies are called {name}")
        found[name] = study
    return found
