"""Write the generated parts of docs/: `PYTHONPATH=. python tests/tools/make_docs.py`.

A page in docs/ is written by hand, except for the text between the marks `<!-- generated: NAME -->` and `<!-- end -->`.
This text comes from signatures, docstrings and the texts of the diagnoses. tests/test_docs.py checks that it is up to
date.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval
from gantool import models
from gantool.data.sources.catalog import SOURCES
from gantool.inference.scoring import METRICS, PARTS
from gantool.models import augment, losses
from gantool.models.blocks import Convolutions
from gantool.recipe import blocks
from gantool.recipe.schema import Block
from gantool.training import diagnoses

DOCS = Path(__file__).parents[2] / "docs"
MARKS = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
SECTIONS = (  # where the keys of a block stand in a recipe
    ("data", blocks.Data),
    ("train", blocks.Train),
    ("train.optimizer", blocks.Optimizer),
    ("train.generator and train.discriminator", blocks.PlayerOptimizer),
    ("tune", blocks.Tune),
    ("tune.confirm", blocks.Confirm),
    ("A range in tune.space", blocks.Range),
    ("A choice in tune.space", blocks.Choice),
)
WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", dict: "mapping"}


def kind(annotation: Any) -> str:
    """Write a type in the words of a recipe: `integer (1 to 4,096) or null`."""
    if annotation == Convolutions:
        return "list of [channels, kernel, stride, padding]"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [f" ({limits(each)})" for each in inner[1:] if isinstance(each, Interval)]
        return kind(inner[0]) + "".join(bounds)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(kind(each) for each in inner)
    if origin is list:
        return f"list of {kind(inner[0])}".replace("list of integer", "list of integers")
    if origin is tuple:
        return f"[{', '.join(kind(each) for each in inner)}]"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return "block of keys"
    return WORDS[annotation]


def limits(interval: Interval) -> str:
    """Write the bounds of a number."""
    low = f"{interval.ge:,} or more" if interval.ge is not None else f"more than {interval.gt:,}"
    if interval.lt is not None:
        return f"{low}, less than {interval.lt:,}"
    return f"{interval.ge:,} to {interval.le:,}" if interval.ge is not None else f"{low}, at most {interval.le:,}"


def default(value: Any) -> str:
    """Write the default of a key."""
    if value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, Block):
        return "its defaults"
    return f"`{json.dumps(value)}`"


def described(target: Any) -> dict[str, str]:
    """Return the section `Args:` of a docstring, by name."""
    section = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(target) or "", re.DOTALL | re.MULTILINE)
    found: dict[str, str] = {}
    for line in section[1].splitlines() if section else ():
        if named := re.match(r"    (\w+): (.*)", line):
            name, found[named[1]] = named[1], named[2]
        else:
            found[name] += f" {line.strip()}"
    return found


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table of Markdown."""
    lines = [list(heads), ["---"] * len(list(heads)), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def linked(text: str) -> str:
    """Make the papers of a text links."""
    return re.sub(r"(?<![\[/])arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def in_code(text: str) -> str:
    """Set the names of metrics, diagnoses, keys and commands in a plain text as code."""
    names = [r"gantool [a-z]+(?: d-\w+)?", r"fd(?:_\w+)?", *(code for code in diagnoses.CODES if "-" in code)]
    names.append(r"(?:train|tune|loss|model|data)(?:\.\w+)+")
    return re.sub(rf"(?<![\w`.-])(?:{'|'.join(names)})(?![\w`-])", r"`\g<0>`", text)


def sentence(text: str) -> str:
    """Make a description a sentence, with a link to each paper."""
    text = " ".join(text.split()).removesuffix(".") + "."
    return linked(text[:1].upper() + text[1:])


def keys_of_block(block: type[Block]) -> str:
    """Write the keys of a block."""
    hints, told = get_type_hints(block, include_extras=True), described(block)
    rows = []
    for name, field in block.model_fields.items():
        value = inspect.Parameter.empty if field.is_required() else field.get_default()
        rows.append((f"`{name}`", kind(hints[name]), default(value), sentence(told[name])))
    return table(("key", "type", "default", "meaning"), rows)


def keys_of(target: Callable[..., Any], told: dict[str, str]) -> str:
    """Write the keyword-only parameters of a constructor, which are the keys of its block in a recipe."""
    rows = [
        (f"`{each.name}`", kind(each.annotation), default(each.default), sentence(told[each.name]))
        for each in inspect.signature(target, eval_str=True).parameters.values()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return table(("key", "type", "default", "meaning"), rows)


def paragraphs(target: Any) -> list[str]:
    """Return the paragraphs of a docstring up to its sections, each on one line."""
    text = re.split(r"\n\n(?:Args|Raises|Returns|Shape):\n", inspect.getdoc(target) or "")[0]
    return [linked(" ".join(part.split())) for part in text.split("\n\n")]


def recipe_keys() -> str:
    """Write the keys of every block but `model` and `loss`."""
    parts = []
    for title, block in SECTIONS:
        shown = re.sub(r"[a-z_]+(\.[a-z_]+)+|^(data|train|tune)$", r"`\g<0>`", title)
        parts.append(f"### {shown}\n\n{' '.join(paragraphs(block))}\n\n{keys_of_block(block)}")
    return "\n\n".join(parts)


def model_keys() -> str:
    """Write the keys of every model."""
    parts = []
    for name in models.names():
        model = models.find_model(name)
        about = [*paragraphs(sys.modules[model.__module__])[:1], *paragraphs(model)]
        told = "\n\n".join(about)
        parts.append(f"### `{name}`\n\n{told}\n\n{keys_of(model, described(model))}")
    return "\n\n".join(parts)


def loss_keys() -> str:
    """Write the losses, their keys and the augmentations."""
    names = table(
        ("name", "loss"), ((f"`{name}`", paragraphs(loss.function)[0]) for name, loss in losses.LOSSES.items())
    )
    keys = keys_of(losses.find_loss("hinge"), described(losses.Adversarial))
    changes = [(f"`{name}`", paragraphs(change)[0]) for name, change in augment._KINDS.items()]
    return f"{names}\n\n{keys}\n\n{table(('augmentation', 'what it does'), changes)}"


def diagnosis_texts() -> str:
    """Write every diagnosis as `gantool explain` does."""
    codes = table(
        ("code", "meaning"), ((f"[`{code}`](#{code})", sentence(text)) for code, text in diagnoses.SUMMARIES.items())
    )
    parts = [codes]
    for code in diagnoses.CODES:
        _, *rest = diagnoses.explain(code).split("\n\n")
        lines = [in_code(linked(" ".join(part.split()))) for part in rest]
        first = re.compile(r"^(\w+): (.(?!_))?")  # the label and, unless it is a name such as r_v, a letter
        lines = [first.sub(lambda at: f"**{at[1]}.** {(at[2] or '').upper()}", line) for line in lines]
        parts.append("\n\n".join([f"## {code}", sentence(diagnoses.SUMMARIES[code]), *lines]))
    return "\n\n".join(parts)


def metric_names() -> str:
    """Write every metric that `gantool score` knows."""
    return table(
        ("name", "meaning"), ((f"`{name}`", sentence(in_code(text))) for name, text in (METRICS | PARTS).items())
    )


def sources() -> str:
    """Write every dataset that has a name."""
    return table(("name", "contents"), ((f"`{name}`", sentence(source.summary)) for name, source in SOURCES.items()))


GENERATED: dict[str, Callable[[], str]] = {
    "recipe-keys": recipe_keys,
    "model-keys": model_keys,
    "loss-keys": loss_keys,
    "diagnoses": diagnosis_texts,
    "metrics": metric_names,
    "sources": sources,
}


def generated(page: str) -> str:
    """Return the text of a page with its generated parts made anew."""
    return MARKS.sub(lambda found: f"{found[1]}\n{GENERATED[found[2]]()}\n\n{found[3]}", page)


def main() -> None:
    """Write the pages that change."""
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        made = generated(text)
        if made != text:
            path.write_text(made, encoding="utf-8", newline="\n")
            print(path)


if __name__ == "__main__":
    main()
