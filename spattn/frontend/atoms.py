"""The table of atoms: names, parameters, meanings, documentation. To add an atom is to add one row to one list."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from spattn.frontend.bands import BANDS
from spattn.frontend.grids import GRIDS
from spattn.frontend.sets import SETS
from spattn.frontend.spec import AtomSpec
from spattn.frontend.tables import TABLES

ATOMS: Mapping[str, AtomSpec] = MappingProxyType({spec.name: spec for spec in (*BANDS, *SETS, *GRIDS, *TABLES)})
