"""Finds secrets that were typed where everybody can read them: keys by their look, and random texts behind telling names."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

_WORDS: Final = {
    "private": "a private key",
    "anthropic": "a key of Anthropic",
    "model": "a key of a model provider",
    "huggingface": "a token of Hugging Face",
    "stripe": "a key of Stripe",
    "signing": "a secret to sign with",
    "github": "a token of GitHub",
    "gitlab": "a token of GitLab",
    "slack": "a token of Slack",
    "slack_address": "an address of Slack that anybody can post to",
    "discord_address": "an address of Discord that anybody can post to",
    "aws": "an access key of AWS",
    "google": "a key of Google",
    "sendgrid": "a key of SendGrid",
    "mailgun": "a key of Mailgun",
    "packages": "a token of a package registry",
    "shopify": "a token of Shopify",
    "digitalocean": "a token of DigitalOcean",
    "telegram": "a token of Telegram",
    "signed": "a signed token",
}
_ANY_KEY: Final = re.compile(
    r"""
    (?P<private>-----BEGIN[ ](?:[A-Z]{2,10}[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----)
    |(?P<anthropic>\bsk-ant-[A-Za-z0-9_-]{20,})
    |(?P<model>\bsk-(?:proj|svcacct|or|lf)-[A-Za-z0-9_-]{20,} | \bsk-[A-Za-z0-9]{32,}(?![A-Za-z0-9_-])
        | \b(?:gsk_|xai-|r8_|pplx-)[A-Za-z0-9]{32,}(?![A-Za-z0-9_-]))
    |(?P<huggingface>\bhf_[A-Za-z0-9]{30,}(?![A-Za-z0-9_-]))
    |(?P<stripe>\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}(?![A-Za-z0-9_-]))
    |(?P<signing>\bwhsec_[A-Za-z0-9+/]{24,})
    |(?P<github>\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})(?![A-Za-z0-9_-]))
    |(?P<gitlab>\bglpat-[A-Za-z0-9_-]{20,})
    |(?P<slack>\bxox[abeoprs]-[A-Za-z0-9-]{20,} | \bxapp-[0-9]-[A-Za-z0-9-]{20,})
    |(?P<slack_address>\bhooks\.slack\.com/(?:services|workflows)/[A-Z0-9]{8,}/[A-Za-z0-9/]{16,})
    |(?P<discord_address>\bdiscord(?:app)?\.com/api/webhooks/[0-9]{15,}/[A-Za-z0-9_-]{40,})
    |(?P<aws>\b(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9_-]))
    |(?P<google>\bAIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-]) | \bya29\.[A-Za-z0-9_-]{30,})
    |(?P<sendgrid>\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{30,})
    |(?P<mailgun>\bkey-[0-9a-f]{32}(?![A-Za-z0-9_-]))
    |(?P<packages>\bnpm_[A-Za-z0-9]{36}(?![A-Za-z0-9_-]) | \bpypi-AgE[A-Za-z0-9_-]{50,})
    |(?P<shopify>\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}(?![A-Za-z0-9_-]))
    |(?P<digitalocean>\bdo[opr]_v1_[0-9a-f]{64}(?![A-Za-z0-9_-]))
    |(?P<telegram>\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-]))
    |(?P<signed>\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,})
    """,
    re.VERBOSE,
)
# What a text must hold before it is worth a closer look: this is asked of every text of every step.
_MARKS: Final = (
    "PRIVATE KEY", "sk-", "gsk_", "xai-", "r8_", "pplx-", "hf_", "_live_", "_test_", "whsec_", "ghp_", "gho_", "ghu_", "ghs_",
    "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "hooks.slack.com", "/api/webhooks/", "AKIA", "ASIA", "AIza", "ya29.", "SG.",
    "key-", "npm_", "pypi-AgE", "shpat_", "shpca_", "shppa_", "shpss_", "_v1_", ":AA", "eyJ",
)  # fmt: skip
_NAMES: Final = ("key", "passw", "pwd", "secret", "token", "credential")
_BEARER: Final = re.compile(r"\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{16,}=*)", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@{}<>\"']{1,100}:([^\s/@{}<>\"']{3,200})@[A-Za-z0-9\[]"
)
_NAMED: Final = re.compile(
    r"(?i)(?<![a-z])((?:[a-z0-9]{1,20}[_-]){0,3}(?:api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|password|passwd|pwd|"
    r"secret|token|credentials?))[\"']?\s{0,3}[:=]\s{0,3}[\"']?([^\s\"'{}<>,;&]{8,200})"
)
_NAME: Final = re.compile(
    r"(?i)(?:^|[^a-z]|(?<=[a-z])(?=[A-Z]))(?:x-)?(?:api[ _-]?key|access[ _-]?key|secret[ _-]?key|private[ _-]?key|password|passwd|"
    r"passphrase|pwd|secret|token|authorization|credentials?)$"
)
_PLACEHOLDER: Final = re.compile(
    r"(?i)example|sample|placeholder|change.?me|your|xxx|\.\.\.|…|\*\*\*|dummy|redacted|insert|replace|todo|<|>|^test|demo|secret|password|token"
)
_LONGEST: Final = 100_000


def leaks(text: str) -> Iterator[str]:
    """What kinds of secrets a text holds, in words. Texts longer than 100,000 characters are read up to there."""
    text = text[:_LONGEST]
    if len(text) < 8:
        return
    if any(mark in text for mark in _MARKS):
        for found in _ANY_KEY.finditer(text):
            if not _is_sample(found[0]):
                yield _WORDS[found.lastgroup or ""]
                break
    if "://" in text:
        for match in _URL_PASSWORD.finditer(text):
            if not _PLACEHOLDER.search(match[1]) and match[1].lower() not in ("pass", "pwd"):
                yield "a password in an address"
                break
    lower = text.lower()
    for match in _BEARER.finditer(text) if "bearer" in lower or "basic" in lower else ():
        if looks_random(match[1]):
            yield "a token to sign in with"
            break
    for match in _NAMED.finditer(text) if any(name in lower for name in _NAMES) else ():
        if looks_random(match[2]):
            yield f"a secret behind “{match[1]}”"
            break


def named_leak(name: str, text: str) -> str:
    """What kind of secret a text is by the name that it stands behind; empty when it looks harmless."""
    text = text.strip()
    if "{{" in text or len(text) > 500 or not _NAME.search(name.strip()):
        return ""
    last = text.rpartition(" ")[2]
    return f"a secret in “{name.strip()}”" if looks_random(last) else ""


def looks_random(text: str) -> bool:
    """Whether a word looks like a generated key: long, of several kinds of signs, hardly repeating itself."""
    text = text.rstrip("=")
    if len(text) < 12 or len(text) > 500 or _is_sample(text) or "://" in text or text.count("/") > len(text) / 8:
        return False
    kinds = sum(any(test(sign) for sign in text) for test in (str.islower, str.isupper, str.isdigit))
    digits = sum(sign.isdigit() for sign in text)
    if digits == len(text) or (kinds < 2 and len(text) < 24) or not digits:
        return False
    # Words with separators are names, such as `slack-support-key-2`.
    words = re.split(r"[-_.]", text)
    if all(word.isalpha() or (word.isdigit() and len(word) < 5) for word in words):
        return False
    counts = Counter(text)
    entropy = -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())
    return entropy >= 3.0


def _is_sample(text: str) -> bool:
    return bool(_PLACEHOLDER.search(text)) or len(set(text)) < 6


def texts(value: Any, place: str = "", name: str = "") -> Iterator[tuple[str, str, str]]:
    """Every text inside a JSON value: its place, the name that it stands behind, the text.

    A record with `name` and `value` is one named text: so headers and parameters are written.
    """
    stack: list[tuple[str, str, Any]] = [(place, name, value)]
    while stack:
        place, name, value = stack.pop()
        if isinstance(value, str):
            yield place, name, value
        elif isinstance(value, dict):
            called = value.get("name")
            for key, part in reversed(value.items()):
                known = called if key == "value" and isinstance(called, str) else key
                stack.append((f"{place}.{key}" if place else key, known, part))
        elif isinstance(value, list):
            for number, part in reversed(list(enumerate(value))):
                stack.append((f"{place}.{number}" if place else str(number), name, part))
