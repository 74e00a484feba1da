"""Self-attention over all views of an object, as attention processors of stock diffusers networks.

A network's batch holds the views of one object after another: (object, view). A processor knows the number of views
when it is called, from `ViewCount`, which the network's owner sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


@dataclass(slots=True)
class ViewCount:
    """How many consecutive samples of a batch are views of one object; shared by all processors of a network."""

    num_views: int = 1


class MultiViewSelfAttention:
    """Lets the tokens of all views of an object attend to each other."""

    def __init__(self, views: ViewCount) -> None:
        self._views = views
        self._inner = AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "bv n d"],
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **more: Any,
    ) -> Float[Tensor, "bv n d"]:
        """Attend over the views' tokens laid end to end."""
        num_samples, num_tokens, _ = hidden_states.shape
        joined = hidden_states.reshape(num_samples // self._views.num_views, -1, hidden_states.shape[-1])
        found = self._inner(attn, joined, encoder_hidden_states, attention_mask, temb, **more)
        return found.reshape(num_samples, num_tokens, -1)


class MultiViewJointAttention:
    """Attention of Stable Diffusion 3: the tokens of all views and one copy of the text attend to each other.

    The text comes once per view; the first view's copy is used, and its result handed to every view.
    """

    def __init__(self, views: ViewCount) -> None:
        self._views = views

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "bv n d"],
        encoder_hidden_states: Float[Tensor, "bv m d"] | None = None,
        attention_mask: Tensor | None = None,
        **more: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend over the views' tokens and, where there is text, over the text."""
        num_views = self._views.num_views
        num_samples, num_tokens, _ = hidden_states.shape
        joined = hidden_states.reshape(num_samples // num_views, num_views * num_tokens, -1)
        q, k, v = _projected(attn, joined, (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k))
        num_own = q.shape[2]
        if encoder_hidden_states is not None:
            text = encoder_hidden_states[::num_views]
            projections = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            added = _projected(attn, text, projections, (attn.norm_added_q, attn.norm_added_k))
            q, k, v = (torch.cat([own, other], dim=2) for own, other in zip((q, k, v), added, strict=True))
        found = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: nn.ModuleList = attn.to_out  # type: ignore[assignment]
        views = out[1](out[0](found[:, :num_own])).reshape(num_samples, num_tokens, -1)
        if encoder_hidden_states is None:
            return views
        text = found[:, num_own:]
        if not attn.context_pre_only:
            added_out: Any = attn.to_add_out
            text = added_out(text)
        return views, text.repeat_interleave(num_views, dim=0)


def _projected(attn: Attention, x: Tensor, projections: tuple, norms: tuple) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as [b heads n d], the first two normalized where the network does so."""
    q, k, v = (projection(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for projection in projections)
    if norms[0] is not None:
        q, k = norms[0](q), norms[1](k)
    return q, k, v


def make_multiview(network: nn.Module) -> ViewCount:
    """Give a stock network's self-attention the multi-view processors.

    In UNets, ControlNets and PixArt these are the layers named `attn1`; in Stable Diffusion 3, `attn` and `attn2`.

    Returns:
        What the number of views is set on before each call.
    """
    views = ViewCount()
    joint = type(network).__name__.startswith("SD3")
    processors: dict[str, Any] = dict(network.attn_processors)  # type: ignore[call-overload]
    for name in processors:
        if joint:
            processors[name] = MultiViewJointAttention(views)
        elif name.endswith("attn1.processor"):
            processors[name] = MultiViewSelfAttention(views)
    network.set_attn_processor(processors)  # type: ignore[operator]
    return views
