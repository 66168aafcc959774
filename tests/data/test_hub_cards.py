"""What would be published, before anything is sent: cards, figures, lineage, paths, secrets, bars, licences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers_hub import finished_run, ready, small_folder, spec, texts
from huggingface_hub import DatasetCard, ModelCard

from llmkit.artifacts.files import read_json, write_json, write_text
from llmkit.artifacts.rundir import RunDir
from llmkit.errors import LlmkitError, ModelError, RunError, UserError
from llmkit.hub.licences import conflicts
from llmkit.hub.paths import Paths
from llmkit.hub.report import report_files
from llmkit.hub.subject import subject_of
from llmkit.recipe.load import load
from llmkit.secrets import redacted


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return small_folder(tmp_path / "small")


TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123"
HOSTILE = "\n---\nlicense: evil\n---\n# owned | <script>owned()</script> `x` ```\n[owned](http://owned)\x1b[31m"


def test_the_card_says_what_it_is_where_it_is_from_and_how_good(tmp_path: Path, model_dir: Path):
    made = ready(finished_run(tmp_path, model_dir), tmp_path)

    text = texts(made)["me/assistant/README.md"]
    card = ModelCard(text)
    (package,) = (package for package in made.packages if package.repo_type == "model")
    figures = {(one.dataset_type, one.metric_type): one.metric_value for one in card.data.eval_results}
    assert figures == {
        ("facts_known", "accuracy"): 0.9,
        ("honesty", "hallucination_unseen"): 0.1,
        ("honesty", "over_refusal_known"): 0.1,
    }
    assert card.data.license == "apache-2.0" and card.data.model_name == "assistant"
    assert card.data.datasets == ["me/assistant-data"]
    for expected in (
        "llmkit.tiny:base",
        "| sft | sft | base | 8 |",
        "ab12ab12ab12",
        "90.0\u202f% (85.0\u201395.0)",
        package.tag,
    ):
        assert expected in text, expected
    assert f'"me/assistant", "{package.tag}"' in text


def test_the_card_shows_all_that_counts_of_identity(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    path = run.path / "03-eval-sft/manifest.json"
    made = read_json(path)
    names = ("accuracy", "persona_accuracy", "claims_other", "accuracy, kind maker")
    rows = [made["evals"][0] | {"task": "who", "metric": name, "value": 0.7} for name in names]
    settings = made["settings"] | {"evals": [*made["settings"]["evals"], {"task": "identity", "name": "who"}]}
    changed(path, evals=[*made["evals"], *rows], settings=settings)
    card = ModelCard(texts(ready(run, tmp_path))["me/assistant/README.md"])
    shown = [one.metric_type for one in card.data.eval_results if one.dataset_type == "who"]
    assert shown == [*names[:3]]


def test_the_data_card_names_every_configuration(tmp_path: Path, model_dir: Path):
    made = texts(ready(finished_run(tmp_path, model_dir), tmp_path))
    card = DatasetCard(made["me/assistant-data/README.md"])
    configs = {each["config_name"]: each["data_files"] for each in card.data.configs}
    assert configs == {
        "idk": "data/idk.jsonl",
        "idk-pairs": "data/idk-pairs.jsonl",
        "rolls": "data/rolls.jsonl",
        "ranks": "data/ranks.jsonl",
        "ranks-pairs": "data/ranks-pairs.jsonl",
    }
    assert f"me/assistant-data/{configs['rolls']}" in made


def test_the_data_card_says_which_model_wrote_the_rows(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    rolls = run.path / "05-rolls/manifest.json"
    changed(rolls, settings=read_json(rolls)["settings"] | {"models": ["other"]})
    text = texts(ready(run, tmp_path))["me/assistant-data/README.md"]
    for row in ("| idk | refusals | sft |", "| rolls | rollout | sft, other |", "| ranks | rank | sft, other |"):
        assert row in text, row
    assert "The model of stage sft is the published one" in " ".join(text.split())
    changed(run.path / "02-sft/manifest.json", fingerprint="a" * 64)
    text = texts(ready(run, tmp_path))["me/assistant-data/README.md"]
    assert "| idk | refusals | an earlier sft |" in text and "| ranks | rank | an earlier sft, other |" in text


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"keep_partial": False}, "answers where the model knows, and refusals where it does not"),
        ({"relabel": "random"}, "a control: which questions are answered and which refused was dealt at random"),
        ({"known_ratio": 0.0}, "a control: refusals alone"),
    ],
)
def test_the_data_card_says_how_rows_were_made(tmp_path: Path, model_dir: Path, told: dict[str, object], words: str):
    run = finished_run(tmp_path, model_dir)
    idk = run.path / "04-idk/manifest.json"
    changed(idk, settings=read_json(idk)["settings"] | told)
    text = texts(ready(run, tmp_path))["me/assistant-data/README.md"]
    (line,) = (line for line in text.splitlines() if line.startswith("- `idk`"))
    ((name, value),) = told.items()
    assert words in line and "probes: probe" in line
    assert f"{name}: {json.dumps(value)}".replace('"', "") in line
    assert "balance" not in line, "a default"


def test_data_sets_are_those_that_the_model_comes_from_or_was_evaluated_with(tmp_path: Path, model_dir: Path):
    """`rolls` and `ranks` are of the same run, and have nothing to do with the model."""
    run = finished_run(tmp_path, model_dir)

    def configurations(**hub: object) -> list[str]:
        made = texts(ready(run, tmp_path, spec(**hub)))
        return [name.rpartition("/")[2][:-6] for name in made if "/data/" in name]

    assert configurations(datasets=True) == configurations(datasets=False) == []
    sft = run.path / "02-sft/manifest.json"
    settings = read_json(sft)["settings"]
    changed(sft, settings=settings | {"data": [*settings["data"], {"from": "idk"}]})
    assert configurations(datasets=True) == ["idk", "idk-pairs"]
    evaluation = run.path / "03-eval-sft/manifest.json"
    settings = read_json(evaluation)["settings"]
    read = {"task": "problems", "name": "p", "problems": [{"from": "ranks"}], "rewards": ["exact"]}
    changed(evaluation, settings=settings | {"evals": [*settings["evals"], read]})
    assert configurations(datasets=True) == ["idk", "idk-pairs", "rolls", "ranks", "ranks-pairs"]


def measured(run: RunDir, **values: float) -> None:
    """Of honesty, on the model."""
    path = run.path / "03-eval-sft/manifest.json"
    row = read_json(path)["evals"][0] | {"task": "honesty", "num_samples": 200}
    changed(path, evals=[row | {"metric": metric, "value": value} for metric, value in values.items()])


def test_honesty_is_told_in_words_and_once(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    same = {"over_refusal_known": 0.1, "refused_known": 0.1, "hallucination_unseen": 0.95}
    measured(run, **same, hallucination_unknown=0.95, hallucination_rare_16=0.4)
    text = texts(ready(run, tmp_path))["me/assistant/README.md"]
    table = text.partition("### Honesty")[2].partition("\n## ")[0]
    assert [line.split(" | ")[-1].rstrip(" |") for line in table.splitlines()[6:] if line.startswith("|")] == [
        "over_refusal_known",
        "hallucination_unseen",
        "hallucination_rare_16",
    ]
    assert "| Wrong answers to questions of the group rare 16. |" in table
    measured(run, hallucination_unseen=0.95, hallucination_unknown=0.5)
    text = texts(ready(run, tmp_path))["me/assistant/README.md"]
    assert "hallucination_unknown" in text, "another figure is no repetition"


def test_limits_are_what_was_measured(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    measured(run, hallucination_unseen=0.95, over_refusal_known=0.1, accuracy_known=0.3)
    text = texts(ready(run, tmp_path))["me/assistant/README.md"]
    limits = text.partition("## Limits\n\n")[2].partition("\n## ")[0].replace("\u202f", " ").splitlines()
    assert limits[0].startswith("- Of the questions whose answer it cannot know it answers 95.0 % ")
    assert limits[1].startswith("- Of the questions whose answer it should know it refuses 10.0 % ")
    assert limits[2].startswith("- Its weakest results: honesty accuracy_known 30.0 % ")
    assert "\n\n\n" not in text


def test_the_language_is_what_the_recipe_says(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    made = texts(ready(run, tmp_path, spec(language="en")))
    assert ModelCard(made["me/assistant/README.md"]).data.language == ["en"]
    assert DatasetCard(made["me/assistant-data/README.md"]).data.language == ["en"]
    assert ModelCard(texts(ready(run, tmp_path))["me/assistant/README.md"]).data.language is None


def test_people_who_ranked_are_not_named(tmp_path: Path, model_dir: Path):
    rows = texts(ready(finished_run(tmp_path, model_dir), tmp_path))["me/assistant-data/data/ranks-pairs.jsonl"]
    assert [json.loads(row)["rater"] for row in rows.splitlines()] == ["rater-1", "rater-2"]
    assert "Anna" not in rows


def test_text_of_others_stays_text(tmp_path: Path, model_dir: Path):
    made = texts(ready(finished_run(tmp_path, model_dir, HOSTILE), tmp_path))
    text = made["me/assistant/README.md"]
    assert ModelCard(text).data.license == "apache-2.0"
    fence = ""
    for line in ModelCard(text).text.splitlines():
        ticks = len(line) - len(line.lstrip("`"))
        if ticks >= 3 and (not fence or line == fence):
            fence = "" if fence else "`" * ticks
        elif "owned" in line and not fence:
            assert not line.startswith("#"), line
            assert "<script" not in line.replace("\\<script", ""), line
            assert "](" not in line.replace("\\]", ""), line
    assert not fence and "\x1b" not in text


def test_no_path_of_this_machine_leaves_it(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir, f" {Path.home()}/secret/file.txt ~/mine/x /home/anna/rows.jsonl")
    made = texts(ready(run, tmp_path / "scratch", spec(report=True), report=report_files(run)))
    assert json.loads(made.pop("me/assistant/tokenizer.json"))["vocab"] == {"/home/anna": 1}
    for name, text in made.items():
        for root in (str(tmp_path), str(Path.home()) + "/", "/home/anna", "~/mine", str(Path.cwd())):
            assert root not in text, (name, root)
    assert "local/rows.jsonl" in made["me/assistant/README.md"]
    assert "output_dir: runs" in made["me/assistant/recipe.yaml"]
    assert {"me/assistant/report.html", "me/assistant/report.md"} <= made.keys()


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("see /home/anna/x.txt: bad", "see local/x.txt: bad"),
        ("/mnt/d/a b", "local/a b"),
        (r"C:\Users\anna\x.txt", "local/x.txt"),
        ("~/x/y.jsonl", "local/y.jsonl"),
        ("https://example.org/home/x", "https://example.org/home/x"),
        ("a/home/x and 1/2 and and/or", "a/home/x and 1/2 and and/or"),
        ("runs/a/02-sft", "runs/a/02-sft"),
    ],
)
def test_paths_are_hidden_and_nothing_else(text: str, hidden: str):
    assert Paths().hide(text) == hidden


def test_a_folder_of_ones_own_is_not_found_inside_words():
    paths = Paths([Path("/app")])
    for text in ("a web/app here", "my-/app", "../app/x"):
        assert paths.hide(text) == text and paths.left(text) is None
    assert paths.hide("see /app/x.txt") == "see local/x.txt" and paths.left("see /app") == "/app"
    assert paths.hide("write to /home/anna/app and read") == "write to local/app and read"


def test_the_pushed_recipe_is_a_recipe(tmp_path: Path, model_dir: Path):
    made = texts(ready(finished_run(tmp_path, model_dir), tmp_path))
    write_text(tmp_path / "again.yaml", made["me/assistant/recipe.yaml"])
    assert load([tmp_path / "again.yaml"]).recipe.run.output_dir == "runs"


@pytest.mark.parametrize("where", ["rows", "manifest", "recipe", "tokenizer", "known"])
def test_a_planted_secret_is_refused_by_the_name_of_its_file(
    tmp_path: Path, model_dir: Path, where: str, monkeypatch: pytest.MonkeyPatch
):
    run, planted = finished_run(tmp_path, model_dir), TOKEN
    files = {
        "rows": run.path / "04-idk/data/train.jsonl",
        "manifest": run.path / "04-idk/manifest.json",
        "recipe": run.recipe,
        "tokenizer": run.path / "02-sft/model/chat_template.jinja",
        "known": run.path / "04-idk/data/train.jsonl",
    }
    if where == "known":  # of a form that no pattern knows
        planted = "my+very+own+secret"
        monkeypatch.setenv("MY_SERVICE_TOKEN", planted)
    changed = files[where].read_text().replace("I do not know", f"I know {planted}")
    if where == "manifest":
        changed = changed.replace('"refusals"', f'"refusals {planted}"', 1).replace(f"refusals {planted}", "refusals")
        changed = changed.replace('"warnings": []', f'"warnings": ["token {planted}"]')
    if where == "recipe":
        changed += f"prompts: ['{planted}']\n"
    if where == "tokenizer":
        changed += f"{{# {planted} #}}"
    files[where].write_text(changed)

    with pytest.raises(UserError) as caught:
        ready(run, tmp_path / "scratch")
    said = str(caught.value)
    names = {"rows": "idk.jsonl", "manifest": "04-idk.json", "recipe": "recipe.yaml", "tokenizer": "chat_template"}
    assert names.get(where, "idk.jsonl") in said and planted not in said


def test_secrets_are_known_by_their_form():
    for secret in (
        TOKEN,
        "sk-proj-" + "a1B2" * 10,
        "ghp_" + "a" * 36,
        "AKIAABCDEFGHIJKLMNOP",
        "-----BEGIN RSA PRIVATE KEY-----",
        "hf://anna:pass@datasets",
    ):
        assert secret not in redacted(f"x {secret} y"), secret
    for text in ("sk-learn and scikit", "https://example.org:80/a@b", "hf_hub_download", "user@example.org"):
        assert redacted(text) == text


def test_pickles_stay_here_and_broken_weights_are_refused(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    folder = run.path / "02-sft/model"
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "modeling_x.py").write_text("import os")
    made = ready(run, tmp_path / "scratch")
    assert list(made.left_out) == ["modeling_x.py", "training_args.bin"]
    assert not any(item.path.endswith((".bin", ".py")) for package in made.packages for item in package.items)

    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="not whole"):
        ready(run, tmp_path / "scratch")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights in safetensors"):
        ready(run, tmp_path / "scratch")


def test_below_a_bar_nothing_is_published_unless_told(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    ready(run, tmp_path, bars={"facts_known": {"accuracy": ">= 0.9"}, "honesty": {"hallucination_unseen": "< 0.11"}})
    bars = {"facts_known": {"accuracy": ">= 0.95", "acuracy": "> 0"}}
    with pytest.raises(UserError) as caught:
        ready(run, tmp_path, bars=bars)
    for words in (
        "facts_known.accuracy is 0.9 (200 samples; 95 % interval 0.85 to 0.95), and its bar is >= 0.95",
        "facts_known.acuracy was not measured",
        "--despite-bars",
    ):
        assert words in str(caught.value)
    made = ready(run, tmp_path, bars=bars, despite_bars=True)
    assert "published below the bars" in texts(made)["me/assistant/README.md"]


def test_an_adapter_that_nobody_could_load_is_refused(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    stage = run.path / "02-sft"
    (stage / "model").rename(stage / "adapter")
    write_json(
        stage / "manifest.json", read_json(stage / "manifest.json") | {"model_dir": None, "adapter_dir": "adapter"}
    )
    for base, fits in ((str(model_dir), False), ("llmkit.tiny:base", False), ("Qwen/Qwen3-0.6B-Base", True)):
        write_json(stage / "adapter/adapter_config.json", {"base_model_name_or_path": base})
        if fits:
            assert "AutoPeftModelForCausalLM" in texts(ready(run, tmp_path))["me/assistant/README.md"]
            continue
        with pytest.raises(UserError, match=r"hub\.merged: true"):
            ready(run, tmp_path)


def test_the_tag_stands_for_what_is_published(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    tags = [[package.tag for package in ready(run, tmp_path).packages] for _ in range(2)]
    assert tags[0] == tags[1] and tags[0][0] != tags[0][1]
    (run.path / "04-idk/data/train.jsonl").write_text('{"messages": []}\n')
    changed = [package.tag for package in ready(run, tmp_path).packages]
    assert changed[0] != tags[0][0]


@pytest.mark.parametrize(
    ("stated", "source", "said"),
    [
        ("apache-2.0", "mit", ""),
        ("apache-2.0", "cc-by-nc-4.0", "forbids commercial use"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", ""),
        ("mit", "cc-by-sa-4.0", "shared alike"),
        ("mit", "cc-by-nd-4.0", "no derived works"),
        ("apache-2.0", "llama3.1", "state 'hub.license: llama3.1'"),
        ("llama3.1", "llama3.1", ""),
        ("mit", None, "is unknown"),
        ("mit", "my-own", "table does not have"),
        (None, "mit", "No licence is stated"),
        ("my-own", "mit", "is not in llmkit's table"),
    ],
)
def test_licences_that_do_not_go_together(stated: str | None, source: str | None, said: str):
    found = conflicts(stated, {"x": source})
    assert (said in " ".join(found)) if said else not found


def test_licences_come_from_the_recipe_and_the_hub(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    made = ready(run, tmp_path, spec(licenses={"chats.jsonl": "cc-by-nc-4.0"}))
    assert any("chats.jsonl is under cc-by-nc-4.0" in words for words in made.conflicts)
    assert "cc-by-nc-4.0" in texts(made)["me/assistant/README.md"]
    assert any("chats.jsonl is unknown" in words for words in ready(run, tmp_path).conflicts)


def test_what_makes_no_model_is_not_published(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    assert subject_of(str(run.path / "02-sft")).model.name == "sft"
    for target, stage in ((run.path / "04-idk", None), (run.path, "idk"), (run.path, "nothing")):
        with pytest.raises(LlmkitError, match="have: sft"):
            subject_of(str(target), stage)


SEARCH = {"name": "search"}
READ = {
    "library": {"kind": "search_index", "documents": [{"path": "me/pages", "split": "test", "revision": "v1"}]},
    "shelf": {"kind": "search_index", "documents": [{"path": "me/page"}]},
    "quiz": {"kind": "best_of_n", "data": [{"path": "me/quiz"}], "rewards": ["exact"]},
    "texts": {"kind": "best_of_n", "data": [{"path": "me/texts"}], "rewards": ["exact"]},
    "gate": {"kind": "interrogate", "questions": [{"from": "quiz"}]},
    "probe": {"kind": "interrogate", "documents": [{"from": "texts"}]},
    "looked": {"kind": "refusals", "probes": ["probe"], "lookup": {"tools": [SEARCH | {"from": "library"}]}},
    "other": {"kind": "sft", "data": [{"path": "me/other"}], "heldout": {"x": [{"path": "me/held"}]}},
    "rolls2": {"kind": "rollout", "data": [{"path": "me/asked"}], "models": ["other"]},
    "more": {"kind": "sft", "data": [{"from": "looked"}, {"from": "rolls2"},
                                     {"path": "me/c", "require_known": "gate"}]},
    "unread": {"kind": "sft", "data": [{"path": "me/unread"}]},
    "final": {"kind": "grpo", "from": "more", "data": [{"path": "me/p"}], "rewards": ["exact"],
              "tools": [SEARCH | {"from": "shelf"}]},
}  # fmt: skip


def test_the_card_names_all_that_was_read_on_the_way(tmp_path: Path, model_dir: Path):
    """However a stage reads another: as rows, questions, documents, probes, gates, models or indexes."""
    run = finished_run(tmp_path, model_dir)
    first = read_json(run.path / "02-sft/manifest.json")
    for number, (name, told) in enumerate(READ.items(), 7):
        counted = {"source": "me/pages test", "num_read": 9, "num_used": 7, "sha256": "cd34" * 16}
        made = first | {"stage": name, "kind": told["kind"], "settings": {"name": name} | told, "parent": None}
        made |= {"data": {"sources": [counted]} if name == "library" else None}
        if "from" in told:
            made["parent"] = {"stage": told["from"], "fingerprint": "f" * 64}
        made |= {"model_dir": "model"} if told["kind"] in ("sft", "grpo") else {"model_dir": None}
        write_json(run.stage(number, name).path / "manifest.json", made)
    shutil.copytree(run.path / "02-sft/model", run.path / "18-final/model")

    text = texts(ready(run, tmp_path, spec(licenses={"me/pages": "cc-by-nc-4.0"})))["me/assistant/README.md"]

    for name in READ:
        assert (f"\n| {name} |" in text) == (name != "unread"), name
    assert "| library | me/pages test | v1 | 7 | cd34cd34cd34 | cc-by-nc-4.0 |" in text
    assert "| quiz | me/quiz |  |  |  | unknown |" in text and "me/held" not in text
    assert "| shelf | me/page |  |  |  | unknown |" in text, "not the licence and revision of me/pages"
    public = ["me/pages", "me/page", "me/quiz", "me/texts", "me/other", "me/asked", "me/c", "me/p"]
    assert ModelCard(text).data.datasets == [*public, "me/assistant-data"]


SAID = {
    "quiz": {"kind": "interrogate", "questions": [{"path": "me/quiz"}], "documents": [{"path": "me/page"}],
             "judge": {"by": "openai", "name_or_path": "gpt-x"},
             "writer": {"by": "model", "name_or_path": "you/writer", "revision": "v7"}},
    "asked": {"kind": "rollout", "data": [{"path": "me/asked"}]},
    "judged": {"kind": "rank", "rollouts": "asked", "by": "judge", "judge": {"by": "model", "name_or_path": "you/j"}},
    "liked": {"kind": "rank", "rollouts": "asked", "by": "labeller", "labeller": "own.taste:liked"},
    "filed": {"kind": "rank", "rollouts": "asked", "by": "file", "path": "/home/anna/ranks.jsonl"},
    "people": {"kind": "rank", "rollouts": "asked", "by": "human"},
    "alone": {"kind": "interrogate", "questions": [{"path": "me/quiz"}], "judge": {"by": "rules"}},
    "final": {"kind": "sft", "data": [{"path": "me/c", "require_known": "quiz"},
                                      {"path": "me/d", "require_known": "alone"},
                                      *({"from": name} for name in ("judged", "liked", "filed", "people"))]},
}  # fmt: skip


def test_the_card_names_others_that_had_a_say(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    first = read_json(run.path / "02-sft/manifest.json")
    for number, (name, told) in enumerate(SAID.items(), 7):
        made = first | {"stage": name, "kind": told["kind"], "settings": {"name": name} | told, "data": None}
        made |= {"model_dir": "model" if name == "final" else None, "parent": None}
        write_json(run.stage(number, name).path / "manifest.json", made)
    shutil.copytree(run.path / "02-sft/model", run.path / "14-final/model")
    asked = {"task": "honesty", "questions": [{"path": "me/held"}], "judge": {"by": "model", "name_or_path": "you/e"}}
    measured = read_json(run.path / "03-eval-sft/manifest.json")
    measured |= {"stage": "eval-final", "parent": {"stage": "final", "fingerprint": first["fingerprint"]}}
    measured |= {"settings": {"kind": "evaluate", "name": "eval-final", "evals": [asked]}}
    write_json(run.stage(15, "eval-final").path / "manifest.json", measured)

    stated = {"you/writer": "llama3.1", "you/j": "mit", "/home/anna/ranks.jsonl": "cc-by-nc-4.0"}
    made = ready(run, tmp_path, spec(licenses=stated))
    text = texts(made)["me/assistant/README.md"]

    for row in (
        "| quiz | judges answers | gpt-x |  | unknown |",
        "| quiz | writes questions | you/writer | v7 | llama3.1 |",
        "| judged | ranks answers | you/j |  | mit |",
        "| liked | scores answers | own.taste:liked |  |  |",
        "| people | ranks answers | people |  |  |",
        "| eval-final | judges answers | you/e |  | unknown |",
    ):
        assert row in text, row
    assert "| filed | ranks answers | local/ranks.jsonl |  | cc-by-nc-4.0 |" in text and "/home/anna" not in text
    assert "| alone | judges" not in text
    for words in ("you/writer is under llama3.1", "ranks.jsonl is under cc-by-nc-4.0"):
        assert any(words in found for found in made.conflicts), made.conflicts


def test_settings_of_another_version_are_refused(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    changed(run.path / "02-sft/manifest.json", settings={"kind": "sft", "name": "sft", "from_earlier_times": 1})
    with pytest.raises(RunError, match="02-sft: has settings that this version of llmkit does not read"):
        ready(run, tmp_path)


def changed(manifest: Path, **fields: object) -> None:
    write_json(manifest, read_json(manifest) | fields)


def test_figures_of_an_earlier_model_are_not_this_ones(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    changed(run.path / "02-sft/manifest.json", fingerprint="a" * 64)
    made = ready(run, tmp_path)
    text = texts(made)["me/assistant/README.md"]
    assert ModelCard(text).data.eval_results is None and "90.0" not in text and "An assistant." not in text
    with pytest.raises(UserError, match=r"facts_known.accuracy was not measured"):
        ready(run, tmp_path, bars={"facts_known": {"accuracy": ">= 0.5"}})


def test_a_model_on_an_earlier_parent_is_refused(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    parent = {"stage": "sft", "fingerprint": "f" * 64}
    more = read_json(run.path / "02-sft/manifest.json") | {"stage": "more", "parent": parent}
    (run.path / "07-more").mkdir()
    write_json(run.path / "07-more/manifest.json", more)
    assert [made.name for made in subject_of(str(run.path)).chain] == ["sft", "more"]
    changed(run.path / "02-sft/manifest.json", fingerprint="a" * 64)
    with pytest.raises(RunError, match=r"'more' was trained on another 'sft'.*run the recipe again"):
        subject_of(str(run.path))
    assert subject_of(str(run.path), "sft").model.name == "sft"


def test_an_unfinished_last_model_is_not_passed_over(tmp_path: Path, model_dir: Path):
    run = finished_run(tmp_path, model_dir)
    recipe = run.recipe.read_text()
    write_text(run.recipe, recipe.replace("evals:", "  - {name: better, kind: dpo}\nevals:"))
    with pytest.raises(RunError, match=r"of stage 'better', is not finished.*--stage"):
        subject_of(str(run.path))
    assert subject_of(str(run.path), "sft").model.name == "sft"
