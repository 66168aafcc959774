"""What a few licences ask of those who build on what is under them. A table, no legal advice; the rest is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Licence:
    non_commercial: bool = False
    no_derivatives: bool = False
    share_alike: bool = False
    own_terms: bool = False
    """Terms of use that go with everything that is made from it."""


_PERMISSIVE = (
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "unlicense", "wtfpl",
    "zlib", "cc0-1.0", "pddl", "odc-by", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "ms-pl", "postgresql", "ncsa", "artistic-2.0",
)  # fmt: skip
_SHARE_ALIKE = (
    "cc-by-sa-3.0", "cc-by-sa-4.0", "odbl", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0",
    "cdla-sharing-1.0", "gfdl", "mpl-2.0", "eupl-1.1", "eupl-1.2", "osl-3.0",
)  # fmt: skip
_OWN = (
    "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma", "openrail", "openrail++", "openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bigcode-openrail-m", "creativeml-openrail-m",
    "deepfloyd-if-license", "intel-research",
)  # fmt: skip
KNOWN: Mapping[str, Licence] = {
    **dict.fromkeys(_PERMISSIVE, Licence()),
    **dict.fromkeys(_SHARE_ALIKE, Licence(share_alike=True)),
    **dict.fromkeys(_OWN, Licence(own_terms=True)),
    **dict.fromkeys(["cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "fair-noncommercial-research-license"],
                    Licence(non_commercial=True)),
    **dict.fromkeys(["cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"],
                    Licence(non_commercial=True, share_alike=True)),
    **dict.fromkeys(["cc-by-nd-4.0"], Licence(no_derivatives=True)),
    **dict.fromkeys(["cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"], Licence(non_commercial=True, no_derivatives=True)),
}  # fmt: skip
"""By the Hub's ids."""


def conflicts(stated: str | None, sources: Mapping[str, str | None]) -> list[str]:
    """In words, what does not go together. `sources`: base model and data -> licence, None where nobody knows."""
    found = [words for name, licence in sources.items() for words in _against(stated, name, licence)]
    if stated is None:
        found.insert(0, "No licence is stated, so nobody may use this: set 'hub.license'.")
    elif stated.lower() not in KNOWN:
        found.insert(0, f"'{stated}' is not in llmkit's table of licences, so it was not compared with the sources'.")
    return found


def _against(stated: str | None, name: str, licence: str | None) -> list[str]:
    if licence is None:
        return [f"The licence of {name} is unknown: find out whether it allows this."]
    source, ours = KNOWN.get(licence.lower()), KNOWN.get((stated or "").lower())
    if source is None:
        return [f"{name} is under '{licence}', which llmkit's table does not have: read it."]
    same = stated is not None and stated.lower() == licence.lower()
    under = f"{name} is under {licence}"
    found = []
    if source.no_derivatives:
        found.append(f"{under}, which allows no derived works to be shared.")
    if source.non_commercial and stated is not None and not (ours and ours.non_commercial):
        found.append(f"{under}, which forbids commercial use, and {stated} allows it.")
    if source.share_alike and stated is not None and not same:
        found.append(
            f"{under}, which asks for what is derived from it to be shared alike, and {stated} is another one."
        )
    if source.own_terms and not same:
        found.append(f"{under}, whose terms go with everything made from it: state 'hub.license: {licence}'.")
    return found
