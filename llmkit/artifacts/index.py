"""What an index of documents says of itself: FOLDER/manifest.json. `llmkit.tools.index` builds and searches it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from llmkit.artifacts.files import read_json
from llmkit.errors import UserError

FORMAT = 2
ANEW = "build it anew with 'llmkit index'"


class IndexManifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    data: str
    """Folder beside it."""
    digest: str
    """Of the documents, in their order, with titles and ids."""
    num_documents: int
    num_passages: int
    passage_chars: int
    overlap: int
    sources: list[str] = []

    def check_digest(self, folder: Path, digest: str | None) -> None:
        """Raises UserError where the digest does not begin so; None: any may be."""
        if digest is not None and not self.digest.startswith(digest):
            what = f"is an index of other documents: its digest is {self.digest[:16]}, not {digest[:16]}"
            raise UserError(str(folder), what, f"{ANEW}, or change 'digest'")


def read_index_manifest(folder: Path) -> IndexManifest:
    """Raises UserError where there is none, or one of another version."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise UserError(str(folder), "is no index", f"make one: llmkit index DOCUMENTS --out {folder}")
    try:
        found = read_json(path)
        if isinstance(found, dict) and found.get("format") != FORMAT:
            what = f"is an index of format {found.get('format')}, and this llmkit reads format {FORMAT}"
            raise UserError(str(folder), what, ANEW)
        return IndexManifest.model_validate(found)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(path), f"cannot be read ({str(error).splitlines()[0]})", ANEW) from error
