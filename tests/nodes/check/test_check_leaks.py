"""Secrets that were typed into texts are found; what only looks like one is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.check.leaks import leaks, looks_random, named_leak, texts
from nodes.ids import new_id, new_token
from tests.nodes.check.drawing import codes, draw, found

# Written in pieces, so that no scanner takes this file for a leak.
SECRETS = [
    "sk-" + "ant-api03-Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5",
    "sk-" + "proj-T3BlbkFJ9zK2mQ8vR4nW7xY1aB5c",
    "sk-" + "Q9zK2mQ8vR4nW7xY1aB5cD6eF3gH0jKl2Mn4Pq6R",
    "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc",
    "rk_" + "test_4eC39HqLyjWDarjtT1zdp7dc",
    "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat_" + "11ABCDEFG0aBcDeFgHiJkL_mNoPqRsTuVwXyZ0123456789",
    "glpat-" + "x8Kq2Zt7Wm4Rv9Yb3Nc6",
    "xoxb-" + "2345678901-2345678901234-AbCdEfGhIjKlMnOpQrStUvWx",
    "https://hooks." + "slack.com/services/T024BE7LD/B024BE7LE/AbCdEfGhIjKlMnOpQrStUvWx",
    "AKIA" + "Z7QW4NPX3RTYU5VB",
    "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi",
    "SG." + "ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf09kqeF8tAmbihYzrnopKc1s5cr",
    "gsk_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow",
    "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "postgresql://app:" + "hT7kQ2mX9@db.internal:5432/shop",
    "Authorization: Bearer " + "9fK2mQ8vR4nW7xY1aB5cD6eF",
    "curl -H 'X-API-Key: " + "9fK2mQ8vR4nW7xY1aB5cD6eF'",
    '{"api_key": "' + '9fK2mQ8vR4nW7xY1aB5cD6eF"}',
    "password=" + "hT7kQ2mX9vB4",
]
HARMLESS = [
    "Hello {{ name }}, your token is {{ token }}.",
    "Authorization: Bearer {{ steps.login.body.token }}",
    "https://user:{{ password }}@example.com/",
    "https://example.com:8080/path@place",
    "postgresql://user:password@localhost/db",
    "The password: please ask your administrator for one.",
    "Set api_key=YOUR_API_KEY_HERE before you begin",
    "sk-your-key-goes-here-and-nowhere-else",
    "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "Your secret: slack-support-channel-2",
    "token: order-confirmation-2026",
    "Never put a -----BEGIN CERTIFICATE----- here",
    "AKIA is the beginning of a key of AWS",
    "secret santa is on 24 December",
    "commit 16c7e42f292c6912e7710c838347ae178b4a",
    "https://example.com/hooks/9fk2mq8vr4nw7xy1ab5cd6ef",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO",
    "Bearer of good news, this message is for you",
    "password_field_is_required_in_this_form",
    "total_tokens: 12345678901234",
    "max_tokens=1024 temperature=0.7",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_found_in_any_text(text: str) -> None:
    assert list(leaks(text))
    assert list(leaks(f"Please use this: {text} and be careful."))


@pytest.mark.parametrize("text", HARMLESS)
def test_a_harmless_text_is_left_alone(text: str) -> None:
    assert not list(leaks(text))


@pytest.mark.parametrize(
    "name", ["token", "X-API-Key", "password", "apiKey", "client_secret", "Authorization", "accessToken"]
)
def test_a_random_text_behind_a_telling_name_is_a_secret(name: str) -> None:
    assert named_leak(name, "9fK2mQ8vR4nW7xY1aB5cD6eF")
    assert not named_leak(name, "{{ vars.key }}")
    assert not named_leak(name, "my-shop-key")


@pytest.mark.parametrize("name", ["path", "id", "hash", "tokens", "keyboard", "description", "secretary", ""])
def test_a_random_text_behind_any_other_name_is_not(name: str) -> None:
    assert not named_leak(name, "9fK2mQ8vR4nW7xY1aB5cD6eF")


@given(
    st.lists(
        st.sampled_from(
            [
                "the",
                "quick",
                "brown",
                "fox",
                "jumps",
                "over",
                "a",
                "lazy",
                "dog",
                "orders",
                "customers",
                "total",
                "invoice",
                "2026",
                "Berlin",
            ]
        ),
        max_size=40,
    )
)
def test_plain_words_are_never_a_secret(words: list[str]) -> None:
    assert not list(leaks(" ".join(words)))
    assert not looks_random("-".join(words))


def test_every_text_inside_a_value_is_read_with_the_name_it_stands_behind() -> None:
    value = {"a": ["x", {"b": "y"}], "rows": [{"name": "X-Key", "value": "z"}], "n": 1}
    assert list(texts(value)) == [
        ("a.0", "a", "x"),
        ("a.1.b", "b", "y"),
        ("rows.0.name", "name", "X-Key"),
        ("rows.0.value", "X-Key", "z"),
    ]


def test_addresses_and_ids_of_our_own_are_no_secrets() -> None:
    hook = ("trigger.webhook", {"path": new_token(), "secret": "hook_key"})
    call = ("flow.call_blueprint", {"blueprint": new_id("bp")})
    blueprint = draw({"t": hook, "c": call}, "t.body > c.value")
    assert "secret.in_text" not in codes(blueprint)


def test_the_place_is_named_and_the_secret_is_not_repeated() -> None:
    headers = [{"name": "Accept", "value": "*/*"}, {"name": "X-API-Key", "value": "9fK2mQ8vR4nW7xY1aB5cD6eF"}]
    blueprint = draw(
        {"t": ("trigger.manual",), "a": ("context.http_request", {"url": "https://example.com", "headers": headers})},
        "t.value > a.value",
    )
    finding = found(blueprint, "secret.in_text")
    assert (finding.node, finding.field) == ("a", "headers.1.value")
    assert "9fK2" not in finding.sentence + finding.fix


@pytest.mark.parametrize("secret", SECRETS[:6])
def test_variables_notes_and_pinned_data_are_read_too(secret: str) -> None:
    nodes = {"t": ("trigger.manual", {}, {"pinned": {"value": {"said": secret}}})}
    assert "secret.in_text" in codes(draw(nodes))
    nodes = {"t": ("trigger.manual",)}
    assert "secret.in_text" in codes(draw(nodes, variables=[{"name": "x", "value": [secret]}]))
    assert "secret.in_text" in codes(draw(nodes, notes=[{"id": "n", "text": f"The key is {secret}"}]))
    assert "secret.in_text" in codes(draw(nodes, description=secret))
