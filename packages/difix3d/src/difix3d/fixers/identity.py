"""The fixer that changes nothing."""

from difix3d.fixers.contract import FixRequest, FixResult


class IdentityFixer:
    """Changes nothing: the control that measures what the loop does by itself."""

    def __call__(self, request: FixRequest) -> FixResult:
        """Return the rendered views as they are."""
        return FixResult.of(request, request.rgb)
