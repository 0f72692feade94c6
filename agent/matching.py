"""The same units elsewhere: matched on explore text, and the matches tested on text that the search did not read."""

from neuronaut.agent.questions import Question
from neuronaut.agent.session import Session


def match(session: Session, question: Question) -> None:
    """Match the units of the model with those of the others, or of its own other layers; then test a sample of the matches."""
    asked = {"others": question.others, "seed": session.config.seed}
    found = session.experiment("match_units", asked, own=True).payload
    for row in found["others"]:
        session.say(
            "look", f"{row['matched']} of {row['units']} units have a match in {row['other']}"
        )  # fmt: skip
        if not row["sampled"]:
            continue
        args = {
            "other": row["other"] if question.others else "",
            "units": [pair["unit"] for pair in row["sampled"]],
            "partners": [pair["partner"] for pair in row["sampled"]],
            "bars": [pair["null"] for pair in row["sampled"]],
            "seed": session.config.seed,
        }
        session.experiment("test_matches", args, own=True)
