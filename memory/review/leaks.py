"""Is there a key in a text that is about to leave this machine?"""

import html
import os
import re

KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "NEURONAUT_LLM_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "LANGSMITH_API_KEY",
        "PGPASSWORD")  # fmt: skip
LEAST = 8  # characters; a shorter value may stand in any text
_FORMS = {
    "a key of Anthropic": r"sk-ant-[\w-]{16,}",
    "a key that begins with sk-": r"sk-(?!ant-)[\w-]{16,}",
    "a key of Hugging Face": r"hf_[A-Za-z0-9]{20,}",
    "a token of GitHub": r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",
    "a key of Amazon": r"A(?:KIA|SIA)[0-9A-Z]{16}(?![0-9A-Z])",
    "a key of Google": r"AIza[\w-]{35}",
    "a token of Slack": r"xox[abprs]-[\w-]{10,}",
    "a bearer token": r"[Bb]earer\s+[\w.~+/-]{16,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an address with a password": r"[a-z][a-z0-9+]{2,20}://[^\s/:@\"'<>]{1,80}:[^\s/@\"'<>]{3,80}@[\w.-]",
}
_KEY = re.compile("|".join(f"(?P<k{at}>(?<![A-Za-z0-9]){form})" for at, form in enumerate(_FORMS.values())))
_PLACE = re.compile(r'\bid="([^"]{1,90})"')


def leak(text: str) -> str | None:
    """What kind of key stands in a text, and behind which id of the page; None for none. The key itself is not told."""
    for name in KEYS:
        value = os.environ.get(name, "")
        if len(value) >= LEAST and (value in text or value in html.unescape(text)):
            return f"the value of {name}{_behind(text, text.find(value))}"
    if match := _KEY.search(text) or _KEY.search(html.unescape(text)):
        kind = list(_FORMS)[int(str(match.lastgroup)[1:])]
        return f"{kind}{_behind(text, match.start())}"
    return None


def _behind(text: str, at: int) -> str:
    found = [match[1] for match in _PLACE.finditer(text[: max(at, 0)])]
    return f", at {found[-1]}" if found else ""
