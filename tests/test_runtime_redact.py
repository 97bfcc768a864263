from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentful.runtime.redact import MASK, Redactor, looks_secret, secret_values, without_escapes

SECRET = 'correct horse/battery+staple="é"'
nothing_known = Redactor()

# Made up, and put together here, so that nobody's scanner takes this file for a leak.
SHAPES = [
    "sk-" + "ant-api03-AbCdEf0123456789_-xyz",
    "sk-" + "proj-0123456789abcdefABCDEF",
    "gh" + "p_0123456789abcdefABCDEF0123456789abcd",
    "gh" + "o_0123456789abcdefABCDEF0123456789abcd",
    "github" + "_pat_11ABCDEFG0123456789_abcdefghij",
    "glpat" + "-0123456789abcdefABCD",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "AIza" + "SyA0123456789abcdefghijklmnopqrstuv",
    "xox" + "b-0123456789-abcdef",
    "hf_" + "0123456789abcdefABCDEF0123456789ab",
    "eyJ" + "hbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
]


@pytest.mark.parametrize("secret", SHAPES)
@pytest.mark.parametrize("form", ["{}", "key: {}", '{{"key": "{}"}}', "K={}; echo", "({})"])
def test_known_shapes(secret: str, form: str) -> None:
    assert nothing_known.redact(form.format(secret)) == form.format(MASK)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abcdef0123456789.xyz", f"Authorization: Bearer {MASK}"),
        ("authorization: basic dXNlcjpwYXNzd29yZDEyMw==", f"authorization: basic {MASK}"),
        ("postgres://me:hunter2@db:5432/app", f"postgres://{MASK}@db:5432/app"),
    ],
)
def test_shapes_by_what_stands_around_them(text: str, redacted: str) -> None:
    assert nothing_known.redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "task-implement-the-authentication-api-2",
        "sk-learn-contrib-something-quite-long",
        "risk-0123456789-0123456789-0123456789",
        "the ghp_ prefix, an AKIA prefix, xoxb- and a bearer token",
        "Bearer authentication-is-what-we-want",
        "basic internationalization",
        "https://example.com:8080/a@b",
        "git@github.com:me/project.git",
        "commit 3b0ec25f1c5a4c8f9d7e6b5a4c3d2e1f0a9b8c7d",
        "a private key is not in here",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert nothing_known.redact(text) == text


ENCODED = {
    "plain": SECRET,
    "json": json.dumps(SECRET)[1:-1],
    "json, not ascii": json.dumps(SECRET, ensure_ascii=False)[1:-1],
    "url": quote(SECRET, safe=""),
    "url path": quote(SECRET),
    "form": quote_plus(SECRET),
    "hex": SECRET.encode().hex(),
    "HEX": SECRET.encode().hex().upper(),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in ENCODED.items()])
def test_known_values_in_their_encodings(text: str) -> None:
    assert Redactor([SECRET]).redact(f"<{text}> {text}") == f"<{MASK}> {MASK}"


@given(before=st.binary(max_size=7), after=st.binary(max_size=7), safe=st.booleans())
def test_known_values_inside_base64(before: bytes, after: bytes, safe: bool) -> None:
    encode = base64.urlsafe_b64encode if safe else base64.b64encode
    text = encode(before + SECRET.encode() + after).decode()
    redacted = Redactor([SECRET]).redact(text)
    assert MASK in redacted
    # What is left of it, apart from the neighbours, is less than three bytes at each end.
    assert len(redacted) - len(MASK) <= len(encode(before)) + len(encode(after)) + 4


@given(st.lists(st.text(min_size=8, max_size=20), min_size=1, max_size=4), st.text(max_size=20))
def test_no_known_value_is_left(values: list[str], around: str) -> None:
    redacted = Redactor(values).redact(around + around.join(values))
    for value in values:
        if len(value.strip()) >= 8 and value.strip() not in around and value.strip() not in MASK:
            assert value.strip() not in redacted.replace(MASK, "\n")


def test_a_value_that_has_another_in_it() -> None:
    assert (
        Redactor(["password", "password-and-more"]).redact("password-and-more password") == f"{MASK} {MASK}"
    )


def test_short_values_stay_and_long_ones_go_line_by_line() -> None:
    redactor = Redactor(["", "1", "true", "first line of it\nand a second one\n"])
    assert redactor.redact("1 is true") == "1 is true"
    assert redactor.redact("> and a second one") == f"> {MASK}"
    assert redactor.redact("x first line of it\nand a second one") == f"x {MASK}"


def test_colours() -> None:
    redactor = Redactor([SECRET])
    assert redactor.redact("\x1b[32mgreen\x1b[0m") == "\x1b[32mgreen\x1b[0m"
    assert redactor.redact(f"\x1b[32m{SECRET}\x1b[0m") == f"\x1b[32m{MASK}\x1b[0m"
    assert redactor.redact(f"\x1b[32m{SECRET[:5]}\x1b[0m{SECRET[5:]}") == MASK
    assert without_escapes("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07 \x1b[1;31mred\x1b[m") == "link red"


KEY = [
    "-----BEGIN " + "RSA PRIVATE KEY-----",
    "Proc-Type: 4,ENCRYPTED",
    "",
    "MIIEpAIBAAKCAQEA0123456789abcdefABCDEF+/",
    "+MIIEpAIBAAKCAQEA0123456789abcdef==",
    "-----END " + "RSA PRIVATE KEY-----",
]


def test_a_private_key_in_one_text() -> None:
    text = "\n".join(KEY)
    assert nothing_known.redact(f"a {text} b") == f"a {MASK} b"
    assert nothing_known.redact(json.dumps(text)) == f'"{MASK}"'
    assert nothing_known.redact("\n".join(KEY[:-1])) == MASK


def test_a_private_key_line_by_line() -> None:
    stream = nothing_known.stream()
    lines = ["before", "x " + KEY[0], *KEY[1:-1], KEY[-1] + " after", "more"]
    assert [stream.redact(line) for line in lines] == [
        "before",
        f"x {MASK}",
        *[MASK] * 4,
        f"{MASK} after",
        "more",
    ]


def test_a_key_that_is_only_spoken_of() -> None:
    stream = nothing_known.stream()
    assert stream.redact(f'BEGIN = "{KEY[0]}"') == f'BEGIN = "{MASK}'
    assert stream.redact("it begins with that (as one knows)") == "it begins with that (as one knows)"
    assert stream.redact("MIIEpAIBAAKCAQEA") == "MIIEpAIBAAKCAQEA"
    assert stream.redact(" ".join([KEY[0], "MII", KEY[-1]])) == MASK
    assert stream.redact("MIIEpAIBAAKCAQEA") == "MIIEpAIBAAKCAQEA"


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_API_KEY",
        "GITHUB_TOKEN",
        "DB_PASSWORD",
        "PGPASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "npm_config__authToken",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "PWD",
        "MAX_TOKENS",
        "KEYBOARD",
        "AUTHOR",
        "SSH_AUTH_SOCK",
        "API_KEY_FILE",
        "TOKENIZERS_PARALLELISM",
        "_",
    ],
)
def test_names_of_other_things(name: str) -> None:
    assert not looks_secret(name)


def test_values_from_an_environment() -> None:
    assert secret_values({"HOME": "/home/me", "A_TOKEN": "t", "B_KEY": "k"}) == ["t", "k"]
