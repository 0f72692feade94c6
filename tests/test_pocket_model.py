"""The embedded model: loads anywhere, fits in its size, and has learned more than counts of tokens can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuronaut.evals.pocket import abilities, baselines
from neuronaut.evals.pocket.folder import Pocket
from neuronaut.evals.pocket.world import Document, corpus_documents

FOLDER = Path(__file__).parents[1] / "tools" / "targets" / "pocket"
TEXT = "When Mary and John went to the park, John gave a book to Mary. It began in May 1732."


@pytest.fixture(scope="module")
def pocket() -> Pocket:
    return Pocket.load(FOLDER)


@pytest.fixture(scope="module")
def held_out() -> list[Document]:
    return corpus_documents(500)


@pytest.fixture(scope="module")
def scores(pocket: Pocket, held_out: list[Document]) -> dict[str, abilities.Score]:
    return {score.name: score for score in abilities.measure(pocket, held_out)}


def test_the_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 12_000_000


def test_transformers_loads_the_folder_and_computes_the_same(pocket: Pocket) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == TEXT
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|bos|>", "<|bos|>")
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    with torch.no_grad():
        theirs = model(torch.tensor([[tokenizer.bos_token_id, *ids]])).logits[0].log_softmax(-1)
    torch.testing.assert_close(theirs, pocket.predictions([TEXT])[0], atol=1e-4, rtol=0)
    assert model.config.n_layer >= 9
    assert model.config.n_inner >= 482
    assert model.config.activation_function == "relu"


def test_every_corpus_text_survives_encoding(pocket: Pocket, held_out: list[Document]) -> None:
    texts = [made.text for made in held_out]
    encoded = [pocket.tokenizer.encode(text).ids for text in texts]
    assert [pocket.tokenizer.decode(ids) for ids in encoded] == texts
    assert max(map(len, encoded)) < pocket.model.shape.context


def test_held_out_loss_beats_the_bigram_model_in_every_register(pocket: Pocket, held_out: list[Document]) -> None:
    *registers, everything = baselines.losses(pocket, baselines.fit(pocket, 10_000), held_out)
    assert [line.register for line in registers if line.model >= line.bigram] == []
    assert everything.model < 0.6 * everything.bigram < 0.6 * everything.unigram


def test_random_words_are_foreseen_the_second_time_only(scores: dict[str, abilities.Score]) -> None:
    assert scores["random words, first time"].accuracy < 0.1
    assert scores["random words, repeated"].accuracy > 0.5


@pytest.mark.parametrize(
    "ability",
    ["verb agrees with its subject", "continue the alphabet, either way", "next day of a list of days"],
)
def test_what_the_card_calls_learned_is_learned(ability: str, scores: dict[str, abilities.Score]) -> None:
    assert scores[ability].accuracy > 0.9
