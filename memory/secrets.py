"""Keys and passwords that stand in a text, found before it leaves this machine. The value itself is never repeated."""

import html
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

SHORTEST = 8  # characters; a shorter value, such as EMPTY for a local server, may stand in any text
KEY_VARIABLES = (
    "ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_OPENAI_API_KEY", "GEMINI_API_KEY",
    "GITHUB_TOKEN", "GOOGLE_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "LANGSMITH_API_KEY", "MISTRAL_API_KEY",
    "NEURONAUT_LLM_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "PGPASSWORD", "RAY_AUTH_TOKEN", "WANDB_API_KEY",
)  # fmt: skip
URL_VARIABLES = ("NEURONAUT_NOTEBOOK", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "HTTPS_PROXY", "HTTP_PROXY")
_BEFORE, _AFTER = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
# The forms are those that the services document; a digit is wanted where plain words could have the same form.
_FORMS = {
    "an Anthropic key": _BEFORE + r"sk-ant-[\w-]{12,}",
    "a key of the form sk-…": _BEFORE + r"sk-(?!ant-)(?=[\w-]*\d)[\w-]{16,}",
    "a Hugging Face token": _BEFORE + r"hf_[A-Za-z0-9]{30,}",
    "a GitHub token": _BEFORE + r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,})",
    "a GitLab token": _BEFORE + r"glpat-[\w-]{20,}",
    "an AWS key": _BEFORE + r"(?:AKIA|ASIA)[0-9A-Z]{16}" + _AFTER,
    "a Google key": _BEFORE + r"AIza[\w-]{35}",
    "a Slack token": _BEFORE + r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a LangSmith key": _BEFORE + r"lsv2_(?:pt|sk)_[A-Za-z0-9]{16,}",
    "an npm token": _BEFORE + r"npm_[A-Za-z0-9]{36}",
    "a PyPI token": _BEFORE + r"pypi-[\w-]{50,}",
    "a signed web token": _BEFORE + r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in a URL": r"[a-z][a-z0-9+.-]*://[^\s/:@\"'<>]*:(?!//)[^\s/@\"'<>]+@",
    "a bearer token": r"(?i)\bbearer\s+(?=[\w.~+/-]*\d)[\w.~+/-]{20,}",
}
# What each form holds in any writing, in small letters: looking for it first makes long texts without keys cheap.
_MARKS = {
    "an Anthropic key": ("sk-ant-",), "a key of the form sk-…": ("sk-",), "a Hugging Face token": ("hf_",),
    "a GitHub token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), "a GitLab token": ("glpat-",),
    "an AWS key": ("akia", "asia"), "a Google key": ("aiza",), "a Slack token": ("xox",), "a LangSmith key": ("lsv2_",),
    "an npm token": ("npm_",), "a PyPI token": ("pypi-",), "a signed web token": ("eyj",),
    "a private key": ("private key",), "a password in a URL": ("://",), "a bearer token": ("bearer",),
}  # fmt: skip
_PATTERNS = {what: (re.compile(form, re.ASCII), _MARKS[what]) for what, form in _FORMS.items()}


@dataclass(frozen=True)
class Found:
    """A secret in a text: what it looks like, and where: characters [start, end), line and column counted from 1."""

    what: str
    start: int
    end: int
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.what} at line {self.line}, column {self.column}"


def find_secrets(text: str) -> list[Found]:
    """What looks like a key or a password, and the values of the usual key variables of this environment, in order.

    Values are found as they are and as JSON, HTML and URLs write them. One place is named once, by the longest find.
    """
    spans = sorted({*_forms(text), *_values(text)}, key=lambda span: (span[0], -span[1]))
    found: list[Found] = []
    for start, end, what in spans:
        if not found or start >= found[-1].end:
            line = text.count("\n", 0, start) + 1
            found.append(Found(what, start, end, line, start - text.rfind("\n", 0, start)))
    return found


def _forms(text: str) -> Iterator[tuple[int, int, str]]:
    small = text.lower()
    for what, (pattern, marks) in _PATTERNS.items():
        if any(mark in small for mark in marks):
            for match in pattern.finditer(text):
                yield match.start(), match.end(), what


def _values(text: str) -> Iterator[tuple[int, int, str]]:
    for name, value in _environment():
        for form in {value, html.escape(value), json.dumps(value)[1:-1], quote(value, safe="")}:
            for match in re.finditer(re.escape(form), text):
                yield match.start(), match.end(), f"the value of {name}"


def _environment() -> Iterator[tuple[str, str]]:
    for name in KEY_VARIABLES:
        value = os.environ.get(name, "").strip()
        if len(value) >= SHORTEST:
            yield f"${name}", value
    for name in URL_VARIABLES:
        try:
            password = urlsplit(os.environ.get(name, "")).password or ""
        except ValueError:
            continue
        if len(password) >= SHORTEST:
            yield f"the password in ${name}", password
