"""How tokens are chosen from logits: the options of decoding, and the choice itself.

All tokens of a block are chosen at once and independently, given its latents; what ties them together is the prior. A
sampled token is the inverse of the distribution function at one uniform number, which belongs to the sample and the
token's place: so it does not change with the batch, and hardly with a model that changes a little.

Axes: T tokens of a block, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, field_validator

from colatent.config.schema import Settings

if TYPE_CHECKING:
    from torch import Tensor

StopText = Annotated[str, Field(min_length=1)]
StopToken = Annotated[int, Field(strict=True, ge=0)]


class DecodingOptions(Settings):
    """How tokens are chosen and where a text stops. Order: repetition penalty, temperature, top_k, top_p."""

    temperature: NonNegativeFloat = 0.0
    """Logits are divided by it before a token is drawn; 0 takes the likeliest token (greedy)."""
    top_k: NonNegativeInt = 0
    """Draw among the so many likeliest tokens (and those as likely as the last of them); 0: all."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Draw among the fewest likeliest tokens that hold this share of the probability; 1: all."""
    repetition_penalty: PositiveFloat = 1.0
    """Of tokens in earlier generated blocks, positive logits are divided and negative ones multiplied by it; 1 is off.
    A prompt's tokens count only where they lie in the first generated block."""
    stop: tuple[StopText | StopToken, ...] = ()
    """Texts and token ids before which a text ends, beside its end symbol."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_is_enough(cls, value: object) -> object:
        return (value,) if isinstance(value, str | int) else value


def choose(logits_TV: Tensor, *, options: DecodingOptions, uniform_T: Tensor) -> Tensor:
    """Token ids (T,) at a temperature above 0; `uniform_T` are numbers in [0, 1), float32 so that their products with
    a float64 total stay below it."""
    # Less the largest, or a small temperature would overflow.
    scaled_TV = (logits_TV.double() - logits_TV.double().amax(-1, keepdim=True)) / options.temperature
    share_TV = keep_top_p(keep_top_k(scaled_TV, options.top_k).softmax(-1), options.top_p)
    reached_TV = share_TV.cumsum(-1)
    target_T1 = uniform_T.to(reached_TV)[:, None] * reached_TV[:, -1:]
    return (reached_TV <= target_T1).sum(-1)


def keep_top_k(logits_TV: Tensor, top_k: int) -> Tensor:
    """Logits with all but the `top_k` largest at -inf; 0 keeps all."""
    if not 0 < top_k < logits_TV.shape[-1]:
        return logits_TV
    least_T1 = logits_TV.topk(top_k, dim=-1).values[..., -1:]
    return logits_TV.masked_fill(logits_TV < least_T1, -float("inf"))


def keep_top_p(share_TV: Tensor, top_p: float) -> Tensor:
    """Probabilities with all at 0 before which, from the largest down, the others already hold `top_p`."""
    if top_p == 1.0:
        return share_TV
    falling_TV, order_TV = share_TV.sort(dim=-1, descending=True, stable=True)
    before_TV = falling_TV.cumsum(-1).roll(1, -1)
    before_TV[..., 0] = 0.0
    kept_TV = falling_TV.masked_fill(before_TV >= top_p, 0.0)
    return share_TV.new_zeros(share_TV.shape).scatter(-1, order_TV, kept_TV)


def penalise(logits_TV: Tensor, seen_V: Tensor, penalty: float) -> Tensor:
    """Positive logits of seen tokens divided by `penalty`, negative ones multiplied by it (CTRL, arXiv 1909.05858,
    section 4.1, in the form that every library gave it)."""
    changed_TV = (logits_TV / penalty).where(logits_TV > 0, logits_TV * penalty)
    finite_TV = changed_TV.nan_to_num(nan=float("nan"))  # an infinite logit would make nonsense of the others
    return finite_TV.where(seen_V, logits_TV)
