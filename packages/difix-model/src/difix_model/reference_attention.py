"""Self-attention across the views of a sample, as an attention processor of stock diffusers modules."""

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


class ReferenceAttention(AttnProcessor2_0):
    """Scaled dot-product attention whose self-attention joins the tokens of all views of a sample.

    The number of views is given with each call (`cross_attention_kwargs={"num_views": v}` of the UNet), so one
    network serves any number of views and no other model in the process is affected. With one view, and in
    cross-attention to text, it is diffusers' own processor.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "bv n d"],
        encoder_hidden_states: Float[Tensor, "bv m e"] | None = None,
        attention_mask: Any = None,
        temb: Any = None,
        num_views: int = 1,
    ) -> Float[Tensor, "bv n d"]:
        """Attend; the batch axis is (b v) with the view as the fast index.

        Args:
            attn: The diffusers module whose projections are used.
            hidden_states: Tokens of each view.
            encoder_hidden_states: Text tokens in cross-attention; None in self-attention.
            attention_mask: Passed on; must be None where views are joined.
            num_views: Views per sample; the batch must be a multiple of it.
        """
        joins_views = num_views > 1 and encoder_hidden_states is None
        if not joins_views:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if attention_mask is not None:
            raise ValueError("reference attention takes no attention mask")
        joined = rearrange(hidden_states, "(b v) n d -> b (v n) d", v=num_views)
        attended = super().__call__(attn, joined)
        return rearrange(attended, "b (v n) d -> (b v) n d", v=num_views)
