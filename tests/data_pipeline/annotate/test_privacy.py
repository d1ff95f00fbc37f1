"""Privacy: what is found, what is left alone, where the masks stand, which domains are dense."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pyarrow as pa
import pytest

from configs.schema.pipeline import PrivacyConfig
from data_pipeline import edits
from data_pipeline.annotate import privacy, privacy_domains
from data_pipeline.document import read_table, shard_path, write_table

TOKEN = "".join(random.Random(1).choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=40))
HEXADECIMAL = "0f9e3b1a7c5d2e8f4a6b0c9d1e3f5a7b"

FOUND = {
    "email": [
        "jane.doe+list@mail.example.co.uk",
        "müller@bücher.de",
        "o'brien@example.ie",
        "info(at)firma.de",
        "max [at] uni-koeln.de",
        "erika -at- example.org",
        "postmaster@[91.198.174.192]",
        "root@[IPv6:2a00:1450::200e]",
    ],
    "ip": ["91.198.174.192", "2a00:1450:4001:81b::200e", "2600:1f18:4e6:ab00:1234:5678:9abc:def0"],
    "phone": [
        "(212) 555-0123",
        "212-555-0123",
        "+1 415 555 2671",
        "+49 (0)30 1234567",
        "+442079460958",
        "0044 20 7946 0958",
        "01 23 45 67 89",
        "020 7946 0958",
        "03-1234-5678",
        "+376 312 345",
        "+298 123456",
        "+299 12 34 56",
        "+687 12.34.56",
        "+500 51253",
    ],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "3056 930902 5904"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "NO93 8601 1117 947"],
    "ssn": ["536-22-1867"],
    "secret": [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + TOKEN[:36],
        "xoxb-123456789012-abcdefABCDEF1234",
        "AIza" + TOKEN[:35],
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabc\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{TOKEN}\n{TOKEN}\n=aB3d\n"
        "-----END PGP PRIVATE KEY BLOCK-----",
        "gsk_" + (TOKEN + TOKEN)[:52],
        "GOCSPX-" + TOKEN[:28],
        "hvs." + TOKEN,
        f"https://hooks.slack.com/services/T0{TOKEN[:8].upper()}/B0{TOKEN[8:16].upper()}/{TOKEN[16:40]}",
        f"https://ptb.discord.com/api/v10/webhooks/1098765432109876543/{TOKEN}_{TOKEN[:27]}",
        f"MTA5ODc2NTQzMjEwOTg3NjU0Mw.GhIjKl.{TOKEN[:38]}",
        f"SG.{TOKEN[:22]}.{TOKEN[:20]}-{TOKEN[:22]}",
        f"SK{HEXADECIMAL}",
        f"AC{HEXADECIMAL}",
        f"{HEXADECIMAL}-us21",
        f"1098765432:AA{TOKEN[:33]}",
    ],
}


def test_a_private_key_goes_as_far_as_its_base64() -> None:
    begin, prose = "-----BEGIN RSA PRIVATE KEY-----", "The river rises in the hills above the town. " * 30
    named = f"It starts with {begin} and must never be published. {prose}"
    assert kinds(named) == []
    assert kinds(f"{named} It ends with -----END RSA PRIVATE KEY-----.") == []
    cut = f"{begin}\nProc-Type: 4,ENCRYPTED\n\n{TOKEN}\n{TOKEN}\n"
    assert kinds(f"{cut}\n{prose}") == [("secret", cut.rstrip())]
    escaped = f"{begin}\\n{TOKEN}\\/{TOKEN}\\nab3=\\n-----END RSA PRIVATE KEY-----"
    assert kinds(f'"key": "{escaped}\\n", "text": "{prose}"') == [("secret", escaped)]


def kinds(text: str) -> list[tuple[str, str]]:
    found, _ = privacy.find(pa.array([text], pa.large_string()))
    return [(privacy.KINDS[k], text[a:b]) for _, a, b, k in found.tolist()]


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, values in FOUND.items() for v in values])
@pytest.mark.parametrize(
    "frame", ["Grüße 日本 {} und weiter", "{}", "seen: {}.", "({})", "a\n{}\nb", "“{}”, x"]
)
def test_personal_data_are_found_where_they_stand(kind: str, value: str, frame: str) -> None:
    assert kinds(frame.format(value)) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "icon foo@2x.png, user@host, @name, a@b, git@github.com:x/y, npm i left-pad@1.3.0",
        "version 10.2.3.41, v8.45.120.3, Firefox/3.60.30.99, 192.168.1.1, 127.0.0.1, 203.0.113.9, 1.2.3.4.5, 999.1.1.1",
        "12:34:56, std::vector, dead::beef, fe80::1, 2001:db8::7, 00:1b:44:11:3a:b7",
        "ISBN 978-3-16-148410-0, 0-306-40615-2, order 123-456-7890, 2020-10-12 10:20:30, 01.02.2003 14:55",
        "40.7128, -74.0060; doi:10.1000/182.555-0123; pi 3.14159265358979; $1,234,567.89; 1 000 000 people",
        "order 4111111111111111; 4111 1111 1111 1112; 1234 4111 1111 1111 1111 2345; GB82WEST12345698765433",
        "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709, uuid 123e4567-e89b-12d3-a456-426614174000",
        "000-12-3456, 666-12-3456, 900-12-3456, password = changeme, token: see_the_documentation_below",
        "gains of +376 312 345 EUR and +298 123456 %, Main.System.collectionsOfThings, SG.a.b, discord.com/api/docs",
        f"md5 {HEXADECIMAL}, ACTION, {HEXADECIMAL}-usual, hooks.slack.com/services, 12:30:AA, see 123456:ABC, MTA5.GhIjKl.x",
        "password: getHTTPResponseURLFromAPI, token: YourAPIKeyGoesHere, token: SomeVeryLongConstantNameForThis",
        "user@[here], user@[1.2.3], user@[999]",
        "the key: aVeryLongIdentifierWithoutAccess12, eyJust.eyCode.x, sk-learn, hf_hub",
    ],
)
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    assert kinds(text) == []


@pytest.mark.parametrize(
    "name", ["api_key", "AWS_SECRET_ACCESS_KEY", "client-secret", "password", "authToken"]
)
@pytest.mark.parametrize("assignment", ["{}={}", '{}: "{}"', "{} = '{}'", '"{}": "{}"'])
def test_random_values_of_secret_names_are_found(name: str, assignment: str) -> None:
    assert kinds(assignment.format(name, TOKEN)) == [("secret", TOKEN)]
    assert kinds(assignment.format("colour", TOKEN)) == []


def test_leaders_are_no_part_of_an_address_and_sentences_none_of_a_number() -> None:
    for dots in (2, 5, 200):
        assert kinds(f"Anna Meier{'.' * dots}anna@example.org") == [("email", "anna@example.org")]
    assert kinds("(ring +354 470 0064) 246 people. Or +33 7 78 25 48 10. 3.4 MB") == [
        ("phone", "+354 470 0064"),
        ("phone", "+33 7 78 25 48 10"),
    ]


def test_values_of_letters_alone_are_random_or_names() -> None:
    draw = random.Random(5)
    values = ["".join(draw.choices(string.ascii_letters, k=24)) for _ in range(100)]
    assert sum(kinds(f"password: {value}") == [("secret", value)] for value in values) >= 80


def test_keys_whose_alphabet_has_no_digit_are_found() -> None:
    draw = random.Random(0)
    keys = ["hf_" + "".join(draw.choices(string.ascii_letters, k=34)) for _ in range(200)]
    assert [kinds(f"login with {key} now") for key in keys] == [[("secret", key)] for key in keys]
    assert (
        kinds("hf_this_is_a_long_identifier_in_snake_case and hf_thisisoneinsmalllettersalonewithoutany")
        == []
    )


def test_words_before_a_number_say_what_it_is() -> None:
    assert kinds("Tel.: 5551234") == [("phone", "5551234")]
    assert kinds("Telefon 0221 470 12 34") == [("phone", "0221 470 12 34")]
    assert kinds("Телефон: 495 123 45 67") == [("phone", "495 123 45 67")]
    assert kinds("ISBN 5551234") == kinds("5551234") == []
    assert kinds("my DNS is 8.8.4.4") == [("ip", "8.8.4.4")]
    assert kinds("see 8.8.4.4 of the manual") == []


def test_password_in_an_address_is_a_secret_and_no_mail() -> None:
    assert kinds("postgres://admin:hunter2pass@db.example.com:5432/x") == [("secret", "hunter2pass")]


def test_masks_stand_for_what_the_policy_masks() -> None:
    text = "Ø: Jane (jane@example.com, 212-555-0123) ☎ 91.198.174.192"
    documents = pa.table({"id": ["0", "1", "2"], "text": ["nothing", text, None]})
    signals, proposed = privacy.annotate(documents, PrivacyConfig())
    spans = [edits.Span(**s) for s in proposed["spans"][1].as_py()]
    assert edits.apply(text, [spans]) == "Ø: Jane (<email>, <phone>) ☎ <ip>"
    row = signals.slice(1, 1).to_pylist()[0]
    assert (row["emails"], row["phones"], row["ips"], row["found"], row["chars"]) == (1, 1, 1, 3, len(text))
    assert row["per_1k_chars"] == pytest.approx(3000 / len(text))
    assert proposed["spans"].to_pylist()[0] == proposed["spans"].to_pylist()[2] == []
    few = privacy.annotate(documents, PrivacyConfig(mask=("email",), placeholder="[KIND removed]"))
    assert few[0].equals(signals)
    spans = [edits.Span(**s) for s in few[1]["spans"][1].as_py()]
    assert edits.apply(text, [spans]) == text.replace("jane@example.com", "[email removed]")


def test_chunks_and_slices_change_nothing() -> None:
    texts = [f"mail a{i}@example.org or call 212-555-0{i:03}" for i in range(50)]
    whole = pa.table({"id": [str(i) for i in range(50)], "text": texts})
    parts = pa.concat_tables([whole.slice(0, 17), whole.slice(17, 1), whole.slice(18)])
    assert privacy.annotate(whole, PrivacyConfig())[1].equals(
        privacy.annotate(parts, PrivacyConfig())[1].combine_chunks()
    )


@pytest.mark.parametrize(
    "piece",
    [
        "a@",
        "@",
        "1",
        "1.",
        "1-",
        "+1 ",
        "eyJ.",
        "eyJ",
        "-----BEGIN PRIVATE KEY-----",
        "key=",
        "ab:c@",
        "2001:",
        "(at)",
        "x_",
        "a" * 99,
    ],
)
def test_hostile_texts_take_linear_time(piece: str) -> None:
    privacy.find(pa.array(["x"], pa.large_string()))
    text = piece * (2_000_000 // len(piece))
    # Quadratic time would be hours, past the time limit of any test.
    privacy.find(pa.array([text], pa.large_string()))


def test_a_contact_on_every_page_is_no_dense_domain(tmp_path: Path) -> None:
    filler = "Some words about nothing in particular. " * 25
    pages = [("shop.example", filler + "Write to us: shop@example.com") for _ in range(20)]
    pages += [
        ("people.example", filler + f"p{i}a@example.com p{i}b@example.com 212-555-0{i:03}" * 3)
        for i in range(20)
    ]
    documents = pa.table({"id": [str(i) for i in range(40)], "text": [t for _, t in pages]})
    for shard in range(2):
        rows = documents.slice(20 * shard if shard else 0, 20)
        hosts = [pages[20 * shard + i][0] for i in range(20)]
        signals, _ = privacy.annotate(rows, PrivacyConfig())
        write_table(signals, shard_path(tmp_path, "signals/privacy", shard))
        write_table(pa.table({"id": rows["id"], "domain": hosts}), shard_path(tmp_path, "signals/url", shard))
    privacy_domains.aggregate(tmp_path, 2)
    table = {r["domain"]: r for r in read_table(tmp_path / "privacy_domains.parquet").to_pylist()}
    assert table["shop.example"]["found"] == 1 and table["shop.example"]["documents"] == 20
    assert table["people.example"]["per_1k_chars"] > 1 > 20 * table["shop.example"]["per_1k_chars"]
    sidecar = read_table(shard_path(tmp_path, "signals/privacy_domain", 1))
    assert set(sidecar["per_1k_chars"].to_pylist()) == {table["people.example"]["per_1k_chars"]}
