"""Is the anatomy true? Proved on the model itself, with one synthetic example, before anybody relies on it.

1. Reading: one site of every kind is recorded, and its shape is what the anatomy says.
2. Identity: masks of ones at all those sites leave the logits as they were, to the last bit.
3. Effect: the logits have a gradient at every one of those masks, so editing there changes what the model says. Where
   autograd does not pass, a real edit is tried instead.
4. Restoration: after an edit that changes the logits, leaving it restores them to the last bit, and no hook is left.
5. The projector is between: it runs after the last vision block that is read and before the first language block.
6. The projector matters only with an image: without one, zeroing its output changes nothing.

Eight forward passes and one backward, however deep the model; two of them without an image.
"""

import time
from contextlib import ExitStack

import torch
from torch import Tensor

from glasshouse.data.examples import Example, Examples
from glasshouse.data.images import StoredImage
from glasshouse.model.anatomy import Location
from glasshouse.model.certificate import Certificate, Check
from glasshouse.model.frozen import frozen
from glasshouse.model.subject import Subject
from glasshouse.model.taps import edited, record, tap_read
from glasshouse.numerics.randomness import seeded
from glasshouse.values.changes import Mask, Plan, Scale, Step, Zero
from glasshouse.values.errors import BadInput
from glasshouse.values.sites import KINDS, Part, Site


def prove(subject: Subject) -> Certificate:
    """Try everything, on one synthetic example."""
    began = time.perf_counter()
    checks: list[Check] = []
    locations = list(_one_of_each(subject))
    example = synthetic(subject)
    hooks = hook_count(subject)
    try:
        with frozen(subject.model):
            checks += _reading(subject, locations, example)
            checks += _editing(subject, locations, example)
            if subject.anatomy.projector is not None and subject.anatomy.language is not None:
                checks += _between(subject, example)
                checks += _only_with_image(subject)
    except (BadInput, RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as problem:
        line = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        checks.append(Check("a forward pass on a synthetic example", False, line))
    checks.append(Check("no hook is left behind", hook_count(subject) == hooks))
    return Certificate(tuple(checks), round(time.perf_counter() - began, 3))


def hook_count(subject: Subject) -> int:
    """Our forward hooks on all modules; transformers lays some of its own on first use."""
    hooks = (
        hook for m in subject.model.modules() for hook in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())
    )
    return sum(str(getattr(hook, "__module__", "")).startswith("glasshouse") for hook in hooks)


def _one_of_each(subject: Subject) -> list[Location]:
    """A location of every kind the anatomy claims: the middle layer, in vision the last one that is read."""
    chosen: list[Location] = []
    for part in subject.anatomy.parts:
        for kind in KINDS[part]:
            if kind == "pattern":
                continue  # the same module as attention; taps say so themselves where the registry is not used
            try:
                locations = subject.anatomy.locate(Site(part, kind))
            except BadInput:
                continue  # the anatomy does not claim it
            last = subject.anatomy.feature_layer if part == "vision" else None
            read = [
                location
                for location in locations
                if last is None or location.site.layers is None or location.site.layer <= last
            ]
            chosen.append(read[-1] if part == "vision" else read[len(read) // 2])
    return chosen


def synthetic(subject: Subject, image: bool = True) -> Example:
    """An example of the kind the model reads."""
    sees = subject.anatomy.vision is not None or subject.anatomy.projector is not None
    reads = subject.prompts.tokenizer is not None
    images = (StoredImage(data=_noise()),) if image and sees else ()
    return Example(prompt="What is in this image?" if reads else "", images=images, id="synthetic")


def _noise() -> bytes:
    """A small image of seeded noise."""
    import io

    from PIL import Image

    pixels = torch.randint(0, 256, (64, 64, 3), generator=seeded(0), dtype=torch.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _reading(subject: Subject, locations: list[Location], example: Example) -> list[Check]:
    """Each kind on its own, so that one that cannot be read does not hide the others."""
    checks: list[Check] = []
    try:
        taken = record(subject, [location.site for location in locations], Examples([example]))
        found = {location: tuple(taken[location.site].shape[1:]) for location in locations}
        finite = {location: bool(taken[location.site].isfinite().all()) for location in locations}
    except BadInput as problem:
        return [Check("reading all kinds of site", False, str(problem))]
    for location in locations:
        wanted = _shape(subject, location)
        passed = wanted is None or found[location] == wanted
        checks.append(
            Check(
                f"{location.site} has the shape the anatomy says", passed, f"found {found[location]}, expected {wanted}"
            )
        )
        if not finite[location]:
            checks.append(Check(f"{location.site} is finite", False, _not_finite(subject)))
    return checks


def _not_finite(subject: Subject) -> str:
    for name, parameter in subject.model.named_parameters():
        if not bool(parameter.isfinite().all()):
            return f"the weight {name} holds NaN or infinity"
    return "NaN or infinity, though all weights are finite"


def _shape(subject: Subject, location: Location) -> tuple[int, ...] | None:
    """What one token should look like; None where the anatomy does not say."""
    if location.units is not None and location.width is not None:
        return (location.units, location.width) if location.width != 1 else (location.units,)
    if location.site.part == "projector" or location.site.kind in ("logits", "features"):
        said = subject.anatomy.language
        ends = location.site == Site("projector", "output") and said is not None
        return (said.width,) if ends and said is not None and subject.anatomy.image_token is not None else None
    return (subject.anatomy.tower(location.site.part).width,)


def _editing(subject: Subject, locations: list[Location], example: Example) -> list[Check]:
    encoded = subject.encode([example])
    bare = _voice(subject, encoded).detach()
    masks = {location: Mask.ones(_mask_units(subject, location), device=bare.device.type) for location in locations}
    with torch.enable_grad(), edited(subject, Plan(Step(location.site, mask) for location, mask in masks.items())):
        voice = _voice(subject, encoded)
        checks = [Check("masks of ones leave the output identical to the bit", torch.equal(voice.detach(), bare))]
        weights = torch.randn(voice.shape, generator=seeded(1)).to(voice)
        gradients = torch.autograd.grad(
            (voice * weights).sum(), [mask.values for mask in masks.values()], allow_unused=True
        )
    for location, gradient in zip(masks, gradients, strict=True):
        felt = gradient is not None and bool(gradient.abs().max() > 0)
        if not felt:
            with torch.no_grad(), edited(subject, Plan({location.site: Zero()})):
                felt = not torch.equal(_voice(subject, encoded), bare)
        checks.append(
            Check(f"an edit at {location.site} changes the output", felt, "neither gradient nor zeroing reaches it")
        )
    with torch.no_grad(), edited(subject, Plan({locations[0].site: Scale(0.5)})):
        changed = not torch.equal(_voice(subject, encoded), bare)
    with torch.no_grad():
        restored = torch.equal(_voice(subject, encoded), bare)
    return [*checks, Check("leaving an edit restores the output to the bit", changed and restored)]


def _mask_units(subject: Subject, location: Location) -> int:
    """One factor for all where the width is not known, else one per unit or feature."""
    shape = _shape(subject, location)
    return shape[0] if shape is not None else 1


def _voice(subject: Subject, encoded: object) -> Tensor:
    """What the model puts out: its logits, or its features when it says nothing."""
    output = subject.forward(encoded)  # pyright: ignore[reportArgumentType]
    logits = getattr(output, "logits", None)
    voice = logits if isinstance(logits, Tensor) else output.last_hidden_state
    return voice.float()


def _between(subject: Subject, example: Example) -> list[Check]:
    """The order in which the parts run."""
    anatomy, order = subject.anatomy, list[Part]()
    assert anatomy.projector is not None
    assert anatomy.language is not None
    marks: list[tuple[Part, str]] = [
        ("projector", anatomy.projector.paths[-1]),
        ("language", anatomy.language.layers[0].path),
    ]
    if anatomy.vision is not None and anatomy.vision.layers:
        layer = anatomy.feature_layer if anatomy.feature_layer is not None else len(anatomy.vision.layers) - 1
        marks.append(("vision", anatomy.vision.layers[layer].path))
    with torch.no_grad(), ExitStack() as stack:
        for part, path in marks:
            tap_read(stack, subject.module(path), "output", lambda _, part=part: order.append(part))
        subject.forward(subject.encode([example]))
    first = list(dict.fromkeys(order))
    wanted = [part for part in ("vision", "projector", "language") if part in dict(marks)]
    return [
        Check("the projector runs between vision and language", first == wanted, " → ".join(first) or "nothing ran")
    ]


def _only_with_image(subject: Subject) -> list[Check]:
    what = "the projector matters only when there is an image"
    try:
        encoded = subject.encode([synthetic(subject, image=False)])
        with torch.no_grad():
            bare = _voice(subject, encoded)
            with edited(subject, Plan({Site("projector", "output"): Zero()})):
                without = _voice(subject, encoded)
    except (BadInput, RuntimeError, ValueError, TypeError, AttributeError):
        return []  # a family that takes no prompt without an image; nothing to prove
    return [Check(what, torch.equal(bare, without))]
