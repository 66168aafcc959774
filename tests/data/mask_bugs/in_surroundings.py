"""Bugs of what stands around the rows: padding, generation config, adapters, the template of the input model."""

from llmkit.chat.template import load_template
from mask_bugs.cases import case, fly, good_row, ready, texts
from mask_bugs.toys import byte_tokenizer


@case("open-r1#494", "open-r1#603", "alignment-handbook#127", expected="<|endoftext|> is both padding and end")
def padding_is_eos() -> list[str]:
    tokenizer = ready(tokenizer=byte_tokenizer(pad_token="<|endoftext|>"))
    return texts(lambda: fly([good_row(tokenizer)], tokenizer))


@case("trl#6357", expected="<|im_end|> is both padding and end")
def padding_is_the_stop_token() -> list[str]:
    tokenizer = ready(tokenizer=byte_tokenizer(pad_token="<|im_end|>"))
    return texts(lambda: fly([good_row(tokenizer)], tokenizer))


@case("trl#1623", expected="it has no padding token")
def no_padding_so_the_trainer_takes_eos() -> list[str]:
    tokenizer = ready(tokenizer=byte_tokenizer(pad_token=""))
    return texts(lambda: fly([good_row(tokenizer)], tokenizer))


@case("open-r1#663", "LlamaFactory#2884", "LlamaFactory#6043", expected="does not hold the stop token <|im_end|>")
def generation_config_keeps_the_base_models_eos() -> list[str]:
    tokenizer = ready()
    return texts(lambda: fly([good_row(tokenizer)], tokenizer, generation_eos_ids=(tokenizer.eos_token_id,)))


@case("transformers#48016", expected="it holds the padding token <|pad|>")
def padding_is_in_the_generation_eos_list() -> list[str]:
    tokenizer = ready()
    ends = (tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.pad_token_id)
    return texts(lambda: fly([good_row(tokenizer)], tokenizer, generation_eos_ids=ends))


@case("LlamaFactory#7943", expected="<|im_start|> <|im_end|> stay as the base model has them")
def adapter_on_a_base_model_leaves_template_tokens_untrained() -> list[str]:
    tokenizer = ready()
    return texts(lambda: fly([good_row(tokenizer)], tokenizer, trainable_token_ids=()))


@case("LlamaFactory#7943", expected="<|im_end|> stay as the base model has them")
def adapter_trains_one_token_of_two() -> list[str]:
    tokenizer = ready()
    start, stop = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    sha = load_template("chatml").sha256
    changes = {"new_token_ids": (start, stop), "trainable_token_ids": (start,), "parent_template_sha": sha}
    return texts(lambda: fly([good_row(tokenizer)], tokenizer, **changes))


@case("LlamaFactory#2509", "ollama#8363", expected="is not the one the input model knows")
def template_differs_from_the_input_models() -> list[str]:
    tokenizer = ready("chatml_sep")
    return texts(lambda: fly([good_row(tokenizer)], tokenizer, parent_template_sha=load_template("chatml").sha256))


@case("trl setup_chat_format", expected="rows for a tokenizer of")
def embedding_was_not_resized() -> list[str]:
    tokenizer = ready()
    return texts(lambda: fly([good_row(tokenizer)], tokenizer, embedding_rows=len(tokenizer) - 1))
