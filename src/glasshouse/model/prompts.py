"""How does an example become a model's inputs, and which of its tokens are the answer?

1. The chat template where there is one, else the plain prompt with the image placeholder in front.
2. The processor expands the placeholders and tokenises; padding is on the left, so the last column is the last token
   of every row.
3. An answer's tokens are those that appending the answer adds to the prompt's text; they follow the processed prompt,
   where generation would have put them.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from PIL.Image import new as new_image
from torch import Tensor
from transformers import PreTrainedConfig

from glasshouse.data.examples import Example
from glasshouse.data.images import StoredImage
from glasshouse.data.strangers import strangers_files, within
from glasshouse.model.anatomy import Anatomy
from glasshouse.model.configs import start_token
from glasshouse.model.image_bounds import bounded
from glasshouse.model.image_bounds import within as within_bound
from glasshouse.model.layout import ImageInputs, PromptLayout
from glasshouse.model.padding import added, beside, joined, with_answers
from glasshouse.values.errors import BadInput

BLANK = 64
"""Edge of the image with which placeholders are tried."""
TEMPLATE_SECONDS = 10.0
"""A chat template that runs longer never ends."""


@dataclass(frozen=True)
class Encoded:
    """A batch as the model takes it, and where its answers and images are."""

    inputs: dict[str, Tensor]
    layout: PromptLayout

    def along_answers(self, logits: Float[Tensor, "rows tokens vocabulary"]) -> list[tuple[Tensor, Tensor]]:
        """By row: the ids of its answer, and the logits that predict each of them and what follows the last."""
        ids, length = self.inputs["input_ids"], logits.shape[1]
        return [
            (ids[row, ids.shape[1] - count :], logits[row, length - count - 1 :])
            for row, count in enumerate(self.layout.answers.tolist())
        ]


class Prompts:
    """How one model takes examples: its processor, and where its answers begin."""

    def __init__(
        self, processor: Any, anatomy: Anatomy, config: PreTrainedConfig, max_pixels: int | None = None
    ) -> None:
        self.anatomy, self.config = anatomy, config
        processor, self.bound = bounded(processor, max_pixels)
        """Pixels of an image at most, where the processor has no setting for it."""
        self.original = self.processor = processor
        self.tokenizer: Any = getattr(processor, "tokenizer", processor if hasattr(processor, "pad_token") else None)
        if self.tokenizer is not None and self.tokenizer.pad_token is None and self.tokenizer.eos_token is not None:
            # Padding is masked, so any token will do; the caller's own processor stays as it is.
            self.processor = copy.deepcopy(processor)
            self.tokenizer = getattr(self.processor, "tokenizer", self.processor)
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def settings(self) -> dict[str, str]:
        """Everything that turns an example into inputs, as text, by what it is."""
        tokenizer = getattr(self.tokenizer, "backend_tokenizer", None)
        images = getattr(self.original, "image_processor", self.original if self.tokenizer is None else None)
        with strangers_files("the processor", "its rules cannot be read", "compare its files with the original"):
            rules = json.loads(tokenizer.to_str()) if tokenizer is not None else {}
            # A tokenizer also stores how the last batch was padded and cut, which is none of its rules.
            rules = {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}
            return {
                "processor class": type(self.original).__name__,
                "chat template": str(getattr(self.original, "chat_template", None)),
                "tokenizer": json.dumps(rules),
                "image processor": images.to_json_string() if images is not None else "",
            } | ({} if self.bound is None else {"largest image": f"{self.bound} pixels"})

    def digest(self) -> str:
        """SHA-256 of everything that turns an example into inputs."""
        return hashlib.sha256("\0".join(self.settings().values()).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return len(self.tokenizer)

    @property
    def pad_token(self) -> int | None:
        return None if self.tokenizer is None else self.tokenizer.pad_token_id

    def encode(self, examples: Sequence[Example], *, answers: bool) -> Encoded:
        """Inputs for a batch, on the CPU."""
        if self.processor is None:
            raise BadInput("this model was opened without a processor; pass processor= to open it for examples")
        if not examples:
            raise BadInput("there are no examples in this batch")
        images = [[within_bound(image.open(), self.bound) for image in example.images] for example in examples]
        self._check(examples, images)
        span = f"examples {examples[0].id}-{examples[-1].id}"
        with strangers_files(span, "the processor refuses them", "change them, or compare its files with the original"):
            tensors, tails = self._tensors(examples, images, answers=answers)
        sizes = {image.size for row in images for image in row}
        blank_images = any(images) and not all(images) and bool(self._per_row)
        layout = PromptLayout(
            answers=torch.tensor([len(tail) for tail in tails]),
            images=tuple(map(len, images)),
            alike=len(sizes) <= 1 and len({len(row) for row in images if row}) <= 1 and not blank_images,
            examples=tuple(example.id for example in examples),
            image_inputs=ImageInputs.of(tensors),
            tokenizer=self.tokenizer,
        )
        longest = getattr(self.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if "input_ids" in tensors and isinstance(longest, int) and tensors["input_ids"].shape[1] > longest:
            raise BadInput(
                f"example {examples[0].id}: {tensors['input_ids'].shape[1]} tokens, the model was made for {longest}"
            )
        if any(tails):
            tensors = with_answers(tensors, tails, self.pad_token or 0, self.anatomy.answer_token_type)
        if getattr(self.config, "is_encoder_decoder", False):
            tensors["decoder_input_ids"] = torch.full((len(examples), 1), start_token(self.config))
        return Encoded(tensors, layout)

    def _tensors(
        self, examples: Sequence[Example], images: list[list[Image]], *, answers: bool
    ) -> tuple[dict[str, Tensor], list[list[int]]]:
        """What the processor gives the model for the prompts, and by example the ids of its answer."""
        tails: list[list[int]] = [[] for _ in examples]
        if self.tokenizer is None:
            flat = [image for row in images for image in row]
            return _tensors_of(self.processor(images=flat, return_tensors="pt")), tails
        texts = [self._prompt(example) for example in examples]
        return self._process(texts, images), self._tails(examples, texts) if answers else tails

    def _check(self, examples: Sequence[Example], images: Sequence[Sequence[Image]]) -> None:
        """Refuse examples with images for a model that does not see, and without for a model that only sees."""
        for example, row in zip(examples, images, strict=True):
            if (
                row
                and self.anatomy.vision is None
                and self.anatomy.projector is None
                and not hasattr(self.processor, "image_processor")
            ):
                raise BadInput(f"example {example.id}: has an image, but {self.anatomy.family} reads only text")
            if len(row) > 1 and not self._several_images:
                family = self.anatomy.family
                raise BadInput(f"example {example.id}: has {len(row)} images, and {family} reads one; keep one of them")
            if not row and self.tokenizer is None:
                raise BadInput(f"example {example.id}: has no image, and {self.anatomy.family} reads nothing else")

    @property
    def _several_images(self) -> bool:
        """Whether a prompt can hold several images: each has a placeholder, which query tokens do without."""
        queries = hasattr(self.processor, "num_query_tokens")
        return bool(getattr(self.processor, "image_token", None)) and not queries

    @cached_property
    def _placeholder(self) -> str:
        """What stands for an image in a plain prompt; nothing where the processor puts the image in front itself and
        refuses a second placeholder, which is tried."""
        token = str(getattr(self.processor, "image_token", None) or "")
        if token and not hasattr(self.processor, "num_query_tokens"):
            try:
                self._process([f"{token}a"], [[new_image("RGB", (BLANK, BLANK))]])
            except Exception:  # noqa: BLE001 - whatever it raises, the prompt itself is tried without a placeholder
                return ""
            return token
        return ""

    @property
    def form(self) -> str:
        """How prompts are written, where the user should know it."""
        if self.tokenizer is None or getattr(self.processor, "chat_template", None) is not None:
            return ""
        return (
            "no chat template, so prompts are plain text (images, then a line each for system text and earlier turns, "
            "then the prompt); if the model has one, save it as chat_template.jinja in its folder"
        )

    def _prompt(self, example: Example) -> str:
        """The text before the answer, placeholders not yet expanded."""
        if getattr(self.processor, "chat_template", None) is None:
            token = self._placeholder if example.images else ""
            users = example.user_turns
            if example.image_places:
                users = ["".join(token if piece is None else piece for piece in example.pieces(turn))
                         for turn in range(len(users))]  # fmt: skip
            missing = len(example.images) - example.prompt.count(token) if token and not example.image_places else 0
            system = f"{example.system}\n" if example.system else ""
            turns = "".join(f"{user}\n{reply}\n" for user, (_, reply) in zip(users, example.history, strict=False))
            return token * max(0, missing) + system + turns + users[-1]
        return self._chat(example)

    def _chat(self, example: Example, answer: str | None = None) -> str:
        """The conversation as the template writes it, up to the answer or with it."""
        part = _parts if hasattr(self.processor, "tokenizer") else lambda *pieces: "".join(filter(None, pieces))
        messages = [{"role": "system", "content": part(example.system)}] if example.system else []
        replies = [reply for _, reply in example.history] + ([] if answer is None else [answer])
        for turn, reply in zip_longest(range(len(example.user_turns)), replies):
            messages.append({"role": "user", "content": part(*example.pieces(turn))})
            messages += [] if reply is None else [{"role": "assistant", "content": part(reply)}]
        problem, fix = "the model's chat template refuses it", "change the example, or mend the template"
        with strangers_files(f"example {example.id}", problem, fix):
            # A template is a program of the model's author: it may also never end.
            return within(
                TEMPLATE_SECONDS,
                lambda: self.processor.apply_chat_template(
                    messages, add_generation_prompt=answer is None, tokenize=False
                ),
            )

    def _with_answer(self, example: Example, text: str) -> str:
        """The prompt's text with the answer behind it, spaced as the template would space it."""
        answer = example.answer or ""
        if getattr(self.processor, "chat_template", None) is None:
            return text + (answer if not answer or answer[0].isspace() else f" {answer}")
        whole = self._chat(example, answer)
        end = whole.find(answer, len(text))
        return whole[: end + len(answer)] if whole.startswith(text) and end >= 0 else text + answer

    def answer_tokens(self, example: Example) -> list[int]:
        """The ids of the example's answer, as they would follow its prompt."""
        return self._tails([example], [self._prompt(example)])[0]

    def _tails(self, examples: Sequence[Example], texts: Sequence[str]) -> list[list[int]]:
        """By example, the ids of its answer behind its prompt's text."""
        answered = [self._with_answer(example, text) if example.answer else text
                    for example, text in zip(examples, texts, strict=True)]  # fmt: skip
        before, after = (
            self.tokenizer(strings, add_special_tokens=False)["input_ids"] for strings in (list(texts), answered)
        )
        return [added(prompt, whole) for prompt, whole in zip(before, after, strict=True)]

    def _process(self, texts: list[str], images: list[list[Image]]) -> dict[str, Tensor]:
        """The processor's tensors. No processor takes prompts with and without images at once."""
        shown = [bool(row) for row in images]
        if self.processor is self.tokenizer or all(shown) or not any(shown):
            return self._processed(texts, images)
        by_kind = [[row for row in zip(texts, images, strict=True) if bool(row[1]) == kind] for kind in (True, False)]
        seen, unseen = (self._processed([text for text, _ in rows], [own for _, own in rows]) for rows in by_kind)
        token = self.anatomy.image_token
        if token is None or not bool((seen["input_ids"] == token).any(1).all()) or beside(seen):
            raise BadInput(
                f"{self.anatomy.family} shows its image beside the prompt and not in it, so a batch cannot hold "
                "examples with and without images; show them one by one (--batch-size 1, batch_size=1)"
            )
        return joined(seen, unseen, shown, self.pad_token or 0, self._per_row)

    @cached_property
    def _per_row(self) -> frozenset[str]:
        """Inputs of images with an entry for each prompt, and not for each image: two prompts of two images tell."""
        if not self._several_images:
            return frozenset()
        blank = new_image("RGB", (BLANK, BLANK))
        text = self._prompt(Example("a", (StoredImage.png(blank),) * 2))
        inputs = self._processed([text, text], [[blank, blank], [blank, blank]])
        return frozenset(name for name, value in inputs.items() if len(value) == 2)

    def _processed(self, texts: list[str], images: list[list[Image]]) -> dict[str, Tensor]:
        arguments: dict[str, Any] = {"text": texts, "return_tensors": "pt", "padding": True, "padding_side": "left"}
        if self.processor is not self.tokenizer and any(images):
            arguments["images"] = images
        if getattr(self.processor, "chat_template", None) is not None:
            arguments["add_special_tokens"] = False  # the template has written them
        if "mm_token_type_ids" in getattr(self.processor, "model_input_names", ()):
            arguments["return_mm_token_type_ids"] = True  # some processors state them and leave them out
        try:
            inputs = self.processor(**arguments)
        except ValueError as problem:
            # Most processors take a list of images for each prompt, some only one image for each.
            if "ested images" not in str(problem) or any(len(row) != 1 for row in images):
                raise
            inputs = self.processor(**arguments | {"images": [row[0] for row in images]})
        return _tensors_of(inputs)


def _tensors_of(inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the model takes. With the labels that some processors add, it would also compute a loss."""
    return {name: value for name, value in inputs.items() if isinstance(value, Tensor) and name != "labels"}


def _parts(*pieces: str | None) -> list[dict[str, str]]:
    """A turn as templates take it: an image for each None, and always a text."""
    pieces = pieces if any(pieces) else (*pieces, "")
    return [{"type": "image"} if piece is None else {"type": "text", "text": piece} for piece in pieces]
