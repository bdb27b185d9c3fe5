"""A recipe, read, changed and written: every value, and every message with its line and place."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from gantool.errors import RecipeError
from gantool.models import KINDS
from gantool.recipe import load as recipes
from gantool.recipe.blocks import Choice, Data, Optimizer, Recipe
from gantool.recipe.load import find_recipe, load, parse_changes, shipped
from gantool.recipe.schema import plain
from gantool.recipe.strict_yaml import parse
from gantool.training.engine import change, open_recipe

TEXT = """\
model:
  name: mlp
  latent_dim: 8
  generator: [16]
  discriminator: [16]
data: {source: digits, size: 8}
loss: non_saturating
train:
  epochs: 2
"""
ONE_PLAYER = "model: cnn\ndata: {source: digits, size: 16}\ntrain:\n  epochs: 2\n"
TABLE = "model: {name: dense, output: softmax}\ndata: {source: income}\ntrain:\n  epochs: 2\n"
TUNE = """\
tune:
  space:
    train.optimizer.lr: {low: 1e-5, high: 1e-2, log: true}
    model.latent_dim: [4, 8]
"""
FDS = "fd, fd_rand, fd_texture, fd_pretext or fd_judge"


def read(text=TEXT, *changes) -> Recipe:
    return recipes.parse(text, "r.yaml", KINDS, parse_changes(list(changes)))


def refusal(text=TEXT, *changes) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read(text, *changes)
    return str(caught.value).splitlines()


def test_a_recipe_is_read_with_its_defaults():
    recipe = read()
    model = {"name": "mlp", "latent_dim": 8, "generator": [16], "generator_activation": "relu", "discriminator": [16]}
    assert (recipe.name, plain(recipe.model), recipe.tune) == ("r", {**model, "dropout": 0.0}, None)
    weights = {"gradient_penalty": 0.0, "r1": 0.0, "r2": 0.0}
    assert plain(recipe.loss) == {"name": "non_saturating", **weights, "augment": None}
    assert (recipe.data.height, recipe.data.width, recipe.data.classes) == (8, 8, None)


def test_each_player_has_the_settings_of_the_optimizer_except_its_own():
    train = read(TEXT, "train.optimizer.lr=1e-3", "train.discriminator.lr=5e-4", "train.generator.betas=[0,0.9]").train
    assert train.optimizer_of("generator") == Optimizer(lr=1e-3, betas=(0.0, 0.9))
    assert train.optimizer_of("discriminator") == Optimizer(lr=5e-4, betas=(0.5, 0.999))
    assert train.optimizer_of("another") == Optimizer(lr=1e-3, betas=(0.5, 0.999))
    sgd = read(TEXT, "train.optimizer={name: sgd, momentum: 0.9}", "train.ema=0.99").train
    assert sgd.optimizer_of("generator") == Optimizer(name="sgd", momentum=0.9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs", "epochz", "9: train.epochz: unknown key 'epochz'; did you mean 'epochs'?"),
        ("  epochs", "  optimizer: {lrn: 1}\n  epochs", "9: train.optimizer.lrn: unknown key 'lrn'; did you mean"),
        ("train:", "a-b: 5\ntrain:", "8: a-b: unknown key 'a-b'; known: data, loss, model, name, train, tune"),
        ("train:", "out: ../../etc\ntrain:", "8: out: unknown key 'out'; known: data, loss, model, name, train, tune"),
        ("train:", "5: 5\ntrain:", "8: 5: unknown key '5'; known: data, loss, model, name, train, tune"),
        ("name: mlp", "name: ../x", "2: model.name: unknown model '../x'; known: "),
        ("name: mlp", "name: base", "2: model.name: unknown model 'base'; "),
        ("saturating", "saturatin", "7: loss.name: unknown loss 'non_saturatin'; did you mean 'non_saturating'?"),
        ("non_saturating", "5", "7: loss: expected a name or a block of keys, got 5"),
        ("non_saturating", "", "1: missing key 'loss'"),
        ("non_saturating", "{r1: 5}", "7: loss: missing key 'name'"),
        ("non_saturating", "{name: hinge, r1: -1}", "7: loss.r1: expected at least 0.0, got -1"),
        ("non_saturating", "{name: hinge, x: 1}", "7: loss.x: unknown key 'x'; known: augment, gradient_penalty, name"),
        ("latent_dim: 8", "data: 8", "3: model.data: unknown key 'data'; known: "),
        ("latent_dim: 8", "generator_activation: a", "3: model.generator_activation: expected one of 'relu' or 'leaky"),
        ("source: digits", 'source: ""', '6: data.source: expected text that is not empty, got ""'),
        ("model:", "name: ../x\nmodel:", "1: name: expected text that matches ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$, got"),
        ("model:", "tune: {space: {}}\nmodel:", "1: tune.space: expected at least 1 values, got {}"),
        ("model:", TUNE + "  finish: a\nmodel:", "5: tune.finish: expected one of 'full' or a whole number, got \"a\""),
        ("model:", TUNE + "  confirm: {top: 0}\nmodel:", "5: tune.confirm.top: expected at least 1, got 0"),
        ("model:", TUNE.replace("high", "hihg") + "model:", "3: tune.space.train.optimizer.lr.hihg: unknown key 'hi"),
        ("model:", TUNE.replace("4, 8", "") + "model:", "4: tune.space.model.latent_dim: expected at least 1 values"),
        ("model:", TUNE + "  metric: fid\nmodel:", "5: tune.metric: expected one of 'fd', 'fd_rand', 'fd_texture', "),
        (TEXT, "", " a recipe is a block of keys (model, data, loss, train), not None"),
    ],
)
def test_a_wrong_recipe_is_refused_with_line_and_place(old, new, message):
    assert any(line.startswith(f"r.yaml:{message}") for line in refusal(TEXT.replace(old, new)))


@pytest.mark.parametrize("value", ["no", "010", "1:30", "2024-08-05", "0x10"])
def test_what_yaml_would_turn_into_a_number_is_reported_as_it_was_written(value):
    wrong = TEXT.replace("epochs: 2", f"epochs: {value}")
    assert refusal(wrong) == [f'r.yaml:9: train.epochs: expected a whole number, got "{value}"']
    assert read(TEXT.replace("source: digits", f"source: {value}")).data.source == value


def test_all_problems_are_reported_at_once_each_with_its_line():
    text = """\
model: {name: mlp, latent_dim: -1}
data: {source: digits, size: 0}
loss: {name: hinge, r1: x}
train:
  epochs: 1e9
  optimizer:
    lr: .nan
    betas: [0.5, 1.0]
  generator: {lr: .inf}
"""
    assert sorted(refusal(text)) == [
        "r.yaml:1: model.latent_dim: expected at least 1, got -1",
        "r.yaml:2: data.size: expected at least 1 or a list, got 0",
        'r.yaml:3: loss.r1: expected a number, got "x"',
        "r.yaml:5: train.epochs: expected a whole number, got 1000000000.0",
        "r.yaml:7: train.optimizer.lr: expected a finite number, got NaN",
        "r.yaml:8: train.optimizer.betas.1: expected less than 1.0, got 1.0",
        "r.yaml:9: train.generator.lr: expected a finite number, got Infinity",
    ]
    assert refusal("name: x\n") == [f"r.yaml:1: missing key {key!r}" for key in ("model", "data", "train")]


@pytest.mark.parametrize(
    ("changes", "get", "value"),
    [
        (["train.epochs=5", " train.epochs = 6"], lambda r: r.train.epochs, 6),
        (["train.optimizer.lr=3e-4"], lambda r: r.train.optimizer.lr, 3e-4),
        (["train.optimizer.betas.0=0.1"], lambda r: r.train.optimizer.betas, (0.1, 0.999)),
        (["train.optimizer.betas.1=0.3", "train.optimizer.betas=[0, 0]"], lambda r: r.train.optimizer.betas, (0, 0.3)),
        (["model.generator.0=32"], lambda r: r.model.generator, [32]),
        (["model=cgan"], lambda r: plain(r.model), {"name": "cgan", "latent_dim": 100}),
        (["loss.r1=5"], lambda r: (r.loss.name, r.loss.r1), ("non_saturating", 5.0)),
        (["loss=hinge", "loss.r1=5"], lambda r: (r.loss.name, r.loss.r1), ("hinge", 5.0)),
        (["data.size=[6, 9]", "data.size.0=7"], lambda r: (r.data.height, r.data.width), (7, 9)),
        (['data.classes=["3", "7"]'], lambda r: r.data.classes, ["3", "7"]),
        (["data.source=a=b"], lambda r: r.data.source, "a=b"),
        (["tune.space.model.latent_dim=[4, 8]"], lambda r: r.tune.space, {"model.latent_dim": [4, 8]}),
    ],
)
def test_a_change_replaces_the_value_of_the_file(changes, get, value):
    assert get(read(TEXT, *changes)) == value


def test_ends_conditions_and_choices_of_a_searched_key_are_set_under_its_dotted_name():
    changes = [
        "tune.space.train.optimizer.lr.low=1e-4",
        "tune.space.train.optimizer.lr.when={model.latent_dim: [4, 8], loss.name: hinge}",
        "tune.space.model.latent_dim.choice=[8, 16]",
        "tune.space.loss.name.choice=[hinge, minimax]",
    ]
    space = read(TEXT + TUNE.replace("[4, 8]", "{choice: [4, 8], when: {loss.name: hinge}}"), *changes).tune.space
    rate = space["train.optimizer.lr"]
    assert (rate.low, rate.high, rate.when) == (1e-4, 1e-2, {"model.latent_dim": [4, 8], "loss.name": "hinge"})
    assert space["model.latent_dim"] == Choice(choice=[8, 16], when={"loss.name": "hinge"})
    assert space["loss.name"] == Choice(choice=["hinge", "minimax"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("foo", "--set foo: expected key=value, such as train.epochs=5"),
        ("=5", "--set =5: expected key=value, such as train.epochs=5"),
        ("train.epochs=no", '--set train.epochs: expected a whole number, got "no"'),
        ("train.epoch=5", "--set train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("train=5", "--set train: expected a block of keys, got 5"),
        ("train.epochs.x=5", "--set train.epochs.x: train.epochs holds no keys"),
        ("train.optimizer.betas.2=0.1", "--set train.optimizer.betas.2: no item '2' in a list of 2"),
        ("train.optimizer.betas.x=0.1", '--set train.optimizer.betas.x: expected a list, got {"x": 0.1}'),
        ("model.generator.x=1", "--set model.generator.x: no item 'x' in a list of 1"),
        ("model.generator.\u00b2=1", "--set model.generator.\u00b2: no item '\u00b2' in a list of 1"),
        ("data.size.0=9", "--set data.size.0: data.size holds no keys"),
        ("loss=hing", "--set loss: unknown loss 'hing'; did you mean 'hinge'?"),
        ("data.classes=[3]", '--set data.classes: expected text, got 3; in quotes it is text: "3"'),
        ("a=!!python/object:x y", "--set a:1: a tag (tag:yaml.org,2002:python/object:x) is not used in recipes"),
        ("tune.space.low=5", "--set tune.space.low: expected a block of keys or a list, got 5"),
        ("tune.space.train.epochs.when=3", "--set tune.space.train.epochs.when: expected a block of keys, got 3"),
    ],
)
def test_a_wrong_change_is_refused_by_its_key(change, message):
    assert any(line.startswith(message) for line in refusal(TEXT, change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE_PLAYER + "loss: hinge\n", "5: loss: cnn has one player and no adversary; leave the block out"),
        (TEXT + TUNE + "  metric: error\n", f"14: tune.metric: mlp cannot be measured by error; use {FDS}"),
        (ONE_PLAYER + TUNE + "  metric: fd\n", "9: tune.metric: cnn cannot be measured by fd; use error"),
        (TABLE.replace("income", "income, size: 8"), "2: data.size: dense learns from a table, which has no pixels; "),
        (TEXT.replace(", size: 8", ""), "6: data: missing key 'size'"),
        (TEXT + "  optimizer: {momentum: 0.9}\n", "10: train.optimizer.momentum: is sgd's; adam has betas"),
        (TEXT + "  optimizer: {name: sgd, betas: [0, 0]}\n", "10: train.optimizer.betas: are adam's; sgd has momentum"),
        (ONE_PLAYER + "  ema: 0.99\n", "5: train.ema: averages a generator's weights, and cnn has none; leave it out"),
        (TEXT + "  optimizer: {name: sgd}\n  generator: {betas: [0, 0]}\n", "11: train.generator.betas: are adam's; "),
        (ONE_PLAYER + "  generator: {lr: 0.1}\n", "5: train.generator: cnn has one player; set train.optimizer"),
    ],
)
def test_blocks_that_do_not_fit_each_other_are_refused(text, message):
    (line,) = refusal(text)
    assert line.startswith(f"r.yaml:{message}")


def test_changes_do_not_touch_the_recipe_that_they_change():
    recipe = read()
    assert change(recipe, {"train.epochs": 9, "model.generator.0": 5}).train.epochs == 9
    assert (recipe.train.epochs, recipe.model.generator) == (2, [16])


@pytest.mark.parametrize(
    "folder", ["in/photos #2", "cats: best", "[raw] cats", "!new", "2024", "null", " a", "*x", "~"]
)
def test_a_key_that_takes_text_takes_the_rest_of_the_argument(folder):
    assert parse_changes([f"data.source={folder}"]) == {"data.source": folder}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.source='a b'", "a b"),
        ('name="2024"', "2024"),
        ("data.folder=null", None),
        ("data.folder='null'", "null"),
        ("model.name=gan", "gan"),
        ("train.epochs=5", 5),
        ("data.classes=['#1', \"#2\"]", ["#1", "#2"]),
    ],
)
def test_other_values_are_read_as_in_a_recipe(text, value):
    assert list(parse_changes([text]).values()) == [value]


@pytest.mark.parametrize("text", ["train.epochs=5 #fast", "train.epochs=#5", "data.classes=[a] #b"])
def test_a_comment_in_a_change_is_refused(text):
    rest = text[text.index("#") :]
    with pytest.raises(RecipeError) as caught:
        parse_changes([text])
    assert str(caught.value) == (
        f"--set {text.partition('=')[0]}: {rest!r} is a comment in YAML; leave it out, or put the whole value in quotes"
    )


@pytest.mark.parametrize("text", ["data.source=a\udcffb", "train.epochs='\ud800'"])
def test_text_that_is_no_unicode_is_refused(text):
    with pytest.raises(RecipeError) as caught:
        parse_changes([text])
    key, letter = text.partition("=")[0], ascii(text[text.index("=") + 2])
    assert str(caught.value) == f"--set {key}: {letter} is no character; rename what it names, or correct it"


@pytest.mark.parametrize("text", ['name: "\\ud800"', 'data: {"a\\udfff": 1}', 'data:\n  source: ["\\udc80"]'])
def test_a_recipe_with_half_a_character_is_refused_with_its_line(text):
    with pytest.raises(RecipeError, match=rf"^r.yaml:{text.count(chr(10)) + 1}: '\\ud[89cf]..' is no character; "):
        recipes.parse(text, "r.yaml", KINDS)


def test_a_dumped_recipe_is_the_same_recipe_with_every_default():
    recipe = read(TEXT + TUNE, 'data.source="2e-4"', 'data.classes=["1e3", "010", "no", "개"]', "data.size=[4,5]")
    text = recipes.dump(recipe)
    assert recipes.parse(text, "other.yaml", KINDS) == recipe
    assert parse(text, "other.yaml")[0]["train"]["keep_every"] == 0


@pytest.mark.parametrize(
    ("file", "name"), [("dcgan.yaml", "dcgan"), ("my recipe (2).yaml", "my_recipe_2"), ("달걀.yaml", "recipe")]
)
def test_without_a_name_a_recipe_is_called_as_its_file(inside, file, name):
    (inside / file).write_text(TEXT, encoding="utf-8")
    assert open_recipe(file).name == name


def test_a_path_a_run_and_a_shipped_name_are_found(inside):
    (inside / "run").mkdir()
    for file in ("mine.yaml", "run/recipe.yaml"):
        (inside / file).write_text(TEXT, encoding="utf-8")
    found = [find_recipe(name) for name in ("mine.yaml", "run", "gan14")]
    assert found == [Path("mine.yaml"), Path("run/recipe.yaml"), shipped()["gan14"]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.yaml", "nowhere.yaml: no such recipe file"),
        ("a/gan14.yaml", "a/gan14.yaml: no such recipe file; the shipped recipe is called 'gan14'"),
        ("gan41", "unknown recipe 'gan41'; did you mean 'gan14'?"),
        ("zzz", "unknown recipe 'zzz'; known: cdcgan28, cdcgan64, cgan_egg, "),
        ("x" * 3000, "unknown recipe 'xxx"),
    ],
)
def test_a_recipe_that_does_not_exist_is_reported(inside, name, message):
    with pytest.raises(RecipeError) as caught:
        find_recipe(name)
    assert str(caught.value).startswith(message)


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="an unreadable file, as Linux has it")
def test_an_unreadable_recipe_is_reported():
    with pytest.raises(RecipeError, match=r"^/proc/self/mem: cannot be read \(Input/output error\)$"):
        load("/proc/self/mem", {}, KINDS)


def test_the_time_to_check_a_recipe_grows_with_its_length_and_not_with_the_square():
    def seconds(count):
        text = TEXT + "tune:\n  space:\n    model.latent_dim: [" + "1, " * count + "1]\n"
        start = time.process_time()
        assert len(read(text).tune.space["model.latent_dim"]) == count + 1
        return time.process_time() - start

    assert seconds(30_000) < 40 * seconds(3_000)


def test_an_image_has_sides_and_a_table_has_none():
    assert Data(source="a", size=7).width == 7
    with pytest.raises(ValueError, match=r"^data.size: a table has no pixels$"):
        read(TABLE).data.height  # noqa: B018


@pytest.mark.parametrize(("text", "metric"), [(TEXT, "fd"), (ONE_PLAYER, "error"), (TABLE, "error")])
def test_the_metric_is_fd_and_of_a_game_of_one_player_the_share_of_wrong_answers(text, metric):
    assert read(text).metric == metric
    assert read(text, "tune.space={train.batch_size: [4, 8]}").tune.metric == metric


@pytest.mark.parametrize(
    ("after", "shares"), [(0, (1, 0.5, 0)), (4, (1, 1, 0.125)), (6, (1, 1, 0.25)), ("null", (1, 1, 1))]
)
def test_the_learning_rate_is_whole_and_then_falls_evenly_to_nothing_at_the_end(after, shares):
    train = read(TEXT, "train.epochs=8", f"train.decay_after={after}").train
    assert tuple(train.rate(epochs) for epochs in (0, 4, 7.5 if after else 8)) == shares
