"""What do the words of a report mean? Verdicts, roles, statistics, and the columns that no finding explains."""

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
    "null": "The same measurement where no effect is expected, also called control. Only the excess is evidence.",
    "ASR": "Attack success rate: the fraction of triggered inputs on which the attack brings about its target.",
    "KL": "Kullback-Leibler divergence, in nats: how far apart two distributions of answers are; 0 is identical.",
    "AUROC": "How well a score separates two groups: 50% is chance, 100% is perfect.",
    "base": "The model that the examined one was tuned from.",
    "projector": "The layers between the vision encoder and the language model.",
    "update": "The difference between the examined model's weights and its base's.",
}
COLUMNS = {
    "figure": "What was measured or set.",
    "value": "The measured value.",
    "name": "What the value belongs to.",
    "what": "The setting or number that differs.",
    "first": "Its value in the first run.",
    "second": "Its value in the second run.",
}
"""Columns of the tables that the report itself arranges; a finding explains its own."""


def meanings(table: Table) -> Mapping[str, str]:
    """By column of this table: what stands in it, as far as anybody says so."""
    texts = {name: table.meanings.get(name) or COLUMNS.get(name, "") for name in table.columns}
    return {name: text for name, text in texts.items() if text}
