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


def read(text=TEXT, *changes) -> Recipe:
    return recipes.parse(text, "r.yaml", KINDS, parse_changes(list(changes)))


def refusal(text=TEXT, *changes) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read(text, *changes)
    return str(caught.value).splitlines()


def test_a_recipe_is_read_with_its_defaults():
    recipe = read()

    assert recipe.name == "r"
    assert plain(recipe.model) == {
        "name": "mlp",
        "latent_dim": 8,
        "generator": [16],
        "generator_activation": "relu",
        "discriminator": [16],
        "dropout": 0.0,
    }
    assert plain(recipe.loss) == {
        "name": "non_saturating",
        "gradient_penalty": 0.0,
        "r1": 0.0,
        "r2": 0.0,
        "augment": None,
    }
    assert (recipe.data.height, recipe.data.width, recipe.data.classes) == (8, 8, None)
    assert recipe.train.optimizer == Optimizer(lr=2e-4, betas=(0.5, 0.999))
    assert recipe.tune is None


def test_a_learning_rate_in_scientific_notation_is_a_number():
    assert read(TEXT + "  optimizer: {lr: 3e-4}\n").train.optimizer.lr == 3e-4
    assert read(TEXT, "train.optimizer.lr=3e-4").train.optimizer.lr == 3e-4


def test_each_player_has_the_optimizer_settings_of_both_but_for_its_own():
    train = read(TEXT, "train.optimizer.lr=1e-3", "train.discriminator.lr=5e-4", "train.generator.betas=[0,0.9]").train

    assert train.optimizer_of("generator") == Optimizer(lr=1e-3, betas=(0.0, 0.9))
    assert train.optimizer_of("discriminator") == Optimizer(lr=5e-4, betas=(0.5, 0.999))
    assert train.optimizer_of("another") == Optimizer(lr=1e-3, betas=(0.5, 0.999))


def test_a_size_may_have_two_sides():
    data = read(TEXT, "data.size=[6, 9]").data

    assert (data.height, data.width) == (6, 9)
    assert Data(source="a", size=7).width == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("epochs", "epochz"), "r.yaml:9: train.epochz: unknown key 'epochz'; did you mean 'epochs'?"),
        (
            TEXT + "  optimizer: {learning_rte: 1}\n",
            "train.optimizer.learning_rte: unknown key 'learning_rte'; known: betas, lr",
        ),
        (TEXT + "trian: 5\n", "r.yaml:10: trian: unknown key 'trian'; did you mean 'train'?"),
        (TEXT + "a-b: 5\n", "r.yaml:10: a-b: unknown key 'a-b'; known: data, loss, model, name, train, tune"),
        (TEXT + "5: 5\n", "r.yaml:10: 5: unknown key '5'; known: data, loss, model, name, train, tune"),
        (TEXT.replace("name: mlp", "name: mpl"), "r.yaml:2: model.name: unknown model 'mpl'; did you mean 'mlp'?"),
        (TEXT.replace("name: mlp", "name: ../x"), "r.yaml:2: model.name: unknown model '../x'; known: "),
        (TEXT.replace("name: mlp", "name: base"), "r.yaml:2: model.name: unknown model 'base'; "),
        (
            TEXT.replace("non_saturating", "non_saturatin"),
            "r.yaml:7: loss.name: unknown loss 'non_saturatin'; did you mean 'non_saturating'?",
        ),
        (TEXT.replace("non_saturating", "5"), "r.yaml:7: loss: expected a name or a block of keys, got 5"),
        (TEXT.replace("non_saturating", "[a]"), "r.yaml:7: loss: expected a name or a block of keys, got ['a']"),
        (TEXT.replace("non_saturating", ""), "r.yaml:1: missing key 'loss'"),
        (TEXT.replace("non_saturating", "{r1: 5}"), "r.yaml:7: loss: missing key 'name'"),
        (TEXT.replace("non_saturating", "{name: hinge, r1: -1}"), "r.yaml:7: loss.r1: expected at least 0.0, got -1"),
        (
            TEXT.replace("non_saturating", "{name: hinge, slope: 1}"),
            "r.yaml:7: loss.slope: unknown key 'slope'; known: augment, gradient_penalty, name, r1, r2",
        ),
        (
            TEXT.replace("latent_dim: 8", "latent: 8"),
            "r.yaml:3: model.latent: unknown key 'latent'; did you mean 'latent_dim'?",
        ),
        (TEXT.replace("latent_dim: 8", "data: 8"), "r.yaml:3: model.data: unknown key 'data'; known: "),
        (
            TEXT.replace("latent_dim: 8", "generator_activation: selu"),
            "expected one of 'relu' or 'leaky_relu', got \"selu\"",
        ),
        (
            TEXT.replace("source: digits", 'source: ""'),
            'r.yaml:6: data.source: expected text that is not empty, got ""',
        ),
        (TEXT.replace("size: 8", "size: 8, channels: 2"), "r.yaml:6: data.channels: expected one of 1 or 3, got 2"),
        (TEXT.replace("size: 8", "size: 8, classes: []"), "r.yaml:6: data.classes: expected at least 1 values, got []"),
        (
            TEXT.replace("size: 8", "size: 8, classes: [a, 5]"),
            'r.yaml:6: data.classes.1: expected text, got 5; in quotes it is text: "5"',
        ),
        (
            "name: ../x\n" + TEXT,
            'r.yaml:1: name: expected text that matches ^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$, got "../x"',
        ),
        (TEXT + "tune:\n  space: {}\n", "r.yaml:11: tune.space: expected at least 1 values, got {}"),
        (TEXT + TUNE + "  trials: 0\n", "r.yaml:14: tune.trials: expected at least 1, got 0"),
        (
            TEXT + TUNE + "  finish: half\n",
            "r.yaml:14: tune.finish: expected one of 'full' or a whole number, got \"half\"",
        ),
        (
            TEXT + TUNE + "  confirm: {seeds: 4, epochs: 0}\n",
            "r.yaml:14: tune.confirm.epochs: expected at least 1, got 0",
        ),
        (
            TEXT + TUNE.replace("high", "hihg"),
            "r.yaml:12: tune.space.train.optimizer.lr.hihg: unknown key 'hihg'; did you mean 'high'?",
        ),
        (
            TEXT + TUNE.replace("[4, 8]", "[]"),
            "r.yaml:13: tune.space.model.latent_dim: expected at least 1 values, got []",
        ),
        (
            TEXT + TUNE + "  metric: fid\n",
            "r.yaml:14: tune.metric: expected one of 'fd', 'fd_rand', 'fd_texture', 'fd_pretext', 'fd_judge' or "
            "'error', got \"fid\"",
        ),
        ("", "r.yaml: a recipe is a block of keys (model, data, loss, train), not None"),
        ("- a\n- b\n", "r.yaml: a recipe is a block of keys (model, data, loss, train), not ['a', 'b']"),
        ("hello", "r.yaml: a recipe is a block of keys (model, data, loss, train), not 'hello'"),
        (TEXT + "loss: hinge\n", "r.yaml:10: key 'loss' is given twice, first in line 7; keep one"),
    ],
)
def test_a_wrong_recipe_is_refused_with_line_and_place(text, message):
    assert any(message in line for line in refusal(text))


@pytest.mark.parametrize("value", ["no", "010", "1:30", "2024-08-05", "0x10", "yes"])
def test_what_yaml_would_turn_into_a_number_is_called_by_what_was_written(value):
    wrong = TEXT.replace("epochs: 2", f"epochs: {value}")

    assert refusal(wrong) == [f'r.yaml:9: train.epochs: expected a whole number, got "{value}"']
    assert read(TEXT.replace("source: digits", f"source: {value}")).data.source == value


def test_all_problems_are_told_at_once_each_with_its_line():
    text = """\
model: {name: mlp, latent_dim: -1}
data: {source: digits, size: 0}
loss: {name: hinge, r1: x}
train:
  epochs: 1e9
  batch_size: 0
  seed: -1
  optimizer:
    lr: .nan
    betas: [0.5, 1.0]
  generator: {lr: .inf}
  discriminator:
    lr: -1
"""
    assert sorted(refusal(text), key=lambda line: int(line.split(":")[1])) == [
        "r.yaml:1: model.latent_dim: expected at least 1, got -1",
        "r.yaml:2: data.size: expected at least 1 or a list, got 0",
        'r.yaml:3: loss.r1: expected a number, got "x"',
        "r.yaml:5: train.epochs: expected a whole number, got 1000000000.0",
        "r.yaml:6: train.batch_size: expected at least 1, got 0",
        "r.yaml:7: train.seed: expected at least 0, got -1",
        "r.yaml:9: train.optimizer.lr: expected a finite number, got NaN",
        "r.yaml:10: train.optimizer.betas.1: expected less than 1.0, got 1.0",
        "r.yaml:11: train.generator.lr: expected a finite number, got Infinity",
        "r.yaml:13: train.discriminator.lr: expected more than 0.0, got -1",
    ]


def test_every_missing_block_is_told():
    assert refusal("name: x\n") == [f"r.yaml:1: missing key {key!r}" for key in ("model", "data", "train")]


@pytest.mark.parametrize("epochs", ["1000001", "0", "1e9"])
def test_epochs_have_a_range(epochs):
    assert refusal(TEXT, f"train.epochs={epochs}")[0].startswith("--set train.epochs: expected ")


@pytest.mark.parametrize(
    ("changes", "get", "value"),
    [
        (["train.epochs=5"], lambda r: r.train.epochs, 5),
        ([" train.epochs = 5"], lambda r: r.train.epochs, 5),
        (["train.epochs=5", "train.epochs=6"], lambda r: r.train.epochs, 6),
        (["train.optimizer.betas.0=0.1"], lambda r: r.train.optimizer.betas, (0.1, 0.999)),
        (
            ["train.optimizer.betas=[0.1,0.2]", "train.optimizer.betas.1=0.3"],
            lambda r: r.train.optimizer.betas,
            (0.1, 0.3),
        ),
        (
            ["train.optimizer.betas.1=0.3", "train.optimizer.betas=[0.1,0.2]"],
            lambda r: r.train.optimizer.betas,
            (0.1, 0.3),
        ),
        (["model.generator.0=32"], lambda r: r.model.generator, [32]),
        (["model.generator=[1, 2]"], lambda r: r.model.generator, [1, 2]),
        (["model=cgan"], lambda r: plain(r.model), {"name": "cgan", "latent_dim": 100}),
        (["loss=hinge"], lambda r: r.loss.name, "hinge"),
        (["loss.r1=5"], lambda r: (r.loss.name, r.loss.r1), ("non_saturating", 5.0)),
        (["loss=hinge", "loss.r1=5"], lambda r: (r.loss.name, r.loss.r1), ("hinge", 5.0)),
        (["data.size=[6, 9]"], lambda r: r.data.size, (6, 9)),
        (["data.size=[6, 9]", "data.size.0=7"], lambda r: r.data.size, (7, 9)),
        (['data.classes=["3", "7"]'], lambda r: r.data.classes, ["3", "7"]),
        (["data.classes=null"], lambda r: r.data.classes, None),
        (["data.classes="], lambda r: r.data.classes, None),
        (["data.source=a=b"], lambda r: r.data.source, "a=b"),
        (["name=other"], lambda r: r.name, "other"),
        (["tune.space={model.latent_dim: [4, 8]}"], lambda r: r.tune.space, {"model.latent_dim": [4, 8]}),
        (["tune.space.model.latent_dim=[4, 8]"], lambda r: r.tune.space, {"model.latent_dim": [4, 8]}),
        (
            ["tune.space.train.optimizer.betas.0=[0.0, 0.5]"],
            lambda r: r.tune.space,
            {"train.optimizer.betas.0": [0.0, 0.5]},
        ),
    ],
)
def test_a_change_takes_the_place_of_what_the_file_says(changes, get, value):
    assert get(read(TEXT, *changes)) == value


def test_a_search_confirms_and_finishes_unless_it_is_told_not_to():
    usual = read(TEXT + TUNE).tune
    assert (usual.confirm.top, usual.confirm.seeds, usual.confirm.epochs, usual.finish) == (3, 8, None, "full")
    bare = read(TEXT + TUNE, "tune.confirm=null", "tune.finish=null").tune
    assert (bare.confirm, bare.finish) == (None, None)


def test_an_end_of_a_searched_range_can_be_changed():
    recipe = read(TEXT + TUNE, "tune.space.train.optimizer.lr.low=1e-4", "tune.trials=3")

    assert recipe.tune.space["train.optimizer.lr"].low == 1e-4
    assert recipe.tune.space["train.optimizer.lr"].high == 1e-2
    assert recipe.tune.trials == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("foo", "--set foo: expected key=value, such as train.epochs=5"),
        ("=5", "--set =5: expected key=value, such as train.epochs=5"),
        ("train.epochs=no", '--set train.epochs: expected a whole number, got "no"'),
        ("train.epoch=5", "--set train.epoch: unknown key 'epoch'; did you mean 'epochs'?"),
        ("epochs=5", "--set epochs: unknown key 'epochs'; known: data, loss, model, name, train, tune"),
        ("train=5", "--set train: expected a block of keys, got 5"),
        ("train=", "--set train: expected a block of keys, got null"),
        ("train.epochs.x=5", "--set train.epochs.x: train.epochs holds no keys"),
        ("train.optimizer.betas.2=0.1", "--set train.optimizer.betas.2: no item '2' in a list of 2"),
        ("train.optimizer.betas.0.x=0.1", "--set train.optimizer.betas.0.x: train.optimizer.betas.0 holds no keys"),
        ("train.optimizer.betas.x=0.1", '--set train.optimizer.betas.x: expected a list, got {"x": 0.1}'),
        ("model.generator.x=1", "--set model.generator.x: no item 'x' in a list of 1"),
        ("model.generator.\u00b2=1", "--set model.generator.\u00b2: no item '\u00b2' in a list of 1"),
        ("data.size.0=9", "--set data.size.0: data.size holds no keys"),
        ("loss.name=hing", "--set loss.name: unknown loss 'hing'; did you mean 'hinge'?"),
        ("loss=hing", "--set loss: unknown loss 'hing'; did you mean 'hinge'?"),
        ("data.classes=[3]", '--set data.classes: expected text, got 3; in quotes it is text: "3"'),
        ("tune.trials=5", "--set tune.trials: missing key 'space'"),
        (
            "a=!!python/object:x y",
            "--set a:1: a tag (tag:yaml.org,2002:python/object:x) is not used in recipes; write a plain value",
        ),
        (
            "train.epochs=[1",
            "--set train.epochs:1: expected ',' or ']', but got '<stream end>'; indent with spaces and close every ",
        ),
        ("train..epochs=4", "--set train..epochs: unknown key ''; known: batch_size, checkpoint_every, "),
        ("tune.space.low=5", "--set tune.space.low: expected a block of keys or a list, got 5"),
    ],
)
def test_a_wrong_change_is_refused_by_its_key(change, message):
    (line,) = refusal(TEXT, change)

    assert line.startswith(message)


def test_changes_do_not_touch_the_recipe_that_they_change():
    recipe = read()

    assert change(recipe, {"train.epochs": 9, "model.generator.0": 5}).train.epochs == 9
    assert (recipe.train.epochs, recipe.model.generator) == (2, [16])


def test_a_dumped_recipe_is_the_same_recipe():
    recipe = read(TEXT + TUNE, 'data.source="2e-4"', 'data.classes=["1e3", "010", "no", "개"]', "data.size=[4,5]")
    text = recipes.dump(recipe)

    assert recipes.parse(text, "other.yaml", KINDS) == recipe
    assert parse(text, "other.yaml")[0]["train"]["keep_every"] == 0  # every default is spelled out


@pytest.mark.parametrize(
    ("file", "name"), [("dcgan.yaml", "dcgan"), ("my recipe (2).yaml", "my_recipe_2"), ("달걀.yaml", "recipe")]
)
def test_without_a_name_a_recipe_is_called_as_its_file(inside, file, name):
    (inside / file).write_text(TEXT, encoding="utf-8")

    assert open_recipe(file).name == name


def test_a_path_a_run_and_a_shipped_name_are_found(inside):
    (inside / "mine.yaml").write_text(TEXT, encoding="utf-8")
    (inside / "run").mkdir()
    (inside / "run" / "recipe.yaml").write_text(TEXT, encoding="utf-8")

    assert find_recipe("mine.yaml") == (inside / "mine.yaml").relative_to(inside)
    assert find_recipe("run").name == "recipe.yaml"
    assert find_recipe("gan14") == shipped()["gan14"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.yaml", "nowhere.yaml: no such recipe file"),
        ("a/gan14.yaml", "a/gan14.yaml: no such recipe file; the shipped recipe is called 'gan14'"),
        ("recipes/dcgan28.yml", "recipes/dcgan28.yml: no such recipe file; the shipped recipe is called 'dcgan28'"),
        ("gan41", "unknown recipe 'gan41'; did you mean 'gan14'?"),
        ("zzz", "unknown recipe 'zzz'; known: cdcgan28, cdcgan64, cgan_egg, "),
        ("x" * 3000, "unknown recipe 'xxx"),
    ],
)
def test_a_recipe_that_is_not_there_is_told(inside, name, message):
    with pytest.raises(RecipeError) as caught:
        find_recipe(name)

    assert str(caught.value).startswith(message)


@pytest.mark.skipif(not Path("/proc/self/mem").is_file(), reason="a file that nobody can read, as Linux has it")
def test_an_unreadable_recipe_is_told():
    with pytest.raises(RecipeError, match=r"^/proc/self/mem: cannot be read \(Input/output error\)$"):
        load("/proc/self/mem", {}, KINDS)


def test_the_time_to_check_a_recipe_grows_with_its_length_and_not_with_the_square():
    def seconds(count):
        text = TEXT + "tune:\n  space:\n    model.latent_dim: [" + "1, " * count + "1]\n"
        start = time.process_time()
        assert len(read(text).tune.space["model.latent_dim"]) == count + 1
        return time.process_time() - start

    assert seconds(30_000) < 40 * seconds(3_000)


def test_conditions_and_choices_of_a_searched_key_are_set_under_its_dotted_name():
    condition = "tune.space.train.optimizer.lr.when={model.latent_dim: [4, 8], loss.name: hinge}"
    text = TEXT + TUNE.replace("[4, 8]", "{choice: [4, 8], when: {loss.name: hinge}}")
    more = ["tune.space.loss.name.choice=[hinge, minimax]", "tune.space.loss.name.when={model.generator.0: 16}"]
    space = read(text, condition, "tune.space.model.latent_dim.choice=[8, 16]", *more).tune.space

    rate = space["train.optimizer.lr"]
    assert (rate.low, rate.log, rate.when) == (1e-5, True, {"model.latent_dim": [4, 8], "loss.name": "hinge"})
    assert space["model.latent_dim"] == Choice(choice=[8, 16], when={"loss.name": "hinge"})
    assert space["loss.name"] == Choice(choice=["hinge", "minimax"], when={"model.generator.0": 16})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tune.space.train.optimizer.lr.when=3", "--set tune.space.train.optimizer.lr.when: expected a block of keys"),
        ("tune.space.train.optimizer.lr.when={loss.name: []}", "--set tune.space.train.optimizer.lr.when: expected "),
        ("tune.space.model.latent_dim.when={a: 1}", "--set tune.space.model.latent_dim.when: no item 'when' in a list"),
        ("tune.space.loss.name={choice: []}", "--set tune.space.loss.name: "),
    ],
)
def test_a_wrong_condition_or_choice_is_refused_by_its_key(change, message):
    assert any(line.startswith(message) for line in refusal(TEXT + TUNE, change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ONE_PLAYER + "loss: hinge\n",
            "r.yaml:5: loss: cnn has one player and no adversary; leave the block out",
        ),
        (
            TEXT + "tune: {metric: error, space: {model.latent_dim: [4, 8]}}\n",
            "r.yaml:10: tune.metric: mlp cannot be measured by error; use fd, fd_rand, fd_texture, fd_pretext or "
            "fd_judge",
        ),
        (
            ONE_PLAYER + "tune: {metric: fd_rand, space: {train.batch_size: [4, 8]}}\n",
            "r.yaml:5: tune.metric: cnn cannot be measured by fd_rand; use error",
        ),
        (
            TABLE.replace("income", "income, size: 8"),
            "r.yaml:2: data.size: dense learns from a table, which has no pixels; leave it out",
        ),
        (TEXT.replace(", size: 8", ""), "r.yaml:6: data: missing key 'size'"),
        (ONE_PLAYER.replace(", size: 16", ""), "r.yaml:2: data: missing key 'size'"),
        (
            TEXT + "  optimizer: {momentum: 0.9}\n",
            "r.yaml:10: train.optimizer.momentum: is sgd's; adam has betas",
        ),
        (
            TEXT + "  optimizer: {name: sgd, betas: [0.9, 0.999]}\n",
            "r.yaml:10: train.optimizer.betas: are adam's; sgd has momentum",
        ),
        (
            ONE_PLAYER + "  ema: 0.99\n",
            "r.yaml:5: train.ema: averages a generator's weights, and cnn has none; leave it out",
        ),
        (
            TEXT + "  optimizer: {name: sgd}\n  generator: {betas: [0.9, 0.999]}\n",
            "r.yaml:11: train.generator.betas: are adam's; sgd has momentum",
        ),
        (
            ONE_PLAYER + "  generator: {lr: 0.1}\n",
            "r.yaml:5: train.generator: cnn has one player; set train.optimizer",
        ),
        (TEXT + "  ema: 1\n", "r.yaml:10: train.ema: expected less than 1.0, got 1"),
        (TEXT + "  decay_after: -1\n", "r.yaml:10: train.decay_after: expected at least 0, got -1"),
    ],
)
def test_parts_that_do_not_go_with_each_other_are_refused(text, message):
    assert refusal(text) == [message]


def test_all_parts_that_do_not_go_with_each_other_are_told_at_once():
    changes = ["train.optimizer.momentum=0.9", "train.ema=0.9", "loss=hinge", "data.size="]

    assert refusal(ONE_PLAYER, *changes) == [
        "--set loss: cnn has one player and no adversary; leave the block out",
        "--set data.size: missing key 'size'",
        "--set train.optimizer.momentum: is sgd's; adam has betas",
    ]


def test_what_goes_with_each_other_is_taken():
    sgd = read(TEXT, "train.optimizer={name: sgd, momentum: 0.9}", "train.ema=0.99").train
    assert sgd.optimizer_of("generator") == Optimizer(name="sgd", momentum=0.9)
    assert sgd.ema == 0.99
    assert read(TABLE).data.size is None
    with pytest.raises(ValueError, match=r"^data.size: a table has no pixels$"):
        read(TABLE).data.height  # noqa: B018


@pytest.mark.parametrize(("text", "metric"), [(TEXT + TUNE, "fd"), (ONE_PLAYER, "error"), (TABLE, "error")])
def test_the_metric_is_fd_and_of_a_game_of_one_player_the_share_of_wrong_answers(text, metric):
    assert read(text).metric == metric
    assert read(text, "tune.space={train.batch_size: [4, 8]}").tune.metric == metric


@pytest.mark.parametrize("after", [0, 1, 4, 7])
def test_the_rate_is_whole_and_then_falls_evenly_to_nothing_at_the_end(after):
    train = read(TEXT, "train.epochs=8", f"train.decay_after={after}").train
    for quarter in range(33):
        epochs = quarter / 4
        assert train.rate(epochs) == pytest.approx(1 if epochs <= after else (8 - epochs) / (8 - after))
    assert (train.rate(after), train.rate(8), train.rate(9)) == (1, 0, 0)


@pytest.mark.parametrize("after", ["null", "8", "100"])
def test_a_rate_that_nothing_lowers_stays_whole(after):
    train = read(TEXT, "train.epochs=8", f"train.decay_after={after}").train
    assert {train.rate(epochs) for epochs in (0, 3.5, 7.99, 8)} == {1}
