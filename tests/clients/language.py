"""Tiny transformers of real architectures and a language that they learn in some tens of steps."""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn

import lognet

VOCABULARY, LENGTH, MASK = 64, 16, 1


def gpt2() -> nn.Module:
    """Linear layers that are `Conv1D`s, the output tied to the embedding."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def bert() -> nn.Module:
    """An encoder; the decoder of the masked-token head is tied, weight and bias."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertForMaskedLM(config)


def t5() -> nn.Module:
    """Encoder and decoder, one embedding under four names, relative positions."""
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0,
        dropout_rate=0.0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


MODELS = {"gpt2": gpt2, "bert": bert, "t5": t5}


def make(kind: str, bits: int | None, seed: int = 0) -> nn.Module:
    """A model with the same weights whenever the seed is the same, wrapped where `bits` says so."""
    torch.manual_seed(seed)
    model = MODELS[kind]()
    return model if bits is None else lognet.wrap(model, bits=bits)


def sentences(count: int, seed: int = 0) -> Tensor:
    """(count, LENGTH) token ids: each token has one successor, so a sentence follows from its first token."""
    rules, draws = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    successor = torch.randint(2, VOCABULARY, (VOCABULARY,), generator=rules)
    tokens = [torch.randint(2, VOCABULARY, (count,), generator=draws)]
    for _ in range(LENGTH - 1):
        tokens.append(successor[tokens[-1]])
    return torch.stack(tokens, dim=1)


def task(kind: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs and labels of a model's own task: the next token, the masked token, the sentence backwards."""
    ids = sentences(count, seed)
    if kind == "gpt2":
        return {"input_ids": ids, "labels": ids}
    if kind == "t5":
        return {"input_ids": ids, "labels": ids.flip(1)}
    hidden = torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed + 1)) < 0.3
    return {"input_ids": ids.masked_fill(hidden, MASK), "labels": ids.masked_fill(~hidden, -100)}


def samples(kind: str, count: int) -> list[dict[str, Tensor]]:
    """The task as a data set of single samples."""
    columns = task(kind, count)
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]
