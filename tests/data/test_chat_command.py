"""`llmkit chat` with a tiny random model."""

import io
import sys
from dataclasses import replace
from importlib.util import find_spec, module_from_spec
from pathlib import Path

import numpy as np
import pytest
from helpers_script import script
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit.artifacts.manifest import Manifest, write_manifest
from llmkit.chat.template import apply_template, load_template
from llmkit.errors import DataError, RunError, UserError
from llmkit.generation.conversation import Conversation, Settings
from llmkit.generation.decode import Row
from llmkit.stages import best_said
from llmkit.stages.chat import main
from llmkit.stages.named import model_of
from llmkit.stages.saying import say
from llmkit.stages.screen import Screen, printable


@pytest.fixture(scope="module")
def chat_dir(model_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    apply_template(tokenizer, load_template("chatml"))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def conversation(chat_dir) -> Conversation:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(chat_dir), AutoTokenizer.from_pretrained(chat_dir)
    return Conversation(model, tokenizer, Settings(max_new_tokens=8))


def typed(monkeypatch, *lines: str) -> None:
    answers = iter(lines)

    def read(_: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)


def test_history_is_what_the_next_turn_sees(conversation, monkeypatch):
    conversation.tokenizer.eos_token = "<|im_end|>"
    seen = script(monkeypatch, conversation.tokenizer, lambda prompt: "fine")
    conversation.system = "Be brief."
    assert "".join(conversation.ask("Hello")) == "fine"
    assert "".join(conversation.ask("And you?")) == "fine"
    assert "Be brief." in seen[1] and "Hello" in seen[1] and "fine<|im_end|>" in seen[1]
    assert seen[1].endswith("And you?<|im_end|>\n<|im_start|>assistant\n")
    conversation.reset()
    list(conversation.ask("Again"))
    assert "Hello" not in seen[2] and "Be brief." in seen[2]


def test_the_oldest_turns_are_dropped_with_a_notice(conversation):
    noticed: list[str] = []
    conversation.notify = noticed.append
    for _ in range(4):
        list(conversation.ask("Person 3 lives in town 8. " * 12))
        assert conversation.turns[0]["role"] == "user"
    assert noticed and "the oldest 2 messages are forgotten" in noticed[0]
    with pytest.raises(DataError, match=r"your message: has .* tokens"):
        list(conversation.ask("town " * 600))
    assert conversation.turns[-1]["role"] == "assistant"  # the refused message is not in the history


def test_ctrl_c_keeps_what_was_written(conversation, monkeypatch, capsys):
    def stream(model, tokenizer, ids, **_):
        yield Row(0, ids, np.zeros(0), 9, tokenizer("It is").input_ids)
        raise KeyboardInterrupt

    monkeypatch.setattr("llmkit.generation.conversation.stream_row", stream)
    say(conversation, "What is 2 plus 3?", Screen(Console()))
    assert capsys.readouterr().out == "It is [stopped]\n"
    assert conversation.turns[-1] == {"role": "assistant", "content": "It is"}


def test_commands(chat_dir, monkeypatch, capsys):
    lines = [
        "/set temperature=0.7",
        "/set",
        "/set top_p=7",
        "/set warmth=1",
        "/sytem x",
        "/raw",
        "Person",
        "/help",
        "/exit",
    ]
    typed(monkeypatch, *lines)
    assert main([str(chat_dir), "--max-new-tokens", "4"]) == 0
    out = capsys.readouterr().out
    assert "temperature=0.7" in out
    assert "top_p: is 7.0; give a number above 0 and at most 1" in out
    assert "warmth: is no setting" in out
    assert "/sytem: is no command; did you mean /system?" in out
    assert "raw: the model goes on from your text" in out
    assert "forget the conversation" in out


def test_a_base_model_is_prompted_raw_and_says_so(model_dir, monkeypatch, capsys):
    typed(monkeypatch, "Person 3 lives", "/raw")
    assert main([str(model_dir), "--max-new-tokens", "4"]) == 0
    out = capsys.readouterr().out
    assert "this model has no chat template" in out
    assert "raw text is all it takes" in out


def test_one_prompt_prints_the_answer_alone(chat_dir, capsys):
    words = [str(chat_dir), "--prompt", "Hello", "--max-new-tokens", "6"]
    assert main([*words, "--temperature", "1", "--seed", "5"]) == 0
    first = capsys.readouterr()
    assert first.out.count("\n") >= 1 and "lists the commands" not in first.out
    assert main([*words, "--temperature", "1", "--seed", "5"]) == 0
    assert capsys.readouterr().out == first.out
    outputs = set()
    for seed in range(4):
        main([*words, "--temperature", "1", "--seed", str(seed)])
        outputs.add(capsys.readouterr().out)
    assert len(outputs) > 1


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_bytes_that_are_no_text_end_nothing(chat_dir, monkeypatch, capsys, errors):
    given = io.TextIOWrapper(io.BytesIO(b"hi \xff\n/system \xc3\nhello\n/sytem\n"), encoding="utf-8", errors=errors)
    monkeypatch.setattr(sys, "stdin", given)
    assert main([str(chat_dir), "--max-new-tokens", "4"]) == 0
    assert "/sytem: is no command" in capsys.readouterr().out
    words = [str(chat_dir), "--max-new-tokens", "4", "--prompt", "hi \udcff", "--system", "Be \udcff."]
    assert main(words) == 0


class LikesLength:
    """Stands for a reward model."""


def test_the_best_of_several_answers_is_said_and_kept(conversation, monkeypatch, capsys):
    seen = []

    def scores(models, prompts, texts):
        seen.append((prompts, texts))
        return np.array([[float(len(text))] for text in texts])

    monkeypatch.setattr(best_said, "score_texts", scores)
    best, screen = best_said.BestOf(6, LikesLength()), Screen(Console(file=io.StringIO()))
    with pytest.raises(UserError, match="temperature is 0"):
        best.say(conversation, "What is 1 plus 3?", screen)
    conversation.settings = replace(conversation.settings, temperature=1.5, max_new_tokens=12)
    best.say(conversation, "What is 1 plus 3?", screen)
    ((prompts, texts),) = seen
    assert prompts == [[{"role": "user", "content": "What is 1 plus 3?"}]] * 6
    assert len(set(texts)) > 1
    assert conversation.turns[-1]["content"] == max(texts, key=len)
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"]
    assert capsys.readouterr().out.strip() == printable(max(texts, key=len)).strip()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--best-of", "4"], "--reward-model: is missing"),
        (["--reward-model", "x"], "--best-of: is missing"),
        (["--best-of", "1", "--reward-model", "x"], "--best-of: is 1"),
        (["--best-of", "4", "--reward-model", "x", "--raw"], "has no place beside --raw"),
        (["--best-of", "4", "--reward-model", "x"], "holds no reward model"),
    ],
)
def test_options_of_the_best_answer_that_do_not_fit(chat_dir, capsys, words, said):
    assert main([str(chat_dir), "--prompt", "Hello", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_the_model_writes_cannot_steer_the_terminal():
    assert printable("a\x1b[2J\x07b\x9b31mc\r\n\td\u202ee") == "a[2Jb31mc\n\tde"


def test_recommended_sampling_is_used_and_bad_settings_refused(conversation):
    config = conversation.model.generation_config
    config.do_sample, config.temperature, config.top_k = True, 0.6, 20
    assert Settings.of_model(conversation.model) == Settings(temperature=0.6, top_k=20)
    config.temperature = None
    assert Settings.of_model(conversation.model) == Settings(temperature=1.0, top_k=20)
    for assignment in ("temperature=-1", "top_k=abc", "max_new_tokens=0"):
        with pytest.raises(UserError):
            Settings().changed(assignment)


def stage_of(run: Path, number: int, name: str, model_dir: str | None, kind: str | None = None) -> Path:
    folder = run / f"{number:02d}-{name}"
    folder.mkdir(parents=True)
    kind = kind or ("sft" if model_dir else "evaluate")
    (folder / "stage.json").write_text("{}")
    write_manifest(folder, Manifest(stage=name, kind=kind, fingerprint="x", model_dir=model_dir))
    return folder


def test_targets(tmp_path):
    run = tmp_path / "run"
    cpt = stage_of(run, 1, "cpt", "model")
    sft = stage_of(run, 2, "sft", "model")
    evaluation = stage_of(run, 3, "eval-sft", None)
    control = stage_of(run, 4, "control-shuffled", "model")
    reward = stage_of(run, 5, "rm", "model", "reward")
    (run / "recipe.yaml").write_text("")
    assert model_of(str(run), None) == (str(sft / "model"), None)
    assert model_of(str(run), "cpt") == (str(cpt / "model"), None)
    assert model_of(str(run), "control-shuffled") == (str(control / "model"), None)
    assert model_of(str(cpt), None) == (str(cpt / "model"), None)
    assert model_of("Qwen/Qwen3-0.6B", None) == ("Qwen/Qwen3-0.6B", None)
    with pytest.raises(RunError, match="no finished stage 'rlhf'; have cpt, sft, control-shuffled"):
        model_of(str(run), "rlhf")
    scores = "stage 'rm' made a reward model, which scores answers and writes none"
    for folder, words in ((evaluation, "'eval-sft' is of kind 'evaluate', which makes no model"), (reward, scores)):
        for target in ((str(folder), None), (str(run), folder.name[3:])):
            with pytest.raises(RunError, match=words):
                model_of(*target)
    (sft / "manifest.json").unlink()
    with pytest.raises(RunError, match="this stage has not finished"):
        model_of(str(sft), None)


def test_a_missing_model_is_one_line_and_exit_code_2(capsys):
    assert main(["./nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: ./nowhere: no such model folder")


def test_without_readline_it_reads_all_the_same(monkeypatch):
    """Windows has none; what only readline understands is not printed then."""
    spec = find_spec("llmkit.stages.chat")
    monkeypatch.setitem(sys.modules, "readline", None)
    chat = module_from_spec(spec)
    spec.loader.exec_module(chat)
    monkeypatch.setattr(chat, "find_spec", lambda _: None)
    shown = []
    monkeypatch.setattr("builtins.input", lambda prompt: shown.append(prompt) or "Hello")
    assert chat._reader(True)() == chat._reader(False)() == "Hello"
    assert shown == ["\x1b[1;36m> \x1b[0m", ""]
