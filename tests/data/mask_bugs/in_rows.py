"""Bugs of the rows: ids, masks, labels, truncation."""

import numpy as np

from llmkit.chat.render import render
from llmkit.chat.rows import IGNORED
from mask_bugs.cases import TALK, case, fly, good_row, ready, row, texts


def _masks(change) -> list[str]:  # type: ignore[no-untyped-def]
    """Preflight of a good row and one whose mask is changed: change(ids, masks) -> masks."""
    tokenizer = ready()
    bad = good_row(tokenizer)
    bad["assistant_masks"] = list(map(int, change(np.array(bad["input_ids"]), np.array(bad["assistant_masks"]))))
    return texts(lambda: fly([good_row(tokenizer), bad], tokenizer))


@case("trl#4201", "trl#1550", "marin#7237", "nanochat#603", "nanochat#834", expected="row 1: no token of it is trained")
def all_zero_mask() -> list[str]:
    return _masks(lambda ids, masks: 0 * masks)


@case("Megatron-Bridge#3359", "nanochat#570", "nanochat#582", expected="row 1: every token is trained")
def all_ones_mask() -> list[str]:
    return _masks(lambda ids, masks: 0 * masks + 1)


@case("verl#3562", expected="does not end with the trained stop token <|im_end|>")
def shift_drops_the_loss_on_the_stop_token() -> list[str]:
    return _masks(lambda ids, masks: masks & np.append(masks[1:], 0))


@case("OpenRLHF#973", expected="do not begin right behind the generation prompt")
def first_token_of_the_answer_has_no_loss() -> list[str]:
    return _masks(lambda ids, masks: masks & np.insert(masks[:-1], 0, 0))


@case("axolotl#2287", expected="does not end with the trained stop token <|im_end|>")
def last_stop_token_is_not_in_the_labels() -> list[str]:
    last = lambda masks: np.flatnonzero(masks)[-1]  # noqa: E731
    return _masks(lambda ids, masks: np.where(np.arange(len(masks)) == last(masks), 0, masks))


@case("trl#1184", expected="training goes on behind the stop token <|im_end|>")
def search_misses_the_second_user_turn() -> list[str]:
    between = lambda masks: slice(np.flatnonzero(masks)[0], np.flatnonzero(masks)[-1] + 1)  # noqa: E731

    def change(ids: np.ndarray, masks: np.ndarray) -> np.ndarray:
        masks[between(masks)] = 1
        return masks

    return _masks(change)


@case("trl#6357", "alignment-handbook#127", expected="does not end with the trained stop token <|im_end|>")
def collator_masks_padding_which_is_the_stop_token() -> list[str]:
    tokenizer = ready()
    ids, masks = (np.array(good_row(tokenizer)[key]) for key in ("input_ids", "assistant_masks"))
    labels = np.where((masks == 1) & (ids != tokenizer.convert_tokens_to_ids("<|im_end|>")), ids, IGNORED)
    return texts(lambda: fly([{"input_ids": ids, "labels": labels}], tokenizer))


@case("verl#3562", expected="a label differs from the token at its place")
def labels_are_shifted() -> list[str]:
    tokenizer = ready()
    ids, masks = (np.array(good_row(tokenizer)[key]) for key in ("input_ids", "assistant_masks"))
    labels = np.where(masks == 1, np.append(ids[1:], 0), IGNORED)
    return texts(lambda: fly([{"input_ids": ids, "labels": labels}], tokenizer))


@case("transformers#34494", "trl#6320", expected="it was cut before its first trained token")
def truncation_leaves_nothing_to_train() -> list[str]:
    tokenizer = ready()
    rendered = render(tokenizer, TALK)
    cut = {"input_ids": rendered.input_ids[:10], "assistant_masks": rendered.assistant_masks[:10]}
    return texts(lambda: fly([cut], tokenizer, num_truncated=1, max_truncated=1.0, max_length=10))


@case("trl#2400", "unsloth#2669", expected="1 of 2 rows (50.0%) are cut to max_length")
def truncation_is_silent() -> list[str]:
    tokenizer = ready()
    cut = {key: values[:-2] for key, values in good_row(tokenizer).items()}
    rows = [good_row(tokenizer), {**cut, "truncated": True}]
    return texts(lambda: fly(rows, tokenizer, num_truncated=1, max_truncated=0.05))


@case("trl#1623", expected="does not end with the trained stop token <|im_end|>")
def answer_was_cut_by_someone_else() -> list[str]:
    tokenizer = ready()
    cut = {key: values[:-2] for key, values in good_row(tokenizer).items()}
    return texts(lambda: fly([cut], tokenizer))


@case("alignment-handbook#127", expected="begins with two BOS tokens")
def rendered_text_is_tokenised_with_special_tokens_again() -> list[str]:
    from mask_bugs.toys import bos_tokenizer

    tokenizer = ready(tokenizer=bos_tokenizer())
    good = good_row(tokenizer)
    bad = {"input_ids": [tokenizer.bos_token_id, *good["input_ids"]], "assistant_masks": [0, *good["assistant_masks"]]}
    return texts(lambda: fly([bad], tokenizer))


@case("open-r1#603", expected="a padding token is trained")
def padding_is_trained() -> list[str]:
    tokenizer = ready()
    good = good_row(tokenizer)
    bad = {
        key: [*values, value] for (key, values), value in zip(good.items(), (tokenizer.pad_token_id, 1), strict=True)
    }
    return texts(lambda: fly([bad], tokenizer))


@case("verl#5316", expected="no token of it is trained")
def every_turn_is_marked_train_false() -> list[str]:
    tokenizer = ready()
    talk = [{**message, "train": False} if message["role"] == "assistant" else message for message in TALK]
    return texts(lambda: fly([row(render(tokenizer, talk))], tokenizer))
