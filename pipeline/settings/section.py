"""The base class of all sections."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MEBIBYTE = 1024 * 1024


class Section(BaseModel):
    """A group of settings. Unknown names are refused, so that a typing error can't pass for a setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
