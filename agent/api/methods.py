"""The tools as methods, written from the registry by `python -m neuronaut.agent.api.written`: change the tools instead."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from neuronaut.agent.api.outputs import ToolOutput


class ToolMethods(abc.ABC):
    """Every tool that a person may call, as a method of `Lab`; nothing that they find is recorded."""

    @abc.abstractmethod
    def tool(self, name: str, /, **args: Any) -> ToolOutput:
        """What a tool finds."""

    def ablate(
        self,
        unit: str,
        prompts: Sequence[str | Sequence[Mapping[str, Any]]],
        *,
        answer: str | None = None,
        wrong_answer: str | None = None,
        how: Literal["zero", "mean", "resample", "constant"] = "resample",
        value: float | None = None,
        source: Literal["prompts", "explore"] = "prompts",
        positions: Literal["last", "all"] | Sequence[int] | None = None,
        seed: int = 0,
    ) -> ToolOutput:
        """How far the score of an answer falls (or the loss of the texts rises) when the unit is replaced: in all (total
        effect), and along its direct path to the logits alone, where all later parts keep what they had (direct_…).

        Nats per prompt; 0 is no effect, negative means that the unit opposed the answer. resample: its value from
        another of
        the prompts. Null: the same for at most 32 random units of the layer and kind; for attn_out and mlp_out, of
        other layers.
        Refuses: fewer than 8 prompts; positions that a prompt lacks; prompts of unequal length where each position
        takes
        values from the same position of other prompts.
        Source: Wang et al. 2022, arXiv:2211.00593, section 2.2; McGrath et al. 2023, arXiv:2307.15771 (total and
        direct).

        What to take out (8.481, L8H3, sae:NAME/12, 8.attn_out, 8.mlp_out), where, what takes its place, and what is
        watched.

        answer: one token or several; with wrong_answer their difference; without both the loss of the prompts
        themselves.
        how: `constant` puts in `value`; `mean` takes the mean of all prompts at the same place, `resample` the value of
        another
        prompt there, or both from explore text (`source`). positions: `last`, `all` but BOS, or a list counted from 0
        without BOS, negative from the end;
        None is `last` with an answer and `all` without.
        """
        return self.tool(
            "ablate",
            unit=unit,
            prompts=prompts,
            answer=answer,
            wrong_answer=wrong_answer,
            how=how,
            value=value,
            source=source,
            positions=positions,
            seed=seed,
        )

    def activations_in_generation(
        self,
        unit: str,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        n_tokens: int = 32,
        temperature: float = 0.0,
        seed: int = 0,
        edits: Sequence[Mapping[str, Any]] = (),
        stop: bool = True,
    ) -> ToolOutput:
        """A unit's activation at each token of a prompt and of what the model writes behind it.

        Each row: position (counted from 0 with the token that starts the text), token, the part it belongs to (of a
        chat the part
        of its template; generated; prompt), the probability that the model, with its edits, gave it before it was there
        (at
        temperature 1; none for the first), and the activation in the model's own units. by_part: mean and extremes over
        the tokens
        of each part. The activations are those of a plain run over the finished text with the same edits at the same
        tokens, up to
        rounding; the last token written is part of it.
        Refuses: a head; a prompt behind which n_tokens do not fit into the context; to set a head or add to it.

        The unit, and the prompt: text, or the messages of a chat, [{"role": …, "content": …}, …]. n_tokens: written at
        most;
        temperature: 0 takes the likeliest token, otherwise tokens are drawn, by the seed. edits: held while the model
        writes. stop: whether the model's own end of a turn ends the text.
        """
        return self.tool(
            "activations_in_generation",
            unit=unit,
            prompt=prompt,
            n_tokens=n_tokens,
            temperature=temperature,
            seed=seed,
            edits=edits,
            stop=stop,
        )

    def activations_on(self, unit: str, texts: Sequence[str | Sequence[Mapping[str, Any]]]) -> ToolOutput:
        """The neuron's activation at each token of the given texts, in the model's own units; of chats, messages with a
        role and a
        content, with the part of the model's chat template that each token belongs to.

        Which neuron, on which texts.
        """
        return self.tool("activations_on", unit=unit, texts=texts)

    def attention_on(self, unit: str, texts: Sequence[str | Sequence[Mapping[str, Any]]], *, k: int = 10) -> ToolOutput:
        """Where a head looks on given texts: the pattern of each text as an artifact and, of the first 8 texts, where they
        have at
        most 256 tokens, as a figure; and the strongest pairs of query and key.

        weight: share of the query's attention; the first position, where heads rest, is listed apart (resting: its mean
        share
        over queries from the third token on). even: what a key would get if attention were spread evenly.
        Refuses: a neuron; a text that is longer than the context.

        Which head, on which texts, how many pairs of tokens to list.
        """
        return self.tool("attention_on", unit=unit, texts=texts, k=k)

    def attribution_patch(
        self,
        clean: str | Sequence[Mapping[str, Any]],
        corrupted: str | Sequence[Mapping[str, Any]],
        answer: str,
        *,
        wrong_answer: str | None = None,
        site: Literal["resid_pre", "attn_out", "mlp_out", "resid_post", "heads", "neurons"] = "resid_pre",
        layer: int | None = None,
        direction: Literal["denoise", "noise"] = "denoise",
        metric: Literal["log_prob", "kl"] = "log_prob",
        steps: int = 1,
        exact: bool = True,
    ) -> ToolOutput:
        """The effects of `patch` estimated for all components at once: (other − base activation) · gradient of the metric.

        effect: as in `patch`, to first order. rank_agreement: Spearman correlation over the components between the
        estimate
        and exact patching, null 0; left out without `exact`.
        Refuses what `patch` refuses.
        Source: Nanda 2023, "Attribution patching"; Sundararajan et al. 2017, arXiv:1703.01365; Hanna et al. 2024,
        arXiv:2403.17806 (gradients integrated along the input embeddings).

        As for `patch`. steps: runs between base and other prompt over which the gradient is averaged (integrated
        gradients);
        1 takes the gradient of the base run alone. exact: patch exactly as well, and say how well the order agrees.
        """
        return self.tool(
            "attribution_patch",
            clean=clean,
            corrupted=corrupted,
            answer=answer,
            wrong_answer=wrong_answer,
            site=site,
            layer=layer,
            direction=direction,
            metric=metric,
            steps=steps,
            exact=exact,
        )

    def backup_heads(
        self,
        task: str,
        *,
        head: str | None = None,
        keep: float = 0.9,
        how: Literal["resample", "mean"] = "resample",
        n: int = 24,
        n_random: int = 6,
        seed: int = 0,
    ) -> ToolOutput:
        """What is left of a task without its most important head, and the parts that are worth more once it is out:
        backups.

        left: share of the clean-corrupted gap, 1 unharmed, 0 all lost. worth: share that is lost when the part is taken
        out too;
        rise: of it, after less before. A backup rises by at least 0.05, by its lower bound above 0, and more than any
        part
        does when one of `n_random` other heads is taken out in its place (null). instead: the circuit that keeps `keep`
        of what
        is left without the head, and which of its parts the circuit of the whole model has not.
        Refuses: a task that the target cannot do; a name that is no head.
        Source: Wang et al. 2022, arXiv:2211.00593, section 3.4 (backup name movers).

        The task, and the head that is taken out: the one without which most is lost, where none is named.

        keep: share of what is left that the circuit without the head keeps. n_random: other heads that are taken out in
        its
        place. how: what a part that is taken out carries.
        """
        return self.tool("backup_heads", task=task, head=head, keep=keep, how=how, n=n, n_random=n_random, seed=seed)

    def capture(
        self,
        site: Literal["resid_pre", "attn_out", "mlp_out", "resid_post", "neurons", "heads", "pattern", "router"],
        layer: int,
        texts: Sequence[str | Sequence[Mapping[str, Any]]],
    ) -> ToolOutput:
        """Mean, standard deviation and extremes of a site on given texts, in the model's own units; the array is an
        artifact.

        mean_norm: mean over tokens (pattern: heads and queries; heads: also heads) of the Euclidean length of the last
        axis.
        The array is right-padded with NaN; special tokens are part of it. Refuses more than 1 GiB of activations.

        Which site of which layer, on which texts.
        """
        return self.tool("capture", site=site, layer=layer, texts=texts)

    def chat_tokens(self, chat: Sequence[Mapping[str, Any]], *, ask: bool | None = None) -> ToolOutput:
        """The tokens of a chat by the model's own chat template, and which part each one belongs to.

        part: start (the token that starts each text), header (what the template writes before a message's content as
        the message
        is added), content, footer (what it writes behind it), template (of no one message), unknown (a message that the
        template rewrites, with what stands around it). Tokens across two parts name both. Positions count every token
        from 0.
        Templates that write today's date write 1 January 2026.
        Refuses: a model without a chat template, messages that its template refuses, a chat longer than the context.

        The messages, each with a role and a content. ask: whether the template begins the model's next message behind
        them;
        null: where the last message is not the model's own.
        """
        return self.tool("chat_tokens", chat=chat, ask=ask)

    def compare_circuits(
        self,
        tasks: Sequence[str],
        members: Sequence[Sequence[str]],
        *,
        how: Literal["resample", "mean"] = "resample",
        n: int = 32,
        n_random: int = 100,
        seed: int = 0,
    ) -> ToolOutput:
        """Shared members of the circuits of two tasks (Jaccard), and the share of each task's gap that is left without the
        other's
        circuit.

        jaccard: 1 for equal circuits; null: random circuits of as many members of each type. left: 1 is unharmed, 0 all
        is
        lost; null: what is left without random circuits like the other's, as mean and percentile (0: the other's
        circuit
        harms more than all of them). Prompts are those of the search half. A member at one role counts as its whole
        head or MLP,
        since the prompts of two tasks have other roles.
        Refuses: a task that the target cannot do; members that are no nodes.

        Two tasks with the members of their circuits, and how many prompts and random circuits are run.
        """
        return self.tool("compare_circuits", tasks=tasks, members=members, how=how, n=n, n_random=n_random, seed=seed)

    def contexts_of_claim(
        self, unit: str, *, claim: str | None = None, k: int = 5, context: int = 12, seed: int = 0
    ) -> ToolOutput:
        """Contexts from explore text in four bands (top, quantiles, random, near misses), each token with the neuron's
        activation
        and, where a claim is given, with the strength in [0, 1] that it predicts; and the histogram of all activations.

        Near misses: places where the claim holds and the neuron does not fire, places where it fires and the claim does
        not hold,
        and places with a token on which it often fires where it is silent; in turn, one a document.

        Which neuron, the claim (JSON; without one nothing is predicted), how many contexts a band, how many tokens to
        each
        side.
        """
        return self.tool("contexts_of_claim", unit=unit, claim=claim, k=k, context=context, seed=seed)

    def decompose(
        self,
        of: Literal["OV", "QK", "W_in", "W_out", "activations"],
        *,
        unit: str | None = None,
        layer: int | None = None,
        site: Literal[
            "resid_pre", "attn_out", "mlp_out", "resid_post", "neurons", "heads", "pattern", "router"
        ] = "resid_post",
        method: Literal["pca", "ica", "nmf"] = "pca",
        k: int = 5,
        tokens: int = 8,
        n_tokens: int = 8192,
        seed: int = 0,
    ) -> ToolOutput:
        """The k strongest directions of a weight matrix or of activations, with the tokens of each, and how much they
        explain.

        OV, QK, W_in, W_out: singular vectors, the gains of the norms before folded in. reads: tokens whose embedding
        lies most along
        the direction that is read (QK: queries; looks at: keys); writes: tokens that the direction written promotes;
        W_in, W_out: the
        neurons along it. Signs are chosen so that the larger entries are positive.
        activations: PCA, ICA (FastICA) or NMF of a site on explore text, special tokens left out; at: the tokens where
        a component
        is largest, one a document; writes as above, for sites of the residual stream.
        explained: share of the squared norm (activations: of the variance; NMF: of the squared norm) that the k
        directions rebuild;
        its null is the same of shuffled entries (activations: each dimension shuffled over tokens).
        Refuses: OV and QK without a head; NMF of activations below 0; the attention pattern.
        Source: Millidge & Black 2022, "The singular value decompositions of transformer weight matrices are highly
        interpretable";
        Hyvärinen & Oja 2000 (FastICA); Lee & Seung 1999 (NMF).

        of: a head's OV or QK circuit (give unit), a layer's W_in or W_out, or activations of a site on explore text
        (give
        layer; method; n_tokens). k: directions. tokens: listed for each.
        """
        return self.tool(
            "decompose",
            of=of,
            unit=unit,
            layer=layer,
            site=site,
            method=method,
            k=k,
            tokens=tokens,
            n_tokens=n_tokens,
            seed=seed,
        )

    def describe_heads(
        self, *, n_windows: int = 160, embedding: Literal["token", "mlp0"] = "mlp0", seed: int = 0
    ) -> ToolOutput:
        """Every head of the model in one table: where it looks (the best claim about keys on one half of some explore
        text, its counts on
        the other half), what it writes by its weights, what changes without it, and a description of those for which
        all of it holds.

        share: of the queries with a named key that look at it (more than 0.3 of their attention, and the largest apart
        from the first
        token); null: 40 heads with random weights, as sharp. copying: mean share of the other tokens' logits below the
        token's own (OV
        circuit); eigen: sum of the eigenvalues of the OV circuit between tokens over that of their sizes, 1 copies, -1
        suppresses;
        nulls: the same with the outputs permuted, mean and spread of 20. successor: share of tokens of an order of
        which the next gets
        the largest logit; null: chance. effect: nats (KL) by which what is said changes at those queries when the head
        carries what it
        carries elsewhere; median_effect: of all heads, each at its own. random_tokens: the kind of key that gets most
        attention beyond its null on random
        tokens that come twice; null: keys of the shuffled text, or attention spread evenly. A head is described where
        the share's lower bound is at least
        0.6 and that of the attention off the first token 0.5, random tokens keep it at 0.6 (unless it names tokens), it
        is above
        95 % of random heads, and the effect's lower bound is at least 0.02 nats.
        These are descriptions from explore text, no tested claims: `neuronaut label --kind head` tests one for each
        head.
        Refuses: fewer than 8 windows of text.
        Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Gould et al. 2023,
        arXiv:2312.09230.

        n_windows: of explore text, half of them to choose what is said of a head, half to measure it. embedding: what
        stands for a
        token in the scores of weights, itself or with the first MLP's answer to it.
        """
        return self.tool("describe_heads", n_windows=n_windows, embedding=embedding, seed=seed)

    def describe_program(
        self,
        *,
        vocabulary: Sequence[str] = (),
        length: int | None = None,
        n: int = 600,
        held_out: int = 200,
        seed: int = 0,
    ) -> ToolOutput:
        """A small model as a program over its parts: a line for each head and group of neurons that matters, with its role
        and
        what it reads, as data that can be run without the model, and how often that says what the model says.

        reproduced: share of new random texts on which the program says the model's likeliest token at every place; its
        null is
        the better of the commonest output of each place and of the program with the values of its tables exchanged.
        Edges are scored by what the reader does when that one contribution alone is exchanged or taken out, all else
        held fixed:
        attention moved, share of what is carried, share of places at which neurons write something else, probability
        moved.
        Which parts are idle is first asked of the weights: what no reader's weights take up is left out. In models of
        more than
        64 heads or 2048 neurons only those of the largest attribution are described; what is left out costs agreement.
        Refuses: words that are no tokens, and texts that the context has no room for.

        Of which words the texts are made, how long they are, and how many are read.

        vocabulary: pieces, with the leading space where they have one; none is the whole vocabulary of a small model.
        length: in
        words; none is 12, or as many as the context has room for. n: random texts learnt from, beside all short ones.
        """
        return self.tool("describe_program", vocabulary=vocabulary, length=length, n=n, held_out=held_out, seed=seed)

    def diff_models(
        self, other: str, *, unit: str = "", k: int = 10, n_tokens: int = 4000, twins: int = 20, seed: int = 0
    ) -> ToolOutput:
        """What changed between the target and another checkpoint of it: tensors, heads and neurons, the residual stream by
        layer, and
        the output; each beside noise twins, the target plus normal noise of the norm of each tensor's change.

        vector: largest change of one of a unit's vectors as a share of it. activation: root mean square change as a
        share of the
        activation's; write: of what the unit adds to the residual stream, as a share of what it added; both on the same
        inputs, so
        that nothing counts that earlier layers changed. times: write change beside the mean of the twins. p: of vectors
        exact, of
        the others by the tail of the twins, times all units; beyond: p < 0.001. kl: nats a token that the unit's change
        alone,
        put into the target, moves the output by, on text that it was not ranked by; null: the largest of the units that
        twins
        move most. Where a norm follows the MLP or attention, its scale is left out of write and kl.
        Refuses equal weights, another architecture, another tokenizer, weights that lie in no folder.

        The other checkpoint by its name. unit: a neuron or head whose row is wanted too; k: rows; n_tokens: of explore
        text,
        half to rank by and half to measure on; twins: checkpoints made of noise.
        """
        return self.tool("diff_models", other=other, unit=unit, k=k, n_tokens=n_tokens, twins=twins, seed=seed)

    def dream(
        self,
        *,
        unit: str = "",
        answer: str = "",
        wrong_answer: str = "",
        length: int = 12,
        steps: int = 60,
        population: int = 8,
        children: int = 8,
        keep: int = 32,
        forwards: int = 3000,
        nulls: int = 8,
        seed: int = 0,
    ) -> ToolOutput:
        """Synthetic prompts that drive a unit, or a difference of logits, at their last token: activation against fluency.
        They are evidence for proposers, marked synthetic; no claim is ever tested on them.

        beyond_natural: the largest activation, 0 at the median of explore text and 1 at its strongest place; null: the
        same
        search for random directions of equal norm (for logits: pairs of other tokens). fluent_beyond: the same among
        prompts whose nats a token are at most those of 90 % of natural pieces of their length; left out where there is
        none.
        dreamt, fluent: the activations themselves; null: random prompts, half of them pieces of natural text, for as
        many
        forward passes. All searches begin with the strongest pieces of explore text, so that none ends below those.
        Refuses heads, and prompts longer than the context.
        Source: Thompson, Straznickas and Sklar 2024, arXiv:2402.01702.

        A unit, or the logit of `answer` less that of `wrong_answer` (single tokens); all at the last token of a prompt.

        length: tokens of a prompt. steps, forwards: a search ends after so many, whichever comes first. population:
        parents
        a step. children: of each parent. keep: candidates a place.
        nulls: null aims, on each of which the same search is done: the whole takes about nulls + 3 times the forwards.
        """
        return self.tool(
            "dream",
            unit=unit,
            answer=answer,
            wrong_answer=wrong_answer,
            length=length,
            steps=steps,
            population=population,
            children=children,
            keep=keep,
            forwards=forwards,
            nulls=nulls,
            seed=seed,
        )

    def find_circuit(
        self,
        task: str,
        *,
        method: Literal["nodes", "eap", "eap_ig", "acdc"] = "nodes",
        order: Literal["effect", "backward", "forward", "random"] = "effect",
        threshold: float = 0.9,
        nats: float = 0.03,
        how: Literal["resample", "mean"] = "resample",
        corruption: str | None = None,
        n: int = 48,
        seed: int = 0,
        reruns: int = 2,
        budget: float = 50000,
        positions: bool = False,
    ) -> ToolOutput:
        """Heads and MLPs that keep a share of a task's clean-corrupted gap when everything else carries corrupted prompts.

        share: 1 is the whole model, 0 the corrupted prompts; measured on the prompts of the search, so that it flatters
        the
        circuit: `test_circuit` measures it on others. null: the largest share of 20 random circuits of as many members
        of each
        type (and role, by positions). idle: members whose removal costs no more than a non-member's there; idle_p: the
        largest p
        of a member, 1 where the budget was spent. reruns: searches in random order and their Jaccard overlap with the
        circuit.
        Refuses: a task that the target cannot do (accuracy below 0.8), or whose corruption changes nothing; positions
        of edges.
        Sources: Wang et al. 2022, arXiv:2211.00593; Lan et al. 2024, arXiv:2311.04131; Hanna et al. 2024,
        arXiv:2403.17806;
        Conmy et al. 2023, arXiv:2304.14997.

        The task, and how its circuit is searched.

        method: `nodes` prunes whole heads and MLPs, the others single edges. order: in which nodes are tried.
        threshold: share
        of the clean-corrupted gap that the circuit keeps. nats: for acdc instead, by which one edge may move the
        prediction.
        how: what all else carries, the corrupted twin's value or the mean over corrupted prompts (edges: always the
        twin's).
        reruns: further searches of nodes, in random order, to see whether they find the same. budget: forwards of a
        search; its null, its idle members and its figure come on top. positions: what
        pruning leaves is split by the roles of the prompt ("L4H2@end", "mlp3@subject") and pruned again; positions at
        which no
        slot stands in every prompt are one role, "rest".
        """
        return self.tool(
            "find_circuit",
            task=task,
            method=method,
            order=order,
            threshold=threshold,
            nats=nats,
            how=how,
            corruption=corruption,
            n=n,
            seed=seed,
            reruns=reruns,
            budget=budget,
            positions=positions,
        )

    def find_units(
        self,
        *,
        labels: str = "",
        concept: str = "",
        having: Sequence[str] = (),
        lacking: Sequence[str] = (),
        seed: int = 0,
        k: int = 10,
    ) -> ToolOutput:
        """Neurons, features, heads and directions of the residual stream, ranked by how well they tell texts that have a
        concept from
        texts that lack it.

        auroc: 0.5 is chance, 1 a perfect detector, with its 95 % interval (Newcombe); a trailing - stands for low
        activations. q: the
        false discovery rate (Benjamini-Hochberg) over all that was ranked, from exchanged labels. Null: the best of all
        neurons
        and features when labels are shuffled (95th percentile of 200 shuffles), and 100 random directions of each
        layer.
        Texts are cut by a hash into fit, rank and held: what is fitted (probe, difference of means, a head's direction)
        is fitted on
        fit and ranked on rank; neurons and features are ranked on both; held is not opened. A labelled place is read at
        its last token,
        a labelled text as the mean over its tokens; a text counts once with each label.
        said_as: a list of tokens that stands for the concept in the hypothesis language, where there is one. nearest:
        neurons whose
        vectors lie along the difference of means of the best layer.
        Refuses: fewer than 8 texts with or without the concept in a part; labels of one class.

        A concept (see its fields), and how many units are listed.
        """
        return self.tool("find_units", labels=labels, concept=concept, having=having, lacking=lacking, seed=seed, k=k)

    def firing(self, unit: str) -> ToolOutput:
        """When the neuron counts as firing: above t = median + (top − median) / 2 on explore text, top the median of its
        20
        largest document maxima. base_rate: share of explore tokens at which it fires.

        payload.abstained says why there is no such rule (too rare here, this side does not exist).
        special_token: it is larger on a special token than its top; special tokens are left out of search and scores.

        Which neuron; a trailing `-` asks about its downward side.
        """
        return self.tool("firing", unit=unit)

    def head_scores(
        self,
        *,
        unit: str | None = None,
        n_tokens: int = 4096,
        embedding: Literal["token", "mlp0"] = "mlp0",
        seed: int = 0,
    ) -> ToolOutput:
        """What kind each head is, of all heads at once: shares of attention on repeated random tokens and on explore text,
        and
        what heads write of a token that they look at.

        previous, current, first, duplicate, induction, start: mean share of a query's attention on these keys, in [0,
        1]; entropy
        in nats. copying: mean share of the other tokens' logits below the token's own (OV circuit, 0.5 is chance);
        successor: share
        of digits, number words, months, days and letters of which the next one gets the largest logit of its order.
        Nulls: keys of the shuffled text (duplicate, induction), attention spread evenly (the other places), another
        token
        in place of the own one (copying), chance (successor); percentile among all heads, if one is asked about.
        Intervals are
        over documents. Rows without `_text` are of the random tokens and of the weights.
        Refuses: a unit that is no head of the model.
        Source: Olsson et al. 2022, arXiv:2209.11895; Elhage et al. 2021; Gould et al. 2023, arXiv:2312.09230.

        unit: the head that is measured against all others; without one, for each score the head that has most of it.
        n_tokens: of explore text. embedding: what stands for a token in copying and successor, itself or with the first
        MLP's answer to it.
        """
        return self.tool("head_scores", unit=unit, n_tokens=n_tokens, embedding=embedding, seed=seed)

    def head_tokens(
        self,
        unit: str,
        *,
        k: int = 10,
        tokens: Sequence[str] = (),
        embedding: Literal["token", "mlp0"] = "mlp0",
        seed: int = 0,
    ) -> ToolOutput:
        """Token pairs of a head by its weights: which query token scores highest with which key token, and which logits a
        token
        that is looked at raises and lowers most.

        query_key: attention scores by the tokens alone, each key's mean over the queries taken off. output_value:
        logits. Gains
        are folded in; biases, positions (rotary ones too), the scales of norms and norms of queries and keys are left
        out.
        copying: mean share of the other tokens' logits below the token's own, in [0, 1]; matching: the same of the
        token as its
        own key. Nulls: the score of another token in its place; percentile among all heads of the layer.
        Refuses: a neuron; fewer than 3 tokens; text that is no single token.
        Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.

        Which head, how many pairs. tokens: those between which pairs are sought, all tokens of explore text (at most
        1024,
        drawn by the seed) where none are given. embedding: what stands for a token, itself or with the first MLP's
        answer.
        """
        return self.tool("head_tokens", unit=unit, k=k, tokens=tokens, embedding=embedding, seed=seed)

    def importance(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        answer: str = "",
        parts: Literal["components", "heads", "neurons"] = "components",
        n_texts: int = 16,
        k: int = 10,
        seed: int = 0,
    ) -> ToolOutput:
        """What the answer to a prompt rests on: how far its log-probability falls when a head, an MLP or a neuron carries
        what it
        carries on other text (resample ablation at all positions, total effect), each alone.

        drop: nats, mean over the texts with its interval; positive helps the answer, negative opposes it. The parts
        stand in the
        order of their drops on other texts than those on which they are measured, so that the first is not the
        luckiest. Null:
        components and heads: the median of all of them; neurons: 32 random ones of the model. Of neurons only those of
        the
        largest gradient estimates are measured; rank_agreement is the Spearman correlation of estimate and measurement,
        null 0.
        Refuses a prompt that is longer than most texts.
        Source: Chan et al. 2022, "Causal scrubbing" (resample ablation); Nanda 2023, "Attribution patching".

        The prompt and what may matter: `components` are all heads and MLPs. answer: "" is the model's likeliest token;
        it may
        be several tokens, and without a leading space the likelier of both is meant. n_texts: of explore text, whose
        activations take the place of the prompt's, and as many again to choose by.
        """
        return self.tool("importance", prompt=prompt, answer=answer, parts=parts, n_texts=n_texts, k=k, seed=seed)

    def intervene(
        self, texts: Sequence[str | Sequence[Mapping[str, Any]]], edits: Sequence[Mapping[str, Any]], *, k: int = 5
    ) -> ToolOutput:
        """The next-token distribution after each text with any list of edits in place, beside the plain one.

        kl is KL(plain || edited) in nats at the last position, mean over texts; no edit gives 0.

        Texts, the edits, how many next tokens to list.
        """
        return self.tool("intervene", texts=texts, edits=edits, k=k)

    def logit_lens(
        self,
        text: str | Sequence[Mapping[str, Any]],
        *,
        answer: str | None = None,
        wrong_answer: str | None = None,
        position: int = -1,
        lens: Literal["plain", "tuned"] = "plain",
        k: int = 5,
    ) -> ToolOutput:
        """What the model would predict if it ended before each layer, and how much each head, MLP and neuron adds to the
        answer.

        layers: prediction at the position by the residual before each layer, read by the last norm and the unembedding
        (tuned: after
        the trained map); the last row is the model's own output. kl: of that output from the prediction, in nats.
        components:
        logits, less those of wrong_answer; with the embedding, the biases of attention and of the last norm they add up
        to the
        model's logit (before a soft cap) as long as the last norm's scale is taken as it is.
        settled_from: the first row from which on the likeliest token stays; its null is the last row.
        Refuses: answers that are no single tokens or equal; a position outside the text; `tuned` before it was trained.
        Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023, arXiv:2303.08112; Elhage
        et al. 2021
        (direct attribution).

        Which text, which answers (single tokens). answer: the model's own without one; wrong_answer: its logit is taken
        off
        that of the answer. position: in the text as tokens, the start token counted; negative ones count from the end.
        lens:
        `tuned` is the one that `tune_lens` has trained. k: tokens a layer, and neurons.
        """
        return self.tool(
            "logit_lens", text=text, answer=answer, wrong_answer=wrong_answer, position=position, lens=lens, k=k
        )

    def match_units(
        self,
        *,
        others: Sequence[str] = (),
        layers: Sequence[int] = (),
        other_layers: Sequence[int] = (),
        n_tokens: int = 16384,
        k: int = 20,
        seed: int = 0,
    ) -> ToolOutput:
        """Neurons whose activations go with those of one neuron of another model (another seed, another checkpoint), or of
        another layer.

        r: Pearson correlation over the tokens of explore text, by its size; a partner that falls where the unit rises
        has a trailing
        "-". Where tokenizers differ, tokens that end at the same character are compared. null, of each unit: the larger
        of its best
        correlations with random mixtures of each layer of the other model and with the neurons of an untrained twin of
        it (matrices drawn
        anew): both are offered as many candidates. matched: r of at least 0.5, at least 0.1 above the null, and beyond
        the excess at
        which of as many units as lie above it no more than 5 % lie as far below their null (knockoff+). universal:
        matched in all.
        Correlations are summed up in one pass; constant units are left out.
        Refuses: the model itself as the other one; tokenizers that cut text at too few common places; more than 67
        million pairs.
        Sources: Gurnee et al. 2024, arXiv:2401.12181 (rotation baseline); Barber & Candès 2015, arXiv:1404.5609
        (knockoff+).

        others: names of registered models; none: the layers of the model itself. layers, other_layers: of the one side
        and the
        other, all where none is named. k: pairs that are listed.
        """
        return self.tool(
            "match_units", others=others, layers=layers, other_layers=other_layers, n_tokens=n_tokens, k=k, seed=seed
        )

    def mistakes(
        self, unit: str, predicates: Sequence[str], *, told: int = 16, k: int = 8, context: int = 12
    ) -> ToolOutput:
        """F1, precision and coverage of predicates on explore text, and where they are wrong.

        missed: places where the neuron fires and a predicate does not hold, the strongest first. silent: where one
        holds and
        the neuron does not fire, the lowest activation first. wrong: the numbers of the predicates that are wrong
        there, from
        0. The first `told` predicates take turns, the best one first, each with one place a document, two a token
        before more; those with less than half of the best F1 are left out, since their mistakes tell little.

        Which neuron, the predicates (JSON), how many of them have their wrong places told, how many such places of each
        kind,
        how many tokens to each side of a place.
        """
        return self.tool("mistakes", unit=unit, predicates=predicates, told=told, k=k, context=context)

    def model_card(self) -> ToolOutput:
        """Layers, heads, widths, vocabulary, context, norm, activation, gating, tied embeddings and the fingerprint."""
        return self.tool("model_card")

    def patch(
        self,
        clean: str | Sequence[Mapping[str, Any]],
        corrupted: str | Sequence[Mapping[str, Any]],
        answer: str,
        *,
        wrong_answer: str | None = None,
        site: Literal["resid_pre", "attn_out", "mlp_out", "resid_post", "heads", "neurons"] = "resid_pre",
        layer: int | None = None,
        direction: Literal["denoise", "noise"] = "denoise",
        metric: Literal["log_prob", "kl"] = "log_prob",
    ) -> ToolOutput:
        """How much of the answer comes back (or is lost) when one activation of the other run is put in, each alone.

        effect: `denoise`: (patched − corrupted) / (clean − corrupted) of the metric, 1 is the clean run, 0 the
        corrupted one;
        `noise`: (clean − patched) / (clean − corrupted), 1 is all lost. The metric is the log-probability of the
        answer, less
        that of wrong_answer where given (for single tokens the logit difference); an answer of several tokens is scored
        as
        their sequence; `kl`: less the divergence of the clean prediction from that of the run.
        Refuses: prompts or answers that are equal, prompts of unequal length, scores that are equal up to rounding.
        Source: Heimersheim & Nanda 2024, arXiv:2404.15255.

        Clean and corrupted prompt of equal length in tokens, the answers, and what is carried over.

        wrong_answer: what the corrupted prompt asks for; without it the answer's log-probability alone is measured.
        site: all
        but heads and neurons are carried over position by position; heads and neurons one by one, at all positions.
        layer: None is every layer (neurons need one). direction: `denoise` puts clean activations into the corrupted
        run,
        `noise` corrupted ones into the clean run. metric: `kl` looks at the whole distribution and not at the answers.
        """
        return self.tool(
            "patch",
            clean=clean,
            corrupted=corrupted,
            answer=answer,
            wrong_answer=wrong_answer,
            site=site,
            layer=layer,
            direction=direction,
            metric=metric,
        )

    def path_patch(
        self,
        clean: str | Sequence[Mapping[str, Any]],
        corrupted: str | Sequence[Mapping[str, Any]],
        answer: str,
        senders: Sequence[str],
        *,
        wrong_answer: str | None = None,
        receivers: Sequence[str] | None = None,
        direction: Literal["denoise", "noise"] = "noise",
        metric: Literal["log_prob", "kl"] = "log_prob",
        seed: int = 0,
    ) -> ToolOutput:
        """How much of the answer is lost (or comes back) when what the senders write in the other run reaches the chosen
        receivers
        only, all later parts running on with what these then give.

        effect: share of the metric, as in `patch`; 0 is nothing, 1 is all. total: through every receiver, which is to
        patch the
        senders themselves; direct: through the logits alone. edges: each sender to each receiver alone. Null: the same
        through
        32 random sets of as many other senders of the same kinds that reach one of the receivers (percentile), where
        there are
        such.
        Refuses what `patch` refuses, names of parts that do not exist, and receivers that all read before the senders
        write.
        Source: Wang et al. 2022, arXiv:2211.00593, section 3; Goldowsky-Dill et al. 2023, arXiv:2304.05969.

        Clean and corrupted prompt of equal length in tokens, the answers, and the edges along which the other run is
        carried.

        senders: "embed", heads such as "L4H2", MLPs such as "mlp9". receivers: inputs of heads such as "L7H0.q" (".k",
        ".v";
        "L7KV0.k" where heads share keys and values), of MLPs such as "mlp9", or "logits"; None is every part that reads
        later.
        direction, metric, wrong_answer: as in `patch`. seed: draws the sets of other senders.
        """
        return self.tool(
            "path_patch",
            clean=clean,
            corrupted=corrupted,
            answer=answer,
            wrong_answer=wrong_answer,
            senders=senders,
            receivers=receivers,
            direction=direction,
            metric=metric,
            seed=seed,
        )

    def prediction_story(
        self,
        text: str,
        *,
        answer: str = "",
        rival: str = "",
        lens: Literal["plain", "tuned"] = "plain",
        k: int = 8,
        n_texts: int = 32,
        seed: int = 0,
    ) -> ToolOutput:
        """How the model comes to what it says after a text: from which layer on the answer leads, at which layer its
        margin over a
        rival changes most, and how much the embedding and every head, MLP and neuron adds to that margin.

        on_top_plain, on_top_tuned: the first row (0: the embedding, L: behind the last of L layers) from which on the
        answer is the
        likeliest token to the end, by the last norm and the unembedding, and after the map of the tuned lens; null: the
        median over
        explore tokens, percentile among them. margin: logits of the answer less the rival's; with the biases the parts
        add up to it
        (before a soft cap), the scale of the last norm being taken as it is. layer_most, part_most: the layer (heads
        and MLP) and
        the part that add most to it; null: how far the farthest of all strays from what it adds on average to the same
        margin, at
        99 % of the places of other explore text at which the model says neither, or a twentieth of the margin if that
        is more: what
        strays no farther decides nothing, and is not named.
        without: nats by which the answer's log-probability falls when a part carries what it carries on other text,
        total effect.
        tokens: the same of every place of the text, for what the model says there.
        Refuses: answers that are no single tokens or equal; `tuned` before it was trained; a model whose output is not
        its last norm
        and its unembedding.
        Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023, arXiv:2303.08112; Elhage
        et al. 2021
        (direct attribution).

        The text, a single token that follows it ("": the model's own; a leading space may be left out), and the one
        against which it is
        held ("": the likeliest other one). lens: `tuned` stands beside the plain one, after `tune_lens` has trained it.
        k: parts and
        neurons. n_texts: of other explore text.
        """
        return self.tool(
            "prediction_story", text=text, answer=answer, rival=rival, lens=lens, k=k, n_texts=n_texts, seed=seed
        )

    def promoted_tokens(self, unit: str, *, k: int = 10) -> ToolOutput:
        """Tokens that the write vector of a neuron or feature promotes and suppresses directly (direct logit attribution):
        logits per unit
        of activation, the final norm's gain folded in and its scale left out.

        spread is the standard deviation over the vocabulary; its null is that of the other units there (percentile).

        Which neuron, how many neighbours and tokens to list.
        """
        return self.tool("promoted_tokens", unit=unit, k=k)

    def read_out(
        self,
        unit: str,
        *,
        head: str | None = None,
        site: Literal["resid_pre", "resid_post"] = "resid_post",
        layer: int | None = None,
        output: Literal["linear", "bins", "digits"] = "linear",
        seed: int = 0,
    ) -> ToolOutput:
        """Whether a read-out uses a neuron, as the weights and explore text have it: cosines of its direction with the
        neuron's read
        and write vectors, how its weights are spread, and how it follows the neuron when that is patched.

        told: share of the neuron's variance that it tells, on documents apart (a saved head: squared correlation).
        cos_read,
        cos_write: null is the median size of the cosines with the other neurons' vectors, z is against random vectors.
        patching: slope of the read-out, in its own unit, on the activation that is set, zeroed or scaled (0 to 2) at
        the last
        position or all of them; direct: by what the MLP adds there alone; rest: by other ways. natural: slope on
        unpatched text.
        effects: as `test_readout` measures them, on explore text. arrays: weight, bias, centres and the direction.
        Refuses: heads, features; a head of other weights, width or layers; a neuron that never changes.

        Which neuron, and which read-out: a saved head by its name, or one that is trained here at a site and layer to
        predict
        the neuron: a line, ten class bins, or ten digits through the model's own unembedding.
        """
        return self.tool("read_out", unit=unit, head=head, site=site, layer=layer, output=output, seed=seed)

    def readout_shift(self, unit: str, head: str, other: str, *, seed: int = 0) -> ToolOutput:
        """How far training with a frozen head moved the residual stream where the head reads, and along what: the head's
        direction,
        the neuron's read vector, its write vector.

        share_*: of the mean squared length of the shift (after less before, on the same explore text), 0 to 1; null is
        the mean
        share of 1000 random directions, the percentile is among these; z is in their standard deviations. with_unit:
        correlation of
        the shift along the direction with the neuron's activation before the training. changed: how far the neuron's
        own vectors
        turned (1 − cosine), with the percentile among the neurons of its layer.
        Refuses: a head of another model; two models of other widths, layers or tokenizers, and identical ones.

        Which neuron, which head, and the model before the training (registered with --other). The target is the model
        after it.
        """
        return self.tool("readout_shift", unit=unit, head=head, other=other, seed=seed)

    def shared_circuits(
        self,
        tasks: Sequence[str],
        *,
        levels: Sequence[float] = (0.98, 0.9, 0.8),
        how: Literal["resample", "mean"] = "resample",
        n: int = 24,
        n_random: int = 40,
        seed: int = 0,
    ) -> ToolOutput:
        """Circuits of several tasks at several levels of faithfulness, what they share, and what is left of each task
        without
        the circuit of another, without what both share, and without what is the other's alone.

        tasks: accuracy and log-odds beside those of the corrupted prompts (chance); a task that the target cannot do
        (accuracy
        below 0.8) gets no circuit and says why. kept: share of the gap on prompts whose wording and first item the
        search did
        not see; null: the best of 20 random circuits of as many heads and MLPs. jaccard: 1 for equal circuits; null:
        200 pairs of
        random circuits. left: 1 is unharmed, 0 all is lost, on the same unseen prompts with one-sided 95 % bounds;
        null: mean
        without random circuits of the size, percentile of them that harm more. needed: at most 0.5 is left and 0.25
        less than
        at random; not needed: at least 0.8 is left.
        Refuses: a task named twice; fewer than two tasks that the target can do.
        Source: Lan et al. 2024, arXiv:2311.04131, "Towards Interpretable Sequence Continuation".

        Which tasks, and how much of each its circuits keep.

        levels: shares of the clean-corrupted gap that circuits keep, each searched inside the stricter one; at the
        middle one
        parts are taken away across tasks. n: prompts of a search, and as many held out. how: what all else carries.
        """
        return self.tool("shared_circuits", tasks=tasks, levels=levels, how=how, n=n, n_random=n_random, seed=seed)

    def steer(
        self,
        unit: str,
        prompts: Sequence[str | Sequence[Mapping[str, Any]]],
        token: str,
        *,
        doses: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 4.0),
        how: Literal["set", "scale", "add"] = "set",
        positions: Literal["last", "all"] | Sequence[int] = "last",
        kl: float = 0.1,
        generate: int = 0,
        seed: int = 0,
    ) -> ToolOutput:
        """Dose-response of a token's log-probability when a neuron or head is set to, moved by or scaled by each dose.

        slope: nats per unit of dose, mean over prompts of the least-squares line; r2: of the mean curve. Null: at most
        16 other
        units of the layer (and, in the payload, 16 random directions), added to what the layer writes with the norm of
        the
        unit's own change. effect_at_kl: change of the log-probability at the dose at which KL(plain ‖ steered) of the
        next
        token is `kl` nats, mean over prompts; null: random directions at the same divergence; left out where no dose
        reaches it.
        changed_tokens: share of the tokens written on that differ from those without; null: random directions of equal
        norm.
        Source: Turner et al. 2023, arXiv:2308.10248 (vectors added, beside random ones of equal norm).

        The neuron, head or feature, the doses and the token that is watched (several tokens are scored as their
        sequence).

        how: `set` and `add` are in the model's own units of activation, `scale` multiplies (1 is no change; the only
        way for a
        head). positions: `last`, `all` but BOS, or a list counted from 0 without BOS, negative from the end. kl: nats
        at which
        strengths are matched. generate: tokens that are written on, with the last of the doses held in place.
        """
        return self.tool(
            "steer",
            unit=unit,
            prompts=prompts,
            token=token,
            doses=doses,
            how=how,
            positions=positions,
            kl=kl,
            generate=generate,
            seed=seed,
        )

    def successor_heads(
        self,
        *,
        embedding: Literal["token", "mlp0"] = "mlp0",
        k: int = 3,
        n_permuted: int = 399,
        n_random: int = 20,
        seed: int = 0,
    ) -> ToolOutput:
        """Which heads give the largest logit of its order to the token after the one that they look at, before it, or two
        on,
        by their weights (OV), and along how many directions.

        next, previous, add_two: share of digits, number words, months, days and letters for which that token gets the
        largest
        logit of its order, in [0, 1]. Nulls: the largest score of any head when the orders are permuted (p, corrected
        for the
        choice among all heads), and of as many heads with random weights. A successor head is at p ≤ 0.01, above all
        random
        heads and right for half of the tokens; there may be none. above_chance: heads that are right for fewer.
        directions:
        singular directions of OV, those that favour the next token most first, and how many give 0.9 of the score;
        beside as many
        random ones of the head.
        Refuses: a vocabulary without three tokens in order.
        Source: Gould et al. 2023, arXiv:2312.09230.

        embedding: what stands for a token, itself or with the first MLP's answer to it. k: heads that are taken apart
        by
        direction. n_permuted: random orders of the same tokens. n_random: models of random heads.
        """
        return self.tool(
            "successor_heads", embedding=embedding, k=k, n_permuted=n_permuted, n_random=n_random, seed=seed
        )

    def swap_units(
        self,
        unit: str,
        other: str,
        *,
        scale: Literal["raw", "statistics", "fitted"] = "statistics",
        n_tokens: int = 2000,
        seed: int = 0,
    ) -> ToolOutput:
        """How well two units stand in for each other: what the model loses when each carries the other's activations.

        The activations are those of the plain run. kl: KL(plain ‖ swapped) in nats a token of explore text, mean over
        documents; null: random pairs of the units' layers whose swap writes as much to the residual stream. loss_rise:
        the same
        of the loss. interchangeability: 1 − kl / the median of kl when each carries a random unit of the other's layer
        instead; 1 is the same
        job, 0 no better than chance, below 0 worse; left out where nothing is lost then either.
        Refuses units of different kinds, and a unit with itself. Heads have no common basis: raw values tell of copies
        only.

        Two neurons or two heads, and how the activation of one is made one of the other.

        scale: `raw` puts it in as it is; `statistics` gives it mean and standard deviation of the place that it takes
        (of each
        component, for heads); `fitted` maps it there by least squares, so that it counts what the one knows of the
        other.
        n_tokens: of explore text; the first half of the documents gives statistics and maps, the others are measured.
        """
        return self.tool("swap_units", unit=unit, other=other, scale=scale, n_tokens=n_tokens, seed=seed)

    def tasks(
        self, *, names: Sequence[str] = (), corruption: str | None = None, n: int = 32, seed: int = 0
    ) -> ToolOutput:
        """The tasks, with the target's accuracy on each and how far corruption moves its answer; which of them it can do.

        accuracy: share of prompts whose likeliest token (for verbs, brackets, names and years: the likeliest answer) is
        right; a
        task can be done from 0.8 on. gap: mean clean less corrupted log-odds of right against wrong answers, nats, null
        0. Only
        prompts of the search half are looked at. A task that the tokenizer cannot express says so instead.

        Which tasks (none named: all), with which corruption (the usual one of each), on how many prompts.
        """
        return self.tool("tasks", names=names, corruption=corruption, n=n, seed=seed)

    def token_table(self, unit: str, *, back: int = 0, k: int = 20) -> ToolOutput:
        """The tokens that stand some places before the firing ones on explore text: how often the neuron fires there.

        back: 0 is the current token, 1 the one before it. rate: share of the `n` occurrences with a neuron that fires
        `back`
        tokens later; its null is the share of all tokens on which it fires.

        Which neuron, how many tokens before the firing ones the table is about, how many rows.
        """
        return self.tool("token_table", unit=unit, back=back, k=k)

    def top_examples(
        self,
        unit: str,
        *,
        k: int = 10,
        context: int = 12,
        band: Literal["top", "quantiles", "random"] = "top",
        seed: int = 0,
    ) -> ToolOutput:
        """Contexts from explore text in which the neuron is most active (top), one of each equal-count band of document
        maxima (quantiles), or random places (random). A trailing `-` on the unit asks for its lowest activations.

        At most one context a document, from the first 50,000 explore tokens; special tokens are left out. Of a head:
        pairs of
        query and key, by the share of the query's attention that the key gets; the first position, where heads rest, is
        no key.

        Which neuron or head, how many contexts a band, how many tokens to each side.
        """
        return self.tool("top_examples", unit=unit, k=k, context=context, band=band, seed=seed)

    def tune_lens(self, *, n_tokens: int = 16384, steps: int = 250, again: bool = False, seed: int = 0) -> ToolOutput:
        """How far the tuned lens of each layer is from the model's output, beside the plain lens and a lens that knows no
        token; it
        is trained on explore text and kept for `logit_lens` and `prediction_story`.

        kl_tuned: KL(model's output ‖ lens) in nats, mean over layers and tokens of explore documents that it was
        neither trained
        nor stopped on; its null is the plain lens there. kl_shuffled: the same of a lens that was trained in the same
        way on outputs of
        other tokens: it can learn how likely tokens are at all, and nothing else. Of the documents 80 % train, 10 %
        stop, 10 % are
        measured. sha256: of the maps that are kept.
        Refuses: fewer than 20 explore documents; a model whose output is not its last norm and its unembedding.
        Source: Belrose et al. 2023, arXiv:2303.08112.

        n_tokens: of explore text. steps: at most. again: train anew though the same lens is kept.
        """
        return self.tool("tune_lens", n_tokens=n_tokens, steps=steps, again=again, seed=seed)

    def weights_of(self, unit: str, *, k: int = 10) -> ToolOutput:
        """Read and write vectors of a neuron, or encoder and decoder vectors of a feature (both (d_model,), as an
        artifact): norms,
        their cosine, the nearest units of the layer or dictionary and the nearest token embeddings.

        cos_read_write is in [-1, 1]; its null is the same cosine of the other units there, given as a percentile.

        Which neuron, how many neighbours and tokens to list.
        """
        return self.tool("weights_of", unit=unit, k=k)
