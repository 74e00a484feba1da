from __future__ import annotations

import pytest

from support.sparsefusion_cases import ReferenceData, reference_data


@pytest.fixture(scope="session")
def recordings() -> ReferenceData:
    """The reference data; tests that use it carry the marker `reference`."""
    return reference_data()
