"""The figures over all answers of a file: the published accuracy, and beside it what it hides.

Of a multiple-choice task the published accuracy counts an answer that names no option as wrong, so it can lie below
chance for a model that knows something and above another's for one that merely copies options well; hence the share of
answers that name an option, the accuracy among these, and chance. All figures are in percent with two decimals, as they
were published; `correct` and `count` are exact.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from colatent.evaluate.intervals import wilson
from colatent_text.scoring.protocol import RULES, TASKS, Record, Verdict, judge

ARTICLE = re.compile(r"\b(?:a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is said of a file. Shares are in percent; None where a task has no such figure.

    count, correct  answers, and those that the protocol counts as right
    accuracy        the published figure
    interval        95 % of the accuracy (Wilson): of drawing these questions, not of training this model
    with_choices    answers to questions with options: the three below are shares of these
    named           share that names an option
    accuracy_named  among those, the share whose option is the true one
    chance          what guessing an option would give: mean of 1 / number of options
    named_by        how many options were named by each rule of the protocol
    exact_match, f1 as SQuAD defines them: articles dropped, overlap of tokens
    """

    task: str
    count: int
    correct: int
    accuracy: float
    interval: tuple[float, float]
    with_choices: int
    named: float | None
    accuracy_named: float | None
    chance: float | None
    named_by: Mapping[str, int] | None
    exact_match: float | None
    f1: float | None


def score(records: Iterable[Record], task: str) -> Scores:
    """Judge all answers by the protocol of one of `TASKS`. There must be at least one."""
    judged = [(record, judge(record, TASKS[task])) for record in records]
    assert judged
    correct, count = sum(verdict.right for _, verdict in judged), len(judged)
    asked = [(record, verdict) for record, verdict in judged if record.options]
    named = [verdict for _, verdict in asked if verdict.reading]
    spans = [record for record, _ in judged] if TASKS[task].spans else []
    low, high = wilson(correct, count)
    return Scores(
        task=task,
        count=count,
        correct=correct,
        accuracy=_percent(correct, count),
        interval=(_percent(low), _percent(high)),
        with_choices=len(asked),
        named=_percent(len(named), len(asked)) if asked else None,
        accuracy_named=_percent(sum(each.names_truth for each in named), len(named)) if named else None,
        chance=_percent(sum(1 / len(record.options) for record, _ in asked), len(asked)) if asked else None,
        named_by=_rules(named) if asked else None,
        exact_match=_percent(sum(exact_match(each.answer, each.truth) for each in spans), count) if spans else None,
        f1=_percent(sum(token_f1(each.answer, each.truth) for each in spans), count) if spans else None,
    )


def exact_match(answer: str, truth: str) -> bool:
    """Equal as SQuAD normalises (Rajpurkar et al. 2016): lower case, without ASCII punctuation and articles."""
    return squad_tokens(answer) == squad_tokens(truth)


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall over the bags of SQuAD's tokens; of two empty ones 1, of one 0."""
    found, wanted = squad_tokens(answer), squad_tokens(truth)
    if not found or not wanted:
        return float(found == wanted)
    both = sum((Counter(found) & Counter(wanted)).values())
    return 2 * both / (len(found) + len(wanted))


def squad_tokens(text: str) -> list[str]:
    """The tokens that SQuAD compares."""
    return ARTICLE.sub(" ", text.lower().translate(PUNCTUATION)).split()


def _rules(named: Iterable[Verdict]) -> dict[str, int]:
    counts = Counter(verdict.reading.rule for verdict in named if verdict.reading)
    return {rule: counts[rule] for rule in RULES}


def _percent(part: float, whole: float = 1.0) -> float:
    return round(100 * part / whole, 2)
