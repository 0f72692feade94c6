"""Keys and passwords are found wherever they stand, are never repeated, and plain text is not taken for them."""

import html
import json

import pytest

from neuronaut.memory.secrets import KEY_VARIABLES, find_secrets

LOOKALIKES = {
    "an Anthropic key": "sk-ant-" + "api03-abcDEF_0123456789",
    "a key of the form sk-…": "sk-" + "canary-0123456789",
    "a Hugging Face token": "hf_" + "a1" * 17,
    "a GitHub token": "ghp_" + "Ab1" * 12,
    "a GitLab token": "glpat-" + "x1_-" * 5,
    "an AWS key": "AKIA" + "ABCDEFGHIJ012345",
    "a Google key": "AIza" + "Sy_-0" * 7,
    "a Slack token": "xoxb-" + "123456789012-abc",
    "a LangSmith key": "lsv2_pt_" + "0123456789abcdef",
    "an npm token": "npm_" + "aB3" * 12,
    "a PyPI token": "pypi-" + "AgEIcHlwaS5vcmc" * 4,
    "a signed web token": "eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJSMeKKF2QT4",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
    "a password in a URL": "postgresql://me:hunter2@host/db",
    "a bearer token": "Authorization: Bearer abcdefghij0123456789",
}


@pytest.mark.parametrize("what", LOOKALIKES)
def test_each_form_is_found_where_it_stands_and_not_repeated(what: str) -> None:
    text = f'first line\nsecond "{LOOKALIKES[what]}" end'
    (found,) = find_secrets(text)
    assert found.what == what
    assert found.line == 2
    assert text[found.start : found.end] in LOOKALIKES[what]
    assert text.splitlines()[1][found.column - 1 :].startswith(text[found.start : found.end])
    assert LOOKALIKES[what][-8:] not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "a task-based-learning-scheme-without-digits, risk-0123456789012345678",
        "run 01M809FN3Q05T6KXSFESMEZZBE, ledger head 251:f06b18faeffd18e1" + "0" * 48,
        "sha256:" + "0123456789abcdef" * 4,
        "https://example.org/a:b@c and http://host:8080/path and postgresql://me@host/db",
        "the bearer of this letter; hf_short; sk-learn",
    ],
)
def test_plain_text_ids_hashes_and_addresses_are_no_secrets(text: str) -> None:
    assert find_secrets(text) == []


@pytest.mark.parametrize("name", KEY_VARIABLES)
def test_values_of_key_variables_are_found_in_every_writing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = 'odd<"value>&/'
    monkeypatch.setenv(name, value)
    for written in (value, html.escape(value), json.dumps(value), "odd%3C%22value%3E%26%2F"):
        (found,) = find_secrets(f"x {written}")
        assert found.what == f"the value of ${name}"
    monkeypatch.setenv(name, "short")
    assert find_secrets("short") == []


def test_the_password_of_the_notebooks_server_is_found_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURONAUT_NOTEBOOK", "postgresql://me:correct-horse@host/db")
    (found,) = find_secrets("they said correct-horse")
    assert (found.what, found.start) == ("the value of the password in $NEURONAUT_NOTEBOOK", 10)


def test_one_place_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", LOOKALIKES["an Anthropic key"])
    assert len(find_secrets(f"{LOOKALIKES['an Anthropic key']} and {LOOKALIKES['an AWS key']}")) == 2
