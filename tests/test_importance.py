"""What a prompt's answer rests on, measured a second way."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.importance import ImportanceArgs, _estimates, _prompted, importance
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import Edit, Site
from neuronaut.tools.targets.load import load_target

made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))

PROMPT = "the cat sat on the mat and"


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma2"])
def context(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ToolContext:
    folder: Path = tmp_path_factory.mktemp(request.param)
    target = load_target(str(made["make_model"](request.param, folder / "model")))
    return ToolContext(target, load_corpus(made["make_corpus"](folder / "texts.jsonl")))


def test_the_drop_of_a_part_is_that_of_a_plain_run_with_other_texts_activation(context: ToolContext) -> None:
    args = ImportanceArgs(prompt=PROMPT, answer=" the dog", n_texts=4)
    prompted, target = _prompted(context, args), context.target
    n_pos = prompted.ids.shape[1]
    whole = torch.cat([prompted.ids, torch.tensor([prompted.answer[:-1]], dtype=torch.long)], dim=1)

    def said(edits: list[Edit]) -> float:
        logits = target.run(whole, edits=edits, logits=True).logits
        assert logits is not None
        found = torch.log_softmax(logits[0].double(), dim=-1)
        return sum(float(found[n_pos - 1 + i, token]) for i, token in enumerate(prompted.answer))

    for site, index in [(Site("heads", 1), 2), (Site("mlp_out", 0), None), (Site("neurons", 2), 7)]:
        (found,) = prompted.drops([(site, index)], prompted.others)
        for text, drop in zip(prompted.others, found, strict=True):
            other = target.run(text[None], read=[site]).read[site]
            other = other if index is None else other[:, :, index]
            filled = torch.zeros(1, whole.shape[1], *other.shape[2:])
            filled[:, :n_pos] = other
            at = torch.arange(whole.shape[1])[None] < n_pos
            expected = said([]) - said([Edit(site, "set", filled, index=index, positions=at)])
            assert drop == pytest.approx(expected, abs=1e-4)


def test_the_estimate_of_a_neuron_is_the_slope_towards_its_mean_elsewhere(context: ToolContext) -> None:
    prompted, target = _prompted(context, ImportanceArgs(prompt=PROMPT, n_texts=4)), context.target
    estimates, site = _estimates(prompted), Site("neurons", 1)
    mean = target.run(prompted.choosing, read=[site]).read[site].mean(dim=0)
    own = target.run(prompted.ids, read=[site]).read[site][0]
    steepest = int(np.abs(estimates[1]).argmax())
    step = 1e-2
    moved = [
        Edit(site, "set", (own + sign * step * (mean - own))[None, :, steepest], index=steepest) for sign in (1, -1)
    ]
    forth, back = prompted.log_probs(moved)
    assert estimates[1, steepest] == pytest.approx(-(forth - back) / (2 * step), rel=0.05, abs=1e-4)


def test_the_parts_come_in_order_and_are_all_of_them(context: ToolContext) -> None:
    spec = context.target.spec
    found = importance(context, ImportanceArgs(prompt=PROMPT, n_texts=4, k=1000)).payload
    assert found["of"] == len(found["parts"]) == spec.n_layers * (spec.n_heads + 1)
    prompted = _prompted(context, ImportanceArgs(prompt=PROMPT, n_texts=4))
    heads = [(Site("heads", layer), head) for layer in range(spec.n_layers) for head in range(spec.n_heads)]
    by_name = dict(
        zip([f"L{site.layer}H{head}" for site, head in heads], prompted.drops(heads, prompted.choosing), strict=True)
    )
    named = [part["part"] for part in found["parts"] if part["part"] in by_name]
    assert named == sorted(by_name, key=lambda name: -abs(by_name[name].mean()))
    assert not set(map(tuple, prompted.choosing.tolist())) & set(map(tuple, prompted.others.tolist()))
    neurons = importance(context, ImportanceArgs(prompt=PROMPT, parts="neurons", n_texts=4)).payload
    assert neurons["of"] == spec.n_layers * spec.d_mlp
    assert neurons["log_prob"] == found["log_prob"]


def test_a_prompt_longer_than_the_texts_is_refused(context: ToolContext) -> None:
    with pytest.raises(ToolRefused, match="give a shorter prompt"):
        importance(context, ImportanceArgs(prompt="the " * 21, n_texts=200))


def test_an_answer_without_its_space_is_the_likelier_of_both(context: ToolContext) -> None:
    pieces = context.target.vocabulary.pieces
    word = next(piece[1:] for piece in pieces if piece[:1] == " " and piece[1:] in pieces and piece[1:].isalpha())
    ids, said = _prompted(context, ImportanceArgs(prompt=PROMPT, answer=word, n_texts=4)), {}
    for written in (word, f" {word}"):
        logits = context.target.run(ids.ids, logits=True).logits
        assert logits is not None
        said[written] = float(logits[0, -1, pieces.index(written)])
    assert pieces[ids.answer[0]] == max(said, key=lambda written: said[written])


def test_text_that_the_tokens_cannot_spell_is_refused(context: ToolContext) -> None:
    if context.target.tokenize(["日"]).ids.size and "日" in context.target.decode(
        [int(i) for i in context.target.tokenize(["日"]).ids[0] if i >= 0]
    ):
        assert importance(context, ImportanceArgs(prompt=f"{PROMPT} 日", n_texts=4)).payload["of"]
    else:
        with pytest.raises(ToolRefused, match="which lack '日'"):
            importance(context, ImportanceArgs(prompt=f"{PROMPT} 日", n_texts=4))
