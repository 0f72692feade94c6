"""Local judges agree with the same sums done by transformers alone, on a small random model."""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from neuronaut.agent.scores.base import Case, Explanation, Replies
from neuronaut.agent.scores.local import N2G, Embedding, Intervention, Simulation, Surprisal, Transluce
from neuronaut.agent.scores.simulated import simulation_number
from neuronaut.prompts import render
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.arithmetic import estimate
from neuronaut.tools.learn.items import choose_items
from neuronaut.tools.learn.judge import GAP, UNKNOWN, Judge, cosines
from neuronaut.tools.learn.pushed import KL, WRITTEN, prompts_of, pushed_texts
from neuronaut.tools.learn.subject import Subject
from neuronaut.tools.learn.windows import Window, windows_of
from neuronaut.tools.look.reads import FiringRule
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tokens import tokens_from_ids
from neuronaut.tools.units import Unit

_here = Path(__file__)
_tiny = runpy.run_path(str(_here.with_name("tiny_models.py")))
_planted = runpy.run_path(str(_here.with_name("planted_scores.py")))
WORDS = _tiny["TEXT"].split()
UNIT = Unit("neuron", 1, 5)
RULE = FiringRule(threshold=5.0, median=0.0, top=10.0, spread=0.0, dense=False)
TOLD = Explanation("the dog", "as given")
CONTEXT = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model whose tokenizer has a token for each of 0 to 10."""
    made = _tiny["make_model"]("qwen3", tmp_path_factory.mktemp("judge") / "model")
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    tokenizer.add_tokens(["10"])
    tokenizer.save(str(made / "tokenizer.json"))
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"max_position_embeddings": CONTEXT}))
    return Path(made)


class Plain:
    """The model through transformers alone."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def log_probs(self, ids: list[int]) -> torch.Tensor:
        """(n, d_vocab) of the token after each."""
        with torch.no_grad():
            return torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), dim=-1)

    def log_prob(self, before: str, text: str) -> float:
        first, own = self.ids(before), self.ids(text)
        found = self.log_probs(first + own)
        return sum(float(found[len(first) + at - 1, token]) for at, token in enumerate(own))

    def embedding(self, text: str) -> np.ndarray:
        """Mean of what leaves the last layer, before the last norm."""
        kept: list[torch.Tensor] = []
        last = self.model.model.layers[-1]
        handle = last.register_forward_hook(lambda _, __, out: kept.append(out[0] if isinstance(out, tuple) else out))
        self.log_probs(self.ids(text))
        handle.remove()
        return kept[0].reshape(-1, kept[0].shape[-1]).double().mean(dim=0).numpy()


@pytest.fixture(scope="module")
def judge(folder: Path) -> Judge:
    return Judge(load_target(folder))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Plain:
    return Plain(folder)


@pytest.fixture(scope="module")
def case(judge: Judge) -> Case:
    """A unit that fires on " dog", in texts of the model's own tokens; every second document has one."""
    rng, pieces = np.random.default_rng(0), judge.model.vocabulary.pieces
    ids = {word: pieces.index(f" {word}") for word in ("the", "cat", "dog", "rain", "men")}
    rows = rng.choice([ids[word] for word in ("the", "cat", "rain", "men")], (120, 16))
    activations = np.zeros(rows.shape, dtype=np.float32)
    for row in range(0, 120, 2):
        at = rng.choice(np.arange(2, 14), 2, replace=False)
        rows[row, at], activations[row, at] = ids["dog"], rng.integers(3, 11, 2)
    tokens = tokens_from_ids(rows.tolist(), judge.model.vocabulary)
    windows = tuple(windows_of(tokens, activations, RULE, "audit"))
    context: Any = type("Context", (), {"target": judge.model, "tokens": lambda _, split: tokens})()
    return Case(context, Subject(UNIT, RULE, windows, ("audit",)), TOLD, 0)


def auroc(positive: list[float], negative: list[float]) -> float:
    """Pair by pair."""
    return float(np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative]))


def test_embedding_is_the_auroc_of_cosines_of_mean_residuals(judge: Judge, plain: Plain, case: Case) -> None:
    items, own = choose_items(case.subject.windows, 0), plain.embedding(TOLD.text)

    def cosine(window: Window) -> float:
        found = plain.embedding(window.text)
        return float(found @ own / np.sqrt((found @ found) * (own @ own)))

    wanted = auroc([cosine(one) for one in items.positives], [cosine(one) for one in items.negatives])
    judged = Embedding(judge).judge(case)
    assert estimate(judged.documents, judged.number).value == pytest.approx(wanted, abs=2e-3)
    assert 0.01 < wanted < 0.99
    assert cosines(own, np.stack([own, -2 * own])) == pytest.approx([1.0, -1.0])


def test_surprisal_is_the_auroc_of_how_much_less_a_text_surprises(judge: Judge, plain: Plain, case: Case) -> None:
    items = choose_items(case.subject.windows, 0)
    heads = [render("score_surprisal", explanation=text) + "\n" for text in ("Various unrelated sentences.", TOLD.text)]

    def gain(window: Window) -> float:
        unrelated, told = (plain.log_prob(head, window.text) / 16 for head in heads)
        return told - unrelated

    wanted = auroc([gain(one) for one in items.positives], [gain(one) for one in items.negatives])
    judged = Surprisal(judge).judge(case)
    assert estimate(judged.documents, judged.number).value == pytest.approx(wanted, abs=2e-3)
    losses = judge.loss([(heads[0], one.text) for one in items.positives[:3]])
    assert losses == pytest.approx([-plain.log_prob(heads[0], one.text) / 16 for one in items.positives[:3]], abs=1e-4)


def test_simulated_activations_are_means_of_the_distribution_over_0_to_10(judge: Judge, plain: Plain) -> None:
    pieces = [" the", " dog", " sat", " on", " the", " mat", " men", " rain"] * 3
    head = "dog:\n"
    levels = [plain.tokenizer.token_to_id(str(level)) for level in range(11)]
    ids, wanted = plain.ids(head), []
    for piece in pieces:
        ids = ids + plain.ids(piece) + plain.ids(GAP)
        if len(ids) > CONTEXT:  # begun anew, as the window does not fit
            ids = plain.ids(head) + plain.ids(piece) + plain.ids(GAP)
        chosen = plain.log_probs(ids)[-1][levels].exp()
        wanted.append(float((chosen * torch.arange(11)).sum() / chosen.sum()))
        ids = ids + plain.ids(UNKNOWN)
    assert len(plain.ids(head)) + sum(len(plain.ids(f"{p}{GAP}{UNKNOWN}")) for p in pieces) > CONTEXT
    (found,) = judge.simulated(["far too long " * 90, head], [pieces])
    assert found == pytest.approx(wanted, abs=1e-4)
    assert len({round(value, 3) for value in wanted}) > 3


def test_a_tokenizer_without_a_token_for_10_is_refused(tmp_path: Path) -> None:
    judge = Judge(load_target(_tiny["make_model"]("gpt2", tmp_path / "model")))
    with pytest.raises(ToolRefused, match="no single token for '10'"):
        judge.simulated(["head"], [[" the"]])


def test_a_prompt_that_does_not_fit_is_refused(judge: Judge) -> None:
    with pytest.raises(ToolRefused, match="does not fit into the context"):
        judge.simulated(["far too long " * 90], [[" the"]])
    with pytest.raises(ToolRefused, match="does not fit into the context"):
        judge.loss([("the dog " * 90, " sat")])


class Knows(Judge):
    """A judge whose simulation is known."""

    def __init__(self, known: dict[str, np.ndarray]) -> None:
        self.known = known

    def simulated(self, heads: Any, windows: Any) -> list[np.ndarray]:
        assert len(heads[0]) > len(heads[1])
        return [self.known["".join(pieces)] for pieces in windows]


def test_simulation_scores_the_strongest_and_random_windows_over_all_tokens_together() -> None:
    case = _planted["planted_case"]()
    known = {window.text: window.activations for window in case.subject.windows}
    for score, n in ((Simulation(Knows(known)), 10), (Transluce(Knows(known)), 25)):
        judged = score.judge(case)
        assert estimate(judged.documents, judged.number).value == pytest.approx(1.0)
        assert (judged.replies.n_ok, len(judged.documents)) == (n, 32 * n)
    turned = Transluce(Knows({text: 10 - values for text, values in known.items()})).judge(case)
    assert turned.published is not None
    assert estimate(turned.documents, turned.number).value == pytest.approx(-1.0)
    assert estimate(turned.documents, turned.published).value == pytest.approx(1.0)


def test_the_correlation_is_over_all_tokens_and_not_a_mean_over_windows() -> None:
    """Simulated is 0 and then 1 in one window and 9 and then 10 in the other; truth is the other way round within each."""
    windows = [
        Window(d, "audit", d, 0, (0, 1), ("a", "b"), np.array(values), np.array(values))
        for d, values in enumerate(([1.0, 0.0], [10.0, 9.0]))
    ]
    judged = simulation_number([(windows[0], [0, 1]), (windows[1], [9, 10])], (), Replies(2))
    wanted = np.corrcoef([1, 0, 10, 9], [0, 1, 9, 10])[0, 1]
    assert estimate(judged.documents, judged.number).value == pytest.approx(wanted)
    assert wanted > 0.9  # each window alone has -1


def test_intervention_is_what_the_push_does_to_the_explanation(judge: Judge, plain: Plain, case: Case) -> None:
    windows = [tenth[-1] for tenth in choose_items(case.subject.windows, 0).tenths]
    prompts = prompts_of(windows)
    assert all(window.pieces[len(ids) - 1] == " dog" for window, ids in zip(windows, prompts, strict=True))
    found = pushed_texts(judge.model, UNIT, windows)
    down, held = plain.model.model.layers[UNIT.layer].mlp.down_proj, {"from": 0, "dose": 0.0}

    def push(_: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = inputs[0].clone()
        changed[:, int(held["from"]) :, UNIT.index] += held["dose"]
        return (changed,)

    handle = down.register_forward_pre_hook(push)
    texts: dict[float, list[str]] = {0.0: [], found.dose: []}
    first: dict[float, list[torch.Tensor]] = {0.0: [], found.dose: []}
    for dose in texts:
        for prompt in prompts:
            ids, held["from"], held["dose"] = list(prompt), len(prompt) - 1, dose
            first[dose].append(plain.log_probs(ids)[-1])
            for _ in range(WRITTEN):
                ids.append(int(plain.log_probs(ids)[-1].argmax()))
            texts[dose].append(judge.model.decode(ids))
    handle.remove()
    assert list(found.plain) == texts[0.0]
    assert list(found.pushed) == texts[found.dose]
    assert found.plain != found.pushed
    kl = [float((p.exp() * (p - q)).sum()) for p, q in zip(first[0.0], first[found.dose], strict=True)]
    assert np.mean(kl) == pytest.approx(KL, rel=0.02)
    before, after = (
        np.array([plain.log_prob(render("score_amplified", text=text), f'{TOLD.text}"') for text in texts[dose]])
        for dose in texts
    )
    judged = Intervention(judge).judge(case)
    assert estimate(judged.documents, judged.number).value == pytest.approx(float((after - before).mean()), abs=1e-3)
    assert len(judged.documents) == 10


@pytest.mark.parametrize(
    ("predicate", "f1"), [('token(" dog")', 1.0), ('token(" cat")', 0.0), ("any_of(digit, not(digit))", None)]
)
def test_n2g_f1_is_counted_on_every_second_of_the_20_strongest_windows(
    case: Case, predicate: str, f1: float | None
) -> None:
    best = sorted(case.subject.windows, key=lambda one: -one.activations.max())[:20]
    top, held_out = float(best[0].activations.max()), best[1::2]
    fires = np.concatenate([one.activations >= top / 2 for one in held_out])
    explained = Explanation("a rule", "as given", parse_text(predicate))
    judged = N2G().judge(Case(case.context, case.subject, explained, 0))
    value = estimate(judged.documents, judged.number).value
    if f1 == 1.0:
        dogs = np.concatenate([[piece == " dog" for piece in one.pieces] for one in held_out])
        f1 = 2 * float((fires & dogs).sum()) / float(fires.sum() + dogs.sum())
        assert f1 > 0.7
    assert value == pytest.approx(2 * fires.sum() / (fires.sum() + len(fires)) if f1 is None else f1)


def test_n2g_f1_needs_a_predicate(case: Case) -> None:
    with pytest.raises(ToolRefused, match="from a predicate"):
        N2G().judge(case)
