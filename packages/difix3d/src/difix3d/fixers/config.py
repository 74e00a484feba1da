"""Which fixer a run opens; no torch here."""

from __future__ import annotations

from dataclasses import dataclass

from difix_model.opening import FixerConfig

AUTO, DEFAULT, NO_FIXER = "auto", "default", "none"
"""Models that need no weights of the user's; the last names `IdentityFixer`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewFixerConfig(FixerConfig):
    """Which weights fix novel views, if any, and how."""

    model: str = AUTO
    """What fixes: default (the weights that come with the project), none (nothing is fixed), or other weights: the
    folder of a training run, a hub id such as nvidia/difix_ref, or a model_<step>.pkl. With distillation they work on
    what the splats show together. auto: none with distillation, else default."""

    offload: bool = False
    """With a GPU: keep the fixer's network in the CPU's memory, and on the GPU only while a round or the comparison is
    fixed. Slower, and leaves the GPU's memory to the splat."""
