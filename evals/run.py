"""`neuronaut eval`: runs suites, keeps each row as it comes, goes on where it was stopped, prints the scores."""

import fcntl
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from neuronaut.agent.config import Budget, Loop
from neuronaut.agent.view import print_json, visible
from neuronaut.evals import proposers, registry
from neuronaut.evals.jobs import Job, WorkerKilled, answers
from neuronaut.evals.progress import Progress
from neuronaut.evals.seeds import seeds_of
from neuronaut.evals.source import code_sha256, settings
from neuronaut.evals.suite import Asking, Batch, Score, Size, Suite, Terms
from neuronaut.evals.tables import write_parquet
from neuronaut.memory import ledger
from neuronaut.memory.evaluations import Evaluation, EvaluationKey, Evaluations
from neuronaut.tools.errors import UserError

NOTEBOOK = "notebook.db"
GAVE_UP, FAILED_ITEMS = 1, 3  # exit codes


@dataclass(frozen=True)
class Options:
    """What `neuronaut eval` was asked for. limit: cases of each suite, None for those of `size`; seed None: by `seed_file`.

    base_url, budget: of a language model that is the proposer; the budget is that of each case.
    """

    suites: tuple[str, ...]
    proposer: str = "grammar"
    loop: str = "full"
    jobs: int = 1
    limit: int | None = None
    size: str = "standard"
    seed: int | None = None
    seed_file: Path | None = None
    results: Path = Path("eval-results")
    scoreboard: Path | None = None
    fresh: bool = False
    base_url: str | None = None
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Planned:
    """A suite with its cases and the evaluation that they belong to. done: keys of the cases that have a row."""

    suite: Suite
    place: str
    batches: tuple[Batch, ...]
    evaluation: Evaluation
    done: frozenset[str]

    @property
    def truths(self) -> dict[str, str]:
        """Case to the hash of its truth."""
        cases = [case for batch in self.batches for case in batch.cases]
        return {case.key: ledger.sha256(ledger.canonical([case.family, dict(case.truth)])) for case in cases}

    @property
    def jobs(self) -> list[tuple[Batch, frozenset[str]]]:
        """The batches with the cases that are still to be asked."""
        left = [(batch, frozenset(case.key for case in batch.cases) - self.done) for batch in self.batches]
        return [(batch, wanted) for batch, wanted in left if wanted]


@dataclass(frozen=True)
class Result:
    """What an evaluation came to. cases: outcome to number."""

    evaluation: Evaluation
    about: str
    cases: Mapping[str, int]
    scores: list[Score] = field(default_factory=list)


def evaluate(options: Options, *, as_json: bool) -> int:
    """Run the suites and print what they come to. Returns the exit code: 3 where a case failed, 1 where a worker was
    killed, else 0.

    Refuses, before anything runs: an unknown suite, proposer or loop, a damaged seed file, and a suite whose model is
    absent, unless it is only one of `all`, which leave it out and say so.
    """
    names = registry.suite_names(options.suites)
    llm = proposers.terms(options.proposer, names, options.base_url, options.budget)
    registry.check("loop", options.loop, registry.LOOPS)
    registry.check("size", options.size, get_args(Size))
    if options.seed is not None and options.seed_file is not None:
        raise UserError("--seed and --seed-file both say which seed: give one of them")
    if options.results == Path():
        raise UserError("--results is empty or the current folder: name a folder of its own for the results")
    seeds = seeds_of(names, options.seed_file) if options.seed is None else dict.fromkeys(names, options.seed)
    with _alone(options.results), Evaluations(options.results / NOTEBOOK) as notebook:
        planned, left_out = _plan(options, llm, names, seeds, notebook)
        try:
            _ask(options, llm, planned, notebook)
        except WorkerKilled as error:
            print(f"neuronaut: {error}", file=sys.stderr)
            return GAVE_UP
        results = [result_of(notebook, one.evaluation, one.suite) for one in planned]
        for one in planned:
            file = options.results / f"{one.suite.name}.parquet"
            write_parquet(file, one.evaluation, notebook.done(one.evaluation.id))
        if options.scoreboard:
            from neuronaut.evals.scoreboard import write_scoreboard

            write_scoreboard(options.scoreboard, notebook, options.proposer, options.loop)
    asked = {one.evaluation.id: sum(len(batch.cases) for batch in one.batches) for one in planned}
    for result in results:
        if (n := sum(result.cases.values())) > asked[result.evaluation.id]:
            print(
                f"{result.evaluation.key.suite}: scored are all {n} cases that this evaluation has, of which "
                f"{asked[result.evaluation.id]} this command asked for",
                file=sys.stderr,
            )
    _print(results, left_out, options.results, as_json=as_json)
    return FAILED_ITEMS if any(result.cases.get("failed") for result in results) else 0


def result_of(notebook: Evaluations, evaluation: Evaluation, suite: Suite) -> Result:
    """What the stored rows of an evaluation come to."""
    rows = notebook.done(evaluation.id)
    return Result(evaluation, suite.about, Counter(row["outcome"] for row in rows), suite.scores(rows))


def _plan(
    options: Options, llm: Terms | None, names: Sequence[str], seeds: Mapping[str, int], notebook: Evaluations
) -> tuple[list[Planned], dict[str, str]]:
    """The suites with their cases, and why others are left out."""
    planned, left_out = [], {}
    made = settings() | proposers.record(llm)
    for name in names:
        place = registry.SUITES[name]
        suite = registry.load(place)
        n = suite.sizes[cast(Size, options.size)] if options.limit is None else options.limit
        try:
            batches = tuple(suite.batches(n, seeds[name]))
        except UserError as error:
            if registry.ALL not in options.suites:
                raise
            left_out[name] = str(error)
            continue
        key = EvaluationKey(name, seeds[name], options.proposer, options.loop, code_sha256())
        evaluation = notebook.begin(key, made, fresh=options.fresh)
        _refuse_another_model(name, evaluation.settings.get("llm"), made.get("llm"))
        done = {row["case"]: row["truth_sha256"] for row in notebook.done(evaluation.id)}
        planned.append(Planned(suite, place, batches, evaluation, frozenset(done)))
        _refuse_others(planned[-1], done)
    return planned, left_out


def _refuse_another_model(suite: str, before: object, now: object) -> None:
    """Refuses to go on with an evaluation whose language model, script or budget was another one."""
    if before != now:
        raise UserError(
            f"{suite} was begun with another address, script or budget of its language model: begin anew with --fresh"
        )


def _refuse_others(planned: Planned, done: Mapping[str, str]) -> None:
    """Refuses to go on where a case has another truth than the case of its name that was done before."""
    for case, truth in planned.truths.items():
        if done.get(case, truth) != truth:
            raise UserError(
                f"case {case!r} of {planned.suite.name} is not the one that was done before under this name (other data, or "
                "another number of cases): begin anew with --fresh"
            )


def _ask(options: Options, llm: Terms | None, planned: Sequence[Planned], notebook: Evaluations) -> None:
    """Ask the cases that have no row yet; each row is kept as it comes."""
    evaluations = {one.suite.name: one.evaluation.id for one in planned}
    jobs, trails, truths = [], {}, {}
    for one in planned:
        truths[one.suite.name] = one.truths
        folder = _new_folder(options.results / "trails" / one.evaluation.id) if one.jobs else options.results
        trails[one.suite.name] = str(folder.relative_to(options.results))
        asking = Asking(one.evaluation.key.seed, options.proposer, cast(Loop, options.loop), folder, llm)
        jobs += [Job(one.suite.name, one.place, batch, wanted, asking) for batch, wanted in one.jobs]
    if not jobs:
        return
    totals = {one.suite.name: sum(len(batch.cases) for batch in one.batches) for one in planned}
    with Progress(totals, {one.suite.name: totals[one.suite.name] - _n_left(one) for one in planned}) as progress:
        try:
            with closing(answers(jobs, options.jobs)) as rows:
                for suite, row in rows:
                    notebook.add(
                        evaluations[suite], {**row, "trail": trails[suite], "truth_sha256": truths[suite][row["case"]]}
                    )
                    progress.row(suite, row)
        except KeyboardInterrupt:
            print("stopped: what was done is kept, and the same command goes on with it", file=sys.stderr)
            raise


def _n_left(planned: Planned) -> int:
    return sum(len(wanted) for _, wanted in planned.jobs)


def _new_folder(parent: Path) -> Path:
    """A folder of its own for each call: a case that was interrupted starts from an empty notebook, as it did before."""
    number = 1 + len(list(parent.glob("*")))
    folder = parent / str(number)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """While this process writes the results, no other does."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        lock = (results / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"results cannot be written to {str(results)!r} ({error.strerror}): name another --results"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another evaluation is writing to {str(results)!r}: wait for it, or name another --results"
            ) from None
        yield


def _print(results: Sequence[Result], left_out: Mapping[str, str], folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {"results": str(folder), "evaluations": [as_data(result) for result in results], "left_out": left_out}
        )
        return
    for result in results:
        key = result.evaluation.key
        cases = ", ".join(f"{n} {outcome}" for outcome, n in sorted(result.cases.items()))
        print(f"{key.suite}  ·  seed {key.seed}, {key.proposer}, {key.loop}  ·  {cases or 'no cases'}")
        width = max((len(visible(score.name)) for score in result.scores), default=0)
        for score in result.scores:
            print(f" {score_line(score, width)}")
        print(f" evaluation {result.evaluation.id}")
    for name, reason in left_out.items():
        print(f"{name}  ·  left out: {visible(reason)}")
    print(f"results {visible(str(folder))}")


def score_line(score: Score, width: int) -> str:
    """A score in one line: name, padded to a width, value, interval, n, goal and whether it is met."""
    value = "-" if score.value is None else f"{score.value:.3g}"
    interval = "" if score.low is None or score.high is None else f"[{score.low:.3g}, {score.high:.3g}]"
    met = {True: "met", False: "MISSED", None: ""}[score.met]
    return (
        f"{visible(score.name):<{width}} {value:>8}  {interval:<18} n {score.n:<6} {goal_of(score):<8} {met}".rstrip()
    )


def goal_of(score: Score) -> str:
    """The goal of a score as text; empty without one."""
    parts = [f"{sign} {goal:g}" for sign, goal in (("≥", score.goal), ("≤", score.at_most)) if goal is not None]
    return ", ".join(parts)


def as_data(result: Result) -> dict[str, Any]:
    """A result as JSON."""
    key = asdict(result.evaluation.key)
    return {
        "evaluation": result.evaluation.id, **key, **result.evaluation.settings, "started": result.evaluation.started,
        "cases": dict(result.cases), "scores": [{**asdict(score), "met": score.met} for score in result.scores],
    }  # fmt: skip
