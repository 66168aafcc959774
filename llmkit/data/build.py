"""Sources -> the rows that a trainer reads: mixed, tokenised, packed, cached.

The cache key covers the rows, the tokenizer with its template, the settings and this code. What is cached is written
beside and renamed: a killed stage leaves all of it or nothing, and processes that build the same do not collide.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import datasets
from transformers import PreTrainedTokenizerBase

import llmkit.chat
import llmkit.data
from llmkit.artifacts.files import disk_error, read_json, sha256_of, sha256_of_file, write_json
from llmkit.artifacts.manifest import DataSummary
from llmkit.data.mixture import Mixture, mix
from llmkit.data.tokens import Example, Settings, pack, tokenise, trainable
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource

ACCEPTS = {
    "pretrain": ("text",),
    "sft": ("text", "messages", "prompt_completion"),
    "dpo": ("preference",),
    "reward": ("ranking", "preference"),
}


@dataclass(frozen=True)
class Built:
    """Rows that are ready for a trainer.

    Attributes:
        dataset: columns `input_ids` and `labels` (L ids each, labels -100 where no loss is taken, not shifted), and
            `seq_lengths` if packed.
        rows: the same before packing, with `shape` (document, conversation, completion) and `truncated`: for preflight.
        summary: for the manifest. Lengths and tokens are counted after truncation and before packing.
        examples: the first rows before packing and truncation.
        num_bytes: UTF-8 bytes of the text that is trained, without control tokens: for bits per byte.
    """

    dataset: datasets.Dataset
    rows: datasets.Dataset
    summary: DataSummary
    examples: list[Example]
    num_bytes: int


def build(
    sources: Sequence[DataSource],
    tokenizer: PreTrainedTokenizerBase,
    *,
    kind: str,
    max_length: int | None,
    packing: bool,
    packing_strategy: str,
    assistant_only_loss: bool,
    seed: int,
    max_rejected: float,
    dedup: bool,
    data_stages: dict[str, Path],
    completion_only_loss: bool | None = None,
    rejected_file: Path | None = None,
    gated_file: Path | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Read, mix, tokenise and pack.

    Args:
        kind: "pretrain" takes text alone and cuts what is longer than `max_length` into several rows, so that no token
            is lost; "sft" truncates it at the end and counts it.
        max_length: tokens per row; None: no limit, which packing does not allow.
        packing_strategy: as in `trl.pack_dataset`.
        assistant_only_loss, completion_only_loss: see `llmkit.data.encode`.
        max_rejected: share of a source's rows that may be bad.
        dedup: leave out exact repeats within a source.
        data_stages: folder of each stage that a source's `from` may name.
        rejected_file: where bad rows are written.
        gated_file: where rows that `require_known` sends to `pretrain` are written.
        cache_dir: where tokenised rows are kept for the next build with the same inputs; None: until the process ends.
        progress: called now and then with (rows tokenised, rows in all).

    Raises:
        DataError: see `llmkit.data.mixture`.
        TemplateError: the tokenizer's template cannot render a row.
    """
    settings = Settings(kind, max_length, packing, packing_strategy, assistant_only_loss, completion_only_loss)
    if packing and max_length is None:
        raise DataError("packing", "needs 'max_length': the length of the packed rows", "set 'trainer.max_length'")
    mixed = partial(
        mix,
        sources,
        seed=seed,
        data_stages=data_stages,
        accept=ACCEPTS[kind],
        stage_kind=kind,
        max_rejected=max_rejected,
        dedup=dedup,
        rejected_file=rejected_file,
        gated_file=gated_file,
    )
    return _load(*cached(mixed, tokenizer, settings, cache_dir, partial(_write, tokenizer, settings, progress)))


def cached(
    mixed: Callable[..., Mixture],
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    cache_dir: Path | None,
    write: Callable[[Mixture, Path], None],
) -> tuple[Path, Mixture]:
    """The folder of a mixture's tokenised rows, which is made if it is not there yet.

    Args:
        mixed: gives the mixture, with a folder for its rows as `folder`.
        write: fills an empty folder; `built.json` says that it is whole.
    """
    root = cache_dir or _folder_until_exit()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".building-") as folder:
            mixture = mixed(folder=Path(folder))
            target = root / cache_key(mixture, tokenizer, settings)
            if not (target / "built.json").is_file():
                made = Path(folder) / "rows"
                made.mkdir()
                write(mixture, made)
                publish(made, target)
    except OSError as error:
        raise disk_error(root, error) from error
    return target, mixture


def texts(
    sources: Sequence[DataSource], *, data_stages: dict[str, Path], seed: int, max_rejected: float, dedup: bool
) -> Iterator[str]:
    """Documents of a mixture in training order, to train a tokenizer on. Raises DataError as `build` does."""
    with tempfile.TemporaryDirectory() as folder:
        mixture = mix(
            sources,
            seed=seed,
            folder=Path(folder),
            data_stages=data_stages,
            accept=ACCEPTS["pretrain"],
            stage_kind="pretrain",
            max_rejected=max_rejected,
            dedup=dedup,
        )
        for placed in mixture:
            yield placed.row["text"]


def cache_key(mixture: Mixture, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> str:
    parts = [mixture.sha256, tokenizer_sha256(tokenizer), asdict(settings), _code_sha256(), datasets.__version__]
    return sha256_of(parts)[:24]


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of all files that the tokenizer saves, its chat template among them."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return sha256_of([[str(path.relative_to(folder)), sha256_of_file(path)] for path in files])


def _code_sha256() -> str:
    files = [file for room in (llmkit.chat, llmkit.data) for file in sorted(Path(room.__path__[0]).glob("*.py"))]
    return sha256_of([sha256_of_file(file) for file in files])


def _write(
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    progress: Callable[[int, int], None] | None,
    mixture: Mixture,
    folder: Path,
) -> None:
    facts = tokenise(mixture, tokenizer, settings, folder / "tokens.arrow", progress)
    if settings.packing:
        packed = pack(folder, settings, facts["summary"]["num_tokens"])
        facts["summary"]["num_packed_rows"] = len(packed)
    write_json(folder / "built.json", facts)


def publish(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not (target / "built.json").is_file():
            raise


def _load(target: Path, mixture: Mixture) -> Built:
    file = target / "packed.arrow"
    rows = datasets.Dataset.from_file(str(target / "tokens.arrow"))
    dataset = datasets.Dataset.from_file(str(file)) if file.is_file() else trainable(rows)
    return loaded(target, mixture, dataset, rows)


def loaded(target: Path, mixture: Mixture, dataset: datasets.Dataset, rows: datasets.Dataset) -> Built:
    """Rows that `cached` has left, with what is known of them and of their sources."""
    facts = read_json(target / "built.json")
    summary = DataSummary(**facts["summary"] | {"sources": mixture.counts, "rejected_file": mixture.rejected_file})
    return Built(dataset, rows, summary, [Example(**example) for example in facts["examples"]], facts["num_bytes"])


def _folder_until_exit() -> Path:
    folder = tempfile.mkdtemp(prefix="llmkit-data-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
