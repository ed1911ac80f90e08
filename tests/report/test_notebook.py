"""What a value shows of itself: one short line at the prompt, thumbnails in a notebook, its page in `help`."""

import pydoc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import glasshouse as gh
from glasshouse.data.images import StoredImage
from glasshouse.data.pairs import Pairs
from glasshouse.engine.runs import Run
from glasshouse.model.subject import Subject
from glasshouse.report.html import MOST_EXAMPLES
from hostile import TEXTS, Page
from sample_findings import TextFinding


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_what_stands_at_the_prompt_is_short(seedling: Subject, finished: Run, picture: Path):
    example = gh.Example("what colour is it ?", (picture.read_bytes(), picture.read_bytes()), "red")  # pyright: ignore[reportArgumentType]
    examples = gh.Examples([example] * 3, "here")
    assert repr(example) == "Example('what colour is it ?', 2 images, answer='red')"
    assert repr(gh.Example("x" * 500)) == f"Example('{'x' * 60}…')"
    assert repr(examples) == "Examples(3 from here)"
    assert repr(seedling) == "Subject(organism:seedling: language, vision, projector)"
    assert repr(TextFinding("All is well.", ())) == "TextFinding(concern: All is well.)"
    assert repr(finished) == f"Run(lens, described, '{finished.folder}')"
    assert repr(finished.finding).startswith("LensFinding(described: Inconclusive about images")
    assert len(repr(finished.finding)) < 200


def test_a_finding_may_have_a_line_of_its_own():
    class Own(TextFinding):
        def __repr__(self) -> str:
            return "own"

    assert repr(Own("", ())) == "own"


def test_examples_show_thumbnails(picture: Path):
    example = gh.Example("what colour is it ?", (picture,), "red")  # pyright: ignore[reportArgumentType]
    html = example._repr_html_()
    assert html.count("data:image/png;base64,") == 1
    assert " ".join(Page(html).text).split() == ["what", "colour", "is", "it", "?", "red"]
    many = gh.Examples([example] * (MOST_EXAMPLES + 1))._repr_html_()
    assert many.count("<img") == MOST_EXAMPLES
    assert f"the first {MOST_EXAMPLES} of {MOST_EXAMPLES + 1}" in many
    clean = gh.Examples([replace(example, id="clean")])
    triggered = gh.Examples(
        [replace(example, id="triggered", prompt="what colour is it now ?", tags={"twin": "clean"})]
    )
    assert Pairs(clean, triggered)._repr_html_().count("<img") == 2
    assert "the first" not in clean._repr_html_()


def test_an_image_that_cannot_be_read_costs_its_thumbnail_alone(tmp_path: Path, picture: Path):
    broken = StoredImage(data=b"\x89PNG\r\n\x1a\nnothing")
    gone = StoredImage(path=tmp_path / "gone.png")
    html = gh.Example("x", (broken, gone, StoredImage(path=picture)))._repr_html_()
    assert (html.count("image cannot be read"), html.count("<img")) == (2, 1)


def test_no_text_of_an_example_comes_alive():
    for text in TEXTS.values():
        page = Page(gh.Examples([gh.Example(text, answer=text)])._repr_html_())
        assert page.tags <= {"div", "figure", "figcaption", "strong", "p"}
        assert not [name for _, attributes in page.elements for name, _ in attributes if name.startswith("on")]


def test_help_of_a_method_is_its_page():
    told = pydoc.plain(pydoc.render_doc(gh.methods.lens))
    for part in (
        "lens(subject: glasshouse.model.subject.Subject, examples: glasshouse.data.examples.Examples",
        "What does each layer already predict, and do image tokens predict what the image shows?",
        "examples: The examples to show the model: a .jsonl",
        "How to read it: ",
        "When it misleads: ",
    ):
        assert part in told
    assert all(len(method.__doc__ or "") > 400 for method in (gh.methods.detect, gh.methods.purify, gh.methods.changed))


@pytest.mark.slow  # a type checker reads the whole package
def test_a_type_checker_knows_every_method(tmp_path: Path):
    lines = ["import glasshouse as gh", *(f"reveal_type(gh.methods.{name})" for name in dir(gh.methods))]
    (tmp_path / "asked.py").write_text("\n".join([*lines, "gh.methods.lens(1)"]))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "asked.py"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    for name in dir(gh.methods):
        (line,) = (line for line in told.splitlines() if f'"gh.methods.{name}"' in line)
        assert "Options = Options()) -> " in line
        assert "Any" not in line
    assert told.count("1 error, 0 warnings") == 1  # the argument that is missing
