"""What do the words of a report mean? Verdicts, roles and statistics, and the columns that no docstring explains."""

from collections.abc import Mapping

from glasshouse.values.blocks import Table

VERDICTS = {
    "pass": "Nothing was found that speaks against the model. It covers what was examined, and nothing else.",
    "concern": "There is evidence against the model. Do not deploy it before somebody has explained the evidence.",
    "fail": "There is proof against the model.",
    "inconclusive": "The examination cannot tell: too few examples, an interval across the threshold, a control that "
    "misbehaved, or a check that did not run. It is no pass.",
    "described": "The check describes the model and does not judge it.",
    "not run": "An input was not given, or this depth leaves the check out.",
    "refused": "The check could not work with the inputs that were given.",
    "internal error": "The check stopped because of an error in glasshouse.",
}
ROLES = {
    "judge": "A check that decides the verdict.",
    "witness": "A check that can raise a concern and cannot clear the model.",
    "adviser": "A check that describes or repairs, and does not affect the verdict.",
}
STATISTICS = {
    "95% (92-97%)": "A measured value and, in brackets, its 95% confidence interval, unless a title says otherwise.",
    "n": "Number of independent units behind a value: examples, images, models or random draws.",
    "null": "The same measurement where no effect is expected, also called control. Only the excess over it counts.",
    "ASR": "Attack success rate: the fraction of triggered inputs on which the attack brings about its target.",
    "KL": "Kullback-Leibler divergence, in nats: how far apart two distributions of answers are; 0 is identical.",
    "AUROC": "How well a score separates two groups: 50% is chance, 100% is perfect.",
    "base": "The model that the examined one was tuned from.",
    "projector": "The layers between the vision encoder and the language model.",
    "update": "The difference between the examined model's weights and its base's.",
}
COLUMNS = {
    "arm": "The model that answers, or a null: the base run again, or its quantised copy.",
    "change": "What changed between the two answers.",
    "detector": "The detector that scores single images.",
    "direction": "The direction in the space of image tokens.",
    "direction, from the nearest": "Rank of the direction by its angle to the benign update.",
    "directions": "Number of leading singular directions of the update.",
    "dose": "Multiple of the shift that is added to the clean images.",
    "example": "The example that was shown.",
    "experiment": "The model, or the null, whose norms are regressed.",
    "feature": "The number that is computed about the model.",
    "figure": "What was measured or set.",
    "images": "Which images the shift is measured on.",
    "intervention": "What is done to the update or to the image tokens.",
    "layer": "Position of the layer; layer 0 is the embedding.",
    "lens": "How the layer's state is read: plain, tuned, or a null.",
    "matrix": "Name of the weight matrix.",
    "model": "The model, or the state of it, that is measured.",
    "name": "What the value belongs to.",
    "neuron": "Index of the hidden neuron.",
    "neurons": "Indices of the neurons.",
    "norm": "Norm of the update.",
    "part": "The part of the model.",
    "perturbation": "The kind of change that is trained on the images.",
    "prompt": "The text that was given with the image.",
    "repair": "The repair that is tried.",
    "row": "What the row of the heat map stands for.",
    "scale": "Factor on the part of the update that is kept.",
    "score": "The score by which neurons are ranked.",
    "side": "Input or output side of the matrix.",
    "silenced": "Number of neurons that are set to zero.",
    "slope": "Slope of the regression line.",
    "step": "Training step.",
    "token": "The token, as text.",
    "tokens": "Which tokens are measured.",
    "trigger": "The trigger that is stamped on the images.",
    "update": "The update that is measured: the model's own, or a null.",
    "value": "The measured value.",
    "weight": "Name of the weight.",
    "what": "The setting or number that differs.",
    "first": "Its value in the first run.",
    "second": "Its value in the second run.",
}
"""Columns whose rows are under keys, and those of tables that the report itself arranges."""


def meanings(table: Table) -> Mapping[str, str]:
    """By column of this table: what stands in it, as far as anybody says so."""
    known = {name: table.meanings.get(name) or COLUMNS.get(name, "") for name in table.columns}
    return {name: text for name, text in known.items() if text}
