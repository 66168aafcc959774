"""An index of documents for the tool `search`, as one stage of a recipe.

accelerate launch --config_file recipes/accelerate/cpu/single.yaml -m llmkit.stages.search_index r.yaml --stage pages

data/index/    see `llmkit.tools.index`; `llmkit index` makes the same by hand
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from llmkit.artifacts.manifest import DataSummary, Manifest, SourceCount
from llmkit.data.files import Raw
from llmkit.data.mixture import choose_rows, count_of, slice_rows
from llmkit.data.pool import Pool, fill
from llmkit.data.sources import read_source
from llmkit.errors import DataError
from llmkit.recipe.parts import DataSource
from llmkit.recipe.reads import name_of
from llmkit.recipe.stages_knowledge import SearchIndexStage
from llmkit.stages.common import Worker, main, stages_read, temporary, where_of
from llmkit.tools.index import Document, build_index
from llmkit.tools.search import FOLDER


def run(worker: Worker) -> Manifest:
    stage = worker.file.stage
    assert isinstance(stage, SearchIndexStage), stage.kind
    if not worker.is_main:
        return worker.manifest()
    counts: list[SourceCount] = []
    made = build_index(
        (document for source in stage.documents for document in _documents(worker, source, counts)),
        worker.dir.data / FOLDER,
        passage_chars=stage.passage_chars,
        overlap=stage.overlap,
        sources=[name_of(source) for source in stage.documents],
    )
    numbers = {"documents": float(made.num_documents), "passages": float(made.num_passages)}
    summary = DataSummary(sources=counts, num_rows=made.num_documents)
    return worker.manifest(data_dir=worker.dir.data.name, metrics=numbers, data=summary)


def _documents(worker: Worker, source: DataSource, counts: list[SourceCount]) -> Iterator[Document]:
    """Of one source, in its order; then it is counted. Raises DataError for a row without text: half an index would
    not be seen."""
    text, title, id_ = (source.columns.get(name, name) for name in ("text", "title", "id"))
    where = f"{where_of(worker, 'documents')}: {name_of(source)}"
    with temporary(worker) as folder:
        pool, bad = Pool(source, folder), Counter[str]()

        def reject(raw: Raw) -> None:
            bad[f"{raw.file}:{raw.line}: {raw.error}"] += 1

        fill(pool, read_source(source, stages_read(worker), worker.file.seed), reject)
        if bad:
            raise DataError(where, f"{bad.total()} rows cannot be read, such as {next(iter(bad))}", "mend them")
        rng = np.random.default_rng([worker.file.seed, 0])
        rows = np.sort(choose_rows(pool, slice_rows(pool), rng))
        for number, row in enumerate(rows.tolist(), start=1):
            placed = pool[row]
            if not isinstance(placed.row, dict) or not isinstance(placed.row.get(text), str):
                cure = "name the column: columns: {text: <name>}"
                raise DataError(f"{where}: {placed.where}", f"it has no text in '{text}'", cure)
            if number % 1000 == 0:
                worker.log("index", number, pool.num_read)
            yield Document(placed.row[text], str(placed.row.get(title) or ""), str(placed.row.get(id_) or placed.where))
        counts.append(count_of(pool, rows))


if __name__ == "__main__":
    main("search_index", run)
