import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tracking.redact import REDACTED, is_secret_name, redact, redact_text

SECRET_NAMES = """password Password db_password passwd passphrase secret client_secret secrets api_key apikey
apiKey API-KEY WANDB_API_KEY OPENAI_API_KEY HF_TOKEN hf_token token accessToken access_token authorization
Authorization AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID AWS_SESSION_TOKEN private_key credentials --password
--api-key logger.wandb.api_key GITHUB_TOKEN cookie NETRC"""
PLAIN_NAMES = """max_tokens num_tokens tokenizer tokens pad_token cls_token class_token author authors
authority key keys keyword seed compass bypass passes public monkey turkey patience hash sorted_keys
TOKENIZERS_PARALLELISM XAUTHORITY token_dim"""
SHAPES = [
    "hf_" + "aB3dE6gH9" * 4,
    "wandb_v1_" + "aB3_" * 19,
    "0123456789abcdef" * 2 + "01234567",
    "0123456789" * 8 + "abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "sk-" + "proj-a1B2c3" * 4,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIVATE KEY-----",
]


@pytest.fixture(autouse=True)
def no_secrets_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if is_secret_name(name):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)
    assert redact({name: "hunter2"}) == {name: REDACTED}


@pytest.mark.parametrize("name", PLAIN_NAMES.split())
def test_plain_names(name: str) -> None:
    assert not is_secret_name(name)
    assert redact({name: "hunter2"}) == {name: "hunter2"}
    assert redact_text(f"{name}=hunter2") == f"{name}=hunter2"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["{}", "x {} y", "https://host/?q={}&r=1", "'{}'", "key={}", "({})"])
def test_known_shapes_are_cut_out_of_text(shape: str, form: str) -> None:
    result = redact_text(form.format(shape))
    assert shape not in result
    assert REDACTED in result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run --password hunter2 --lr 3", f"run --password {REDACTED} --lr 3"),
        ("run --api-key=hunter2 lr=3", f"run --api-key={REDACTED} lr=3"),
        ("logger.api_key=hunter2", f"logger.api_key={REDACTED}"),
        ('{"password": "hun ter2", "a": 1}', f'{{"password": "{REDACTED}", "a": 1}}'),
        ("{'db_password': 'hunter2'}", f"{{'db_password': '{REDACTED}'}}"),
        ("Authorization: Bearer hunter2", f"Authorization: {REDACTED}"),
        ("HF_TOKEN=hunter2 python x.py", f"HF_TOKEN={REDACTED} python x.py"),
        ("https://me:hunter2@host/repo.git", f"https://{REDACTED}@host/repo.git"),
        ("num_tokens=128 --max-tokens 5 author: me", "num_tokens=128 --max-tokens 5 author: me"),
    ],
)
def test_names_in_text(text: str, expected: str) -> None:
    assert redact_text(text) == expected


def test_structures_keep_their_form_and_everything_that_is_no_secret() -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    value: dict[str, Any] = {
        "lr": 3e-4,
        "n": 3,
        "flag": True,
        "none": None,
        "git": {"commit": commit, "diff": commit},
        "fingerprint": "ab" * 32,
        "password": None,
        "token": "",
        "args": ["--password", "hunter2", "--lr", "1"],
        "deep": [{"auth": {"user": "me", "n": 5}}, ("a", b"b")],
    }
    expected = dict(value, args=["--password", REDACTED, "--lr", "1"], deep=[{"auth": REDACTED}, ["a", "b"]])
    assert redact(value) == expected
    assert redact({"x": commit}) == {"x": REDACTED}


def test_values_of_the_environment_in_every_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    value = 'p@ss "w\\ord\n/ü'
    monkeypatch.setenv("DB_PASSWORD", value)
    monkeypatch.setenv("SHORT_TOKEN", "yes")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "opensesame")
    assert redact_text("with opensesame") == f"with {REDACTED}" and redact({"sort_key": "name"}) == {
        "sort_key": "name"
    }
    for text in (value, json.dumps(value), repr(value), "u=" + quote(value, safe="")):
        assert REDACTED in redact_text(f"before {text} after")
        assert "ord" not in redact_text(f"before {text} after")
    assert redact({value: [value], "a": {"b": value}}) == {REDACTED: [REDACTED], "a": {"b": REDACTED}}
    assert redact_text("yes") == "yes"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(JSON)
def test_a_second_time_changes_nothing(value: Any) -> None:
    once = redact(value)
    assert redact(once) == once


@settings(deadline=None)
@given(st.text(alphabet="abcXYZ0123456789-_", min_size=24, max_size=60), JSON)
def test_a_planted_value_is_found_wherever_it_stands(secret: str, around: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_SECRET", secret)
        value = {"a": [around, {"b": f"x{secret}y"}], secret: secret, "t": (secret,)}
        assert secret not in json.dumps(redact(value))
        assert secret not in redact_text(f"{secret} {value!r}")


def test_long_lines_take_no_quadratic_time() -> None:
    import time

    started = time.process_time()
    for filler in ("a-", "token", "a.b_", "--x ", "'", "://", "="):
        redact_text(filler * (100_000 // len(filler)))
    assert time.process_time() - started < 5


def test_the_shell_s_folders_are_no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/srv/rethesis")
    monkeypatch.setenv("OLDPWD", "/srv")
    monkeypatch.setenv("DB_PWD", "correct-horse-battery")
    line = 'File "/srv/rethesis/common/study/job.py", line 62, in main'
    assert redact_text(line) == line
    assert "correct-horse" not in redact_text("login with correct-horse-battery")
