"""The best of several answers by a reward model, in `llmkit chat`. None streams: which is best is known at the end."""

from __future__ import annotations

import argparse
from pathlib import Path

from llmkit.chat.turn import Turn
from llmkit.errors import UserError
from llmkit.generation.conversation import Conversation
from llmkit.modeling.reward_model import CARD, RewardModels, load_rewards
from llmkit.recipe.preference import best_of_n_kl
from llmkit.stages.preferring import open_folder, score_texts
from llmkit.stages.screen import Screen


def best_of(args: argparse.Namespace, conversation: Conversation) -> BestOf | None:
    """What both options say; None without them. Raises UserError where they do not fit the rest."""
    if args.best_of is None and args.reward_model is None:
        return None
    if args.best_of is None or args.reward_model is None:
        missing = "--best-of" if args.best_of is None else "--reward-model"
        raise UserError(missing, "is missing", "give both: --best-of 4 --reward-model runs/jokes/08-rm")
    if args.best_of < 2:
        raise UserError("--best-of", f"is {args.best_of}", "give 2 or more")
    if conversation.raw or args.tool or args.tools:
        what = "has no place beside --raw, --tool and --tools: a reward model reads one turn of a conversation"
        raise UserError("--best-of", what, "leave one of them out")
    folder = Path(args.reward_model).expanduser()
    model = folder if (folder / CARD).is_file() else open_folder(folder)
    return BestOf(args.best_of, load_rewards(model, device=conversation.model.device))


class BestOf:
    """Says the best of `num` answers, by the mean score of the reward model's members."""

    def __init__(self, num: int, models: RewardModels) -> None:
        self.num, self._models = num, models

    def say(self, conversation: Conversation, text: str, screen: Screen) -> None:
        """One message and its answer; Ctrl-C leaves the message out. Raises UserError where all would be the same."""
        if not conversation.settings.temperature:
            raise UserError("--best-of", "needs sampled answers, and temperature is 0", "/set temperature=1")
        before, prompt = list(conversation.turns), conversation.begin(text)
        try:
            turns = conversation.several(prompt, self.num)
        except KeyboardInterrupt:
            conversation.turns = before
            screen.end(stopped=True)
            return
        texts = [turn.content for turn in turns]
        scores_N = score_texts(self._models, [prompt] * self.num, texts).mean(1)
        best: Turn = turns[int(scores_N.argmax())]
        conversation.turns.append(best.message())
        screen.piece(best.content, 0)
        screen.end()
        told = f"best of {self.num}: score {scores_N.max():.2f}, mean {scores_N.mean():.2f}"
        screen.say(f"{told}; at most {best_of_n_kl(self.num):.2f} nats from a single answer")
