"""Data sets as TRL, alignment-handbook and open-r1 name them, and the rows that they evaluate on."""

from __future__ import annotations

from typing import Any

from llmkit.importing import common
from llmkit.importing.aside import set_aside
from llmkit.importing.draft import Draft, Entry
from llmkit.importing.foreign import Loc, as_number


def sources_of(draft: Draft) -> list[dict[str, Any]]:
    """Training sources, from whichever of the four ways to name data the file uses. Fills `data` and `heldout`."""
    if "dataset_mixer" in draft.given:
        sources = _mixer(draft)
    elif isinstance(draft.get("dataset_mixture"), dict):
        sources = _mixture(draft)
    elif isinstance(draft.get("datasets"), list):
        sources = _listed_sets(draft, ("datasets",), draft.given["datasets"], "path", "name")
    elif draft.get("dataset_name"):
        sources = [_named(draft)]
    else:
        raise draft.refuse((), "names no data set", "add dataset_name, datasets, dataset_mixture or dataset_mixer")
    draft.stage["data"] = sources
    common.cut_silently(draft)
    return sources


def _format(draft: Draft, columns: Any = None) -> dict[str, Any]:
    """Sets such as ultrafeedback have conversations beside their pairs: the stage says which are meant."""
    if draft.kind in ("dpo", "reward"):
        return {"format": "preference"}
    if draft.kind == "pretrain":
        column = draft.get("text_column", "text")
        draft.moved(("text_column",), "data[].columns" if column != "text" else "data[].format")
        return {"format": "text", **({"columns": {"text": str(column)}} if column != "text" else {})}
    return {"format": "messages"} if isinstance(columns, list) and "messages" in columns else {}


def _mixer(draft: Draft) -> list[dict[str, Any]]:
    mixer = draft.given["dataset_mixer"]
    if not isinstance(mixer, dict) or not mixer:
        raise draft.refuse(("dataset_mixer",), "is no mapping of data sets to shares")
    splits = [str(split) for split in _list(draft.get("dataset_splits", ["train", "test"]))]
    configs = _list(draft.get("dataset_configs", []))
    sources, tests = [], []
    for index, (name, share) in enumerate(mixer.items()):
        base: dict[str, Any] = {"path": common.safe_path(draft, ("dataset_mixer", name), name)}
        if index < len(configs):
            base["name"] = configs[index]
        for split in splits:
            source = {**base, "split": split, **_format(draft)}
            if "train" in split:
                sources += _weighted(draft, source, share, ("dataset_mixer", name), f"data[{index}].path")
            elif "test" in split:
                tests.append(source)
    draft.moved(("dataset_splits",), "data[].split")
    draft.moved(("dataset_configs",), "data[].name")
    if tests:
        draft.stage["heldout"] = {"test": tests}
    return sources


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _weighted(draft: Draft, source: dict[str, Any], share: Any, loc: Loc, to: str) -> list[dict[str, Any]]:
    """A source of which a share of the rows is used: a slice of whole percents, at least 1."""
    share = 1.0 if share is None else as_number(share)
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < float("inf"):
        raise draft.refuse(loc, f"{share!r:.40} is no share of the rows")
    if share == 0:
        draft.listed(loc, "a share of 0: the data set is left out")
        return []
    percent = max(1, round(share * 100))
    exact = "" if abs(percent / 100 - share) < 1e-9 or share > 1 else f"; {share:g} is rounded to {percent} %"
    if share < 1:
        source["split"] = f"{source['split']}[:{percent}%]"
    draft.moved(loc, to, f"{'all rows' if share >= 1 else f'the first {percent} % of the rows'}{exact}")
    return [source]


def _mixture(draft: Draft) -> list[dict[str, Any]]:
    mixture, loc = draft.given["dataset_mixture"], ("dataset_mixture",)
    sets = mixture.get("datasets")
    if not isinstance(sets, list):
        raise draft.refuse(loc, "has no list of datasets")
    sources = _listed_sets(draft, (*loc, "datasets"), sets, "id", "config")
    draft.listed((*loc, "seed"), "rows are shuffled by `run.seed`")
    return sources


def _listed_sets(draft: Draft, loc: Loc, sets: list[Any], path: str, config: str) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = []
    for index, item in enumerate(sets):
        here, to = (*loc, index), f"data[{len(sources)}]"
        if not isinstance(item, dict) or path not in item:
            raise draft.refuse(here, f"is no data set with '{path}'")
        source: dict[str, Any] = {"path": common.safe_path(draft, (*here, path), item[path])}
        if item.get(config) not in (None, "default"):
            source["name"] = str(item[config])
        source["split"] = str(item.get("split") or "train")
        source |= _format(draft, item.get("columns"))
        kept = _weighted(draft, source, item.get("weight"), (*here, "weight"), f"{to}.split")
        if item.get("fraction") is not None:
            source["fraction"] = _fraction(draft, (*here, "fraction"), item["fraction"])
        fates = {path: f"{to}.path", config: f"{to}.name", "split": f"{to}.split", "fraction": f"{to}.fraction"}
        for key, place in fates.items():
            if not kept:
                draft.listed((*here, key), "its weight is 0")
            elif key == config and "name" not in source:
                draft.listed((*here, key), "'default' is what llmkit takes")
            else:
                draft.moved((*here, key), place)
        draft.moved((*here, "columns"), f"{to}.format", "the format says which columns are read")
        draft.listed((*here, "data_dir"), "not supported: name the files in `path`")
        sources += kept
    if not sources:
        raise draft.refuse(loc, "leaves no data set to train on")
    _normalise(sources)
    return sources


def _fraction(draft: Draft, loc: Loc, value: Any) -> float:
    number = as_number(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < float("inf"):
        raise draft.refuse(loc, f"{value!r:.40} is no share of the mixture", "give a number above 0")
    return float(number)


def _normalise(sources: list[dict[str, Any]]) -> None:
    """TRL makes fractions sum to 1."""
    total = sum(float(source.get("fraction", 0)) for source in sources)
    for source in sources:
        if "fraction" in source and len(sources) == 1:
            del source["fraction"]
        elif "fraction" in source and all("fraction" in other for other in sources):
            source["fraction"] = round(float(source["fraction"]) / total, 6)


def _named(draft: Draft) -> dict[str, Any]:
    source: dict[str, Any] = {"path": common.safe_path(draft, ("dataset_name",), draft.given["dataset_name"])}
    draft.moved(("dataset_name",), "data[0].path")
    configs = _list(draft.get("dataset_config", draft.get("dataset_configs", [])))
    for key in ("dataset_config", "dataset_configs"):
        if (configs and str(configs[0]) not in ("default", "all")) or (
            configs[:1] == ["all"] and key == "dataset_config"
        ):
            draft.moved((key,), "data[0].name")
            source["name"] = str(configs[0])
        else:
            draft.listed((key,), f"'{configs[0] if configs else ''}': the data set's own default is read")
    source["split"] = str(draft.get("dataset_train_split", draft.get("dataset_split", "train")))
    for key in ("dataset_train_split", "dataset_split"):
        draft.moved((key,), "data[0].split")
    return source | _format(draft)


def evaluated(draft: Draft, sources: list[dict[str, Any]]) -> None:
    """Held-out rows, where the file evaluates at all."""
    strategy = draft.get("eval_strategy", draft.get("evaluation_strategy"))
    wanted = strategy not in ("no", False) and (strategy is not None or draft.get("do_eval") is True)
    sizes: dict[Loc, Any] = {("test_split_size",): draft.get("test_split_size")}
    if isinstance(draft.get("dataset_mixture"), dict):
        sizes[("dataset_mixture", "test_split_size")] = draft.given["dataset_mixture"].get("test_split_size")
    if not wanted:
        draft.stage.pop("heldout", None)
        for loc in (*sizes, ("dataset_test_split",)):
            draft.listed(loc, "nothing is evaluated: `eval_strategy` is no")
        return
    for loc, size in sizes.items():
        if size is not None:
            set_aside(draft, sources, size, loc)
    given = draft.get("dataset_test_split") is not None
    if draft.get("dataset_name") and (given or "heldout" not in draft.stage):
        test = str(draft.get("dataset_test_split", "test"))
        draft.stage["heldout"] = {"test": [{**sources[0], "split": test}]}
        draft.moved(("dataset_test_split",), "heldout.test")
        if not given:
            draft.added.append(Entry(test, "mapped", "heldout.test", "the default there"))
