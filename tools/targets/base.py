"""The seam between an interpretability question and the engine that runs the model."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from neuronaut.tools.chat.format import ChatFormat
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.targets.fingerprint import Fingerprint as Fingerprint
from neuronaut.tools.tokens import Tokens, Vocabulary
from neuronaut.tools.units import Unit

PlainSiteName = Literal["resid_pre", "attn_out", "mlp_out", "resid_post", "neurons", "heads", "pattern", "router"]
SiteName = PlainSiteName | Literal["features"]


@dataclass(frozen=True, order=True)
class Site:
    """A named activation of one layer.

    resid_pre, attn_out, mlp_out, resid_post: (batch, pos, d_model); what is written is what the residual stream receives.
    neurons: (batch, pos, d_mlp), after the activation (gated: act(gate) * up); where a layer has experts, those of `expert`,
    times the share that the router gives it there. router: (batch, pos, n_experts) these shares, 0 of experts that are not
    chosen. heads: (batch, pos, n_heads, d_head), the
    mixed values before W_O. pattern: (batch, n_heads, query, key), read only; rows sum to less than 1 where heads have a sink.
    features: (batch, pos, width) of a dictionary
    that reads this layer, or (batch, pos, n_columns) of some; what is edited moves its output by their decoder rows, and
    what the dictionary leaves unexplained stays.
    """

    name: SiteName
    layer: int
    dictionary: str = ""
    columns: tuple[int, ...] = ()
    expert: int | None = None

    def __str__(self) -> str:
        expert = "" if self.expert is None else f"e{self.expert}."
        return f"{self.layer}.{expert}{self.name}" + (f" of {self.dictionary}" if self.dictionary else "")


@dataclass(frozen=True)
class Edit:
    """A change of one activation, as a value that can be logged and replayed.

    index: the neuron, head or feature; None is the whole site. positions: (batch, pos) bool, None is everywhere.
    value: a number or a tensor that broadcasts to the selected activation (batch, pos[, width]); `set` replaces,
    `add` adds, `scale` multiplies.
    """

    site: Site
    how: Literal["set", "add", "scale"]
    value: float | Tensor
    index: int | None = None
    positions: Tensor | None = field(default=None)


@dataclass(frozen=True)
class ModelSpec:
    """The shape of a target; `n_ctx` counts special tokens, `bos` is prepended to each text when it is not None.

    d_mlp: neurons of a layer, or of one of its n_experts experts (0: it has none). parallel: the MLP reads what attention
    reads, and not what it leaves.
    """

    name: str
    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_vocab: int
    n_ctx: int
    activation: str
    gated: bool
    norm: Literal["layernorm", "rmsnorm"]
    tied_embeddings: bool
    bos: int | None
    n_experts: int = 0
    parallel: bool = False


class Run(NamedTuple):
    """What a run returns: the sites read, the logits (batch, pos, d_vocab) if asked for."""

    read: dict[Site, Tensor]
    logits: Tensor | None


class Written(NamedTuple):
    """A prompt and what was written behind it: ids (1, pos), the sites at each of them, and the log-probability of each token
    given those before it, (pos,), NaN for the first."""

    ids: Tensor
    read: dict[Site, Tensor]
    log_probs: Tensor


# From the log-probabilities of the next token, (d_vocab,), the token that is written; None ends the text.
Choose = Callable[[Tensor], int | None]


class AttentionWeights(NamedTuple):
    """Raw weights of one layer's attention, applied as x @ W + b: no norm folded in, biases 0 where the model has none.

    W_Q, b_Q: (n_heads, d_model, d_head), (n_heads, d_head); W_K, W_V, b_K, b_V: the same of the n_kv_heads; W_O, b_O:
    (n_heads, d_head, d_model), (d_model,). Query head h looks at the keys and values of head h // (n_heads // n_kv_heads).
    """

    W_Q: Tensor
    W_K: Tensor
    W_V: Tensor
    W_O: Tensor
    b_Q: Tensor
    b_K: Tensor
    b_V: Tensor
    b_O: Tensor


class EdgeStart(NamedTuple):
    """Where a run with edges cut is resumed: before a layer (n_layers: before the last norm), with its residual (batch,
    pos, d_model) and what the senders before it write, (batch, n, pos, d_model)."""

    layer: int
    residual: Tensor
    senders: Tensor


class EdgeGradients(NamedTuple):
    """What each sender writes, (batch, n_senders, pos, d_model), and the gradient of a score at what each receiver reads,
    (batch, n_receivers, pos, d_model)."""

    senders: Tensor
    gradients: Tensor


class TargetModel(Protocol):
    """A causal language model whose insides can be read and edited.

    Vectors are always (d_model,) whatever the storage order. Token ids are right-padded; the value of the padding is free,
    since no earlier position sees it.
    """

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def dictionaries(self) -> Mapping[str, Dictionary]:
        """Those whose features can be read and edited, by name."""
        ...

    @property
    def forwards(self) -> float:
        """Sequences sent through all layers so far; a run through part of the layers counts its share."""
        ...

    @property
    def chat_format(self) -> ChatFormat:
        """How it wants its chats."""
        ...

    def fingerprint(self) -> Fingerprint: ...

    def tokenize(self, texts: Sequence[str], documents: Sequence[int] | None = None) -> Tokens:
        """Windows of at most n_ctx tokens, BOS first where the model has one; one row a window, in order."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def run(
        self,
        ids: Tensor,
        *,
        read: Collection[Site] = (),
        edits: Sequence[Edit] = (),
        start: tuple[int, Tensor] | None = None,
        stop: int | None = None,
        logits: bool = False,
    ) -> Run:
        """One pass over `ids` (batch, pos) without gradients.

        start: (layer, residual before it): earlier layers are not run. stop: layers from `stop` on are not run (and
        the logits cannot be asked for).
        """
        ...

    def write(
        self,
        ids: Tensor,
        choose: Choose,
        *,
        read: Collection[Site] = (),
        prompt_edits: Sequence[Edit] = (),
        edits: Sequence[Edit] = (),
    ) -> Written:
        """What is written behind one prompt, ids (1, pos), token by token, and the sites read at each token of both.

        prompt_edits: made at each token of the prompt; edits: at each token written. Their values are numbers or vectors, the
        same at each position. Equal to a run over the whole text with the edits at those positions, up to rounding.
        """
        ...

    def branches(self, ids: Tensor, edits: Sequence[Edit], *, keep: int = 1) -> Tensor:
        """(n_edits, keep, d_vocab) logits at the last `keep` positions of one prompt, ids (1, pos), with each of the edits
        made alone.

        Exact, and faster than as many runs: what they share is run once, layers before the edit and positions before the
        first edited one are not run again. positions: (1, pos) or None.
        """
        ...

    def gradients(
        self,
        ids: Tensor,
        read: Collection[Site],
        score: Callable[[Tensor], Tensor],
        *,
        edits: Sequence[Edit] = (),
        at: Site | None = None,
    ) -> dict[Site, tuple[Tensor, Tensor]]:
        """Each site on `ids` (batch, pos), and the gradient there of a score of the logits (batch, pos, d_vocab), summed over
        the batch; both have the site's shape. The backward pass counts as two forwards.

        at: the score is one of this site, features excepted, instead of the logits; layers behind it are not run.
        """
        ...

    def senders(self, ids: Tensor, *, edits: Sequence[Edit] = ()) -> Tensor:
        """(batch, n_senders, pos, d_model) what the embedding, each head and each MLP writes to the residual stream on `ids`
        (batch, pos), in the order of circuits.wires; the biases of attention are left out.

        Where a norm follows attention, a head writes its share of what the norm gives, by the norm's scale in this run.
        """
        ...

    def run_edges(
        self,
        ids: Tensor,
        other: Tensor,
        cut: Tensor,
        *,
        positions: Tensor | None = None,
        start: EdgeStart | None = None,
        edits: Sequence[Edit] = (),
        keep: int = 1,
    ) -> Tensor:
        """(batch, keep, d_vocab) logits at the last `keep` positions of `ids` (batch, pos) with edges cut: each receiver reads
        the residual of this run plus, for each of its cut edges, what the sender writes in `other` less what it writes here.

        other: (batch or 1, n_senders, pos, d_model). cut: (batch or 1, n_receivers, n_senders) bool. positions: (batch or 1,
        pos) bool, where edges are cut, None is everywhere. start: layers before it are not run; they may have no edge cut.
        """
        ...

    def edge_gradients(
        self, ids: Tensor, score: Callable[[Tensor], Tensor], *, edits: Sequence[Edit] = (), keep: int = 1
    ) -> EdgeGradients:
        """What senders write on `ids` (batch, pos), and the gradient at what receivers read of a score of the logits (batch,
        keep, d_vocab), summed over the batch. The backward pass counts as two forwards."""
        ...

    def read_vector(self, unit: Unit) -> Tensor:
        """(d_model,) the direction of the normed residual that drives a neuron (gated: its gate); of a feature the encoder
        column, a direction of what its dictionary reads. Refuses one that reads something else than the residual stream, and a
        unit that is none of these."""
        ...

    def write_vector(self, unit: Unit) -> Tensor:
        """(d_model,) what a neuron or feature adds to the residual stream per unit of activation."""
        ...

    def read_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer, or of one of its experts."""
        ...

    def write_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer, or of one of its experts."""
        ...

    def attention_weights(self, layer: int) -> AttentionWeights:
        """The raw weights of a layer's attention, head by head."""
        ...

    def attention_norm_gain(self, layer: int) -> Tensor:
        """(d_model,) what the norm before a layer's attention multiplies with; ones where attention reads the residual as it is."""
        ...

    def mlp_norm_gain(self, layer: int) -> Tensor:
        """(d_model,) what the norm before a layer's MLP multiplies with; ones where the MLP reads the residual as it is."""
        ...

    def final_norm_gain(self) -> Tensor:
        """(d_model,)."""
        ...

    @property
    def embed(self) -> Tensor:
        """(d_vocab, d_model)."""
        ...

    @property
    def unembed(self) -> Tensor:
        """(d_model, d_vocab), the final norm not folded in."""
        ...

    def final_norm(self, residual: Tensor) -> Tensor:
        """The last norm applied to a residual (…, d_model)."""
        ...
