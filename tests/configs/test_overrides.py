"""What a person types reaches the code as it was typed, wherever a key holds text or a path."""

from __future__ import annotations

import typing

import pytest

from configs import edge
from configs.build import hints, kind_of, known_keys
from configs.overrides import prepare
from configs.schema import data_verbs, pipeline, train

TYPED = [
    "köln",
    "a=b",
    "a,b",
    "a, b",
    "x (1)",
    "(x)",
    "[x",
    "東京/データ",
    "it's",
    'say "hi"',
    "a b",
    "007",
    "1e5",
    "true",
    "-x",
    "a:b",
    "#1",
    "x\\y",
    "{x",
]


def _is_text(kind: typing.Any) -> bool:
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    rest = [k for k in typing.get_args(kind) if k is not type(None)]
    return kind is str or (len(rest) == 1 and type(None) in typing.get_args(kind) and _is_text(rest[0]))


TEXTS = {
    key: schema
    for schema in (train.LaunchRun, pipeline.DataRun, train.GenerateRun, data_verbs.RemoveRun)
    for key in known_keys(schema)
    if _is_text(kind_of(schema, key))
}
DATES = {"cutoff", "date"}


def test_there_are_many_keys_of_text() -> None:
    assert len(TEXTS) > 30 and {"tokenizer.path", "run.name", "model.init_from", "cluster.prolog"} <= set(
        TEXTS
    )


@pytest.mark.parametrize("key", [k for k in TEXTS if k not in DATES])
def test_every_key_of_text_is_quoted_for_hydra(key: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    for text in TYPED:
        (prepared,) = prepare([f"{key}={text}"], TEXTS[key])
        parsed = parser.parse_override(prepared)
        assert str(parsed.value()).replace("\\\\", "\\") == text, prepared


@pytest.mark.parametrize("text", TYPED)
def test_paths_and_names_reach_the_code_as_typed(text: str) -> None:
    config = edge.load(
        "train",
        train.TrainRun,
        [f"data.path={text}", f"run.dir={text}", f"run.name={text}", f"model.name={text}"],
    )
    assert (config.data.path, config.run.dir, config.run.name, config.model.name) == (text,) * 4


def test_lists_and_mappings_hold_text_too() -> None:
    words = ["output=o", "input=i", "dedup.index=[~x,köln (1),'a,b',07]", "decontaminate.sets=a=b,c"]
    config = edge.load("data", pipeline.DataRun, words)
    assert config.dedup.index == ("~x", "köln (1)", "a,b", "07")
    assert config.decontaminate.sets == ("a=b,c",)
    words = [
        "output=o",
        "sources=[{name: köln, recipe: web, input: s3://b/a b=c.gz}, {name:b,recipe:text,input:'x,y'}]",
        "mixture.weights={köln:0.5,b:0.5}",
    ]
    config = edge.load("data", pipeline.DataRun, words)
    assert [(s.name, s.input) for s in config.sources] == [("köln", "s3://b/a b=c.gz"), ("b", "x,y")]
    assert config.mixture.weights == {"köln": 0.5, "b": 0.5}
    words = ["output=o", "input=i", "mixture.weights.köln=0.5"]
    assert edge.load("data", pipeline.DataRun, words).mixture.weights == {"köln": 0.5}


def test_null_is_no_value_and_quoted_it_is_a_word() -> None:
    words = ["output=o", "input=i"]
    assert edge.load("data", pipeline.DataRun, [*words, "url.cache=null"]).url.cache is None
    assert edge.load("data", pipeline.DataRun, [*words, "url.cache='null'"]).url.cache == "null"


def test_a_sweep_goes_over_texts_and_other_values() -> None:
    swept = prepare(
        ["data.path=köln,/x y", "train.steps=3,5", "run.dir=r/${train.steps}"], train.TrainRun, True
    )
    assert swept == ["++data.path='köln','/x y'", "++train.steps=3,5", "++run.dir='r/${train.steps}'"]
    with pytest.raises(edge.ConfigError, match=r"`train\.steps` must be an integer .* but it is '3,5'"):
        edge.load("train", train.TrainRun, ["data.path=d", "run.dir=r", "train.steps=3,5"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "optim.lr"),
        ("steps", "train.steps"),
        ("learning_rate", "optim.lr"),
        ("batch_size", "train.global_batch_size"),
        ("optim.learning_rate", "optim.lr"),
        ("trian.steps", "train.steps"),
        ("warmup", "schedule.warmup_steps"),
        ("nproc", "cluster.nproc"),
        ("model.layers", "model.n_layers"),
    ],
)
def test_the_nearest_key_is_named_with_its_group(typed: str, meant: str) -> None:
    with pytest.raises(edge.ConfigError) as error:
        edge.load("launch", train.LaunchRun, [f"{typed}=1"])
    assert str(error.value) == f"unknown key `{typed}`; did you mean `{meant}`?"


def test_a_key_like_no_other_gets_no_list_of_all() -> None:
    with pytest.raises(edge.ConfigError) as error:
        edge.load("launch", train.LaunchRun, ["zzzqqq=1"])
    assert str(error.value) == "unknown key `zzzqqq`; --help lists every key"


def test_an_unknown_accelerator_names_the_nearest_before_anything_is_derived() -> None:
    with pytest.raises(
        edge.ConfigError, match=r"`accelerator` must be one of .*'h100'.* did you mean `h100`\?"
    ):
        edge.load("plan", train.PlanRun, ["accelerator=h1000", "model.size=160m"])


def test_every_field_of_text_has_a_type_that_says_what_it_holds() -> None:
    assert hints(train.RunConfig)["dir"] is not str


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("recipe.filter.rules.gopher.short.min=7", {"min": 7.0}),
        ("recipe.filter.rules.gopher.short.languages=[en,de]", {"languages": ["en", "de"]}),
        ("recipe.filter.rules.gopher.short.by_language.de.max=9", {"by_language": {"de": {"max": 9.0}}}),
        ("recipe.filter.rules.gopher.short={min: 3, level: flag}", {"min": 3.0, "level": "flag"}),
    ],
)
def test_a_key_goes_through_names_with_dots(word: str, changed: dict[str, typing.Any]) -> None:
    before = edge.compose("data", ["output=o", "input=i"], pipeline.DataRun)["recipe"]["filter"]["rules"]
    after = edge.compose("data", ["output=o", "input=i", word], pipeline.DataRun)["recipe"]["filter"]["rules"]
    assert list(after) == list(before)
    assert after == before | {"gopher.short": before["gopher.short"] | changed}


def test_other_mappings_of_names_with_dots_too() -> None:
    def load(*words: str) -> pipeline.DataRun:
        return edge.load("data", pipeline.DataRun, ["output=o", "input=i", *words])

    assert load("mixture.weights.köln.de=0.5").mixture.weights == {"köln.de": 0.5}
    bounds = load("recipe.filter.bounds.de.gopher.short.min=4").recipe.filter.bounds  # type: ignore[union-attr]
    assert bounds["de"]["gopher.short"].min == 4  # type: ignore[union-attr]
    for word in ("recipe.filter.rules.gopher.short=null", "~recipe.filter.rules.gopher.short"):
        assert load(word).recipe.filter.rules["gopher.short"] is None  # type: ignore[union-attr]
    swept = prepare(["recipe.filter.rules.gopher.short.min=5,9"], pipeline.DataRun, True)
    assert swept == ["++recipe.filter.rules={gopher.short:{min:5}},{gopher.short:{min:9}}"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("recipe.filter.rules.gopher.short.mni=3", "did you mean `recipe.filter.rules.gopher.short.min`?"),
        ("recipe.filter.rules.gopher.shrt.min=3", "did you mean `gopher.short`?"),
        ("recipe.filter.rules={gopher.shrt:{min:3}}", "did you mean `gopher.short`?"),
        ("recipe.filter.rules.gopher.short.min=1,2", "must be a number or null, but it is '1,2'"),
    ],
)
def test_a_mistyped_name_or_key_in_a_mapping_names_the_nearest(word: str, says: str) -> None:
    with pytest.raises(edge.ConfigError) as error:
        edge.load("data", pipeline.DataRun, ["output=o", "input=i", word])
    assert str(error.value).endswith(says)


@pytest.mark.parametrize("value", ["[{name:a,recipe:text,input:x,y}]", "[{name:a", "[a]]", "{a:'b}"])
def test_brackets_that_do_not_match_are_one_sentence(value: str) -> None:
    with pytest.raises(edge.ConfigError, match=r"`sources=.*` cannot be read: .* needs quotes"):
        edge.load("data", pipeline.DataRun, ["output=o", f"sources={value}"])
