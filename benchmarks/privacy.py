"""Personal data and keys: recall and precision on planted items, what is found in real pages as they are, and speed.

    ARRIERO_TEST_DATA=DATA python benchmarks/privacy.py [--items 400] [--shown 10] [--seed 0]

Valid items of every kind, in the ways in which people write them, and decoys that only look like them (version numbers,
ISBNs, order numbers, hashes, dates, DOIs, coordinates, private addresses, numbers with a wrong check digit) are planted
between the words of real pages, or of this file's own prose without data. An item counts as found where a find of its kind
covers exactly its characters; a find that overlaps a decoy, or planted text of another kind, is wrong. Beside it the
patterns of datatrove's PIIFormatter (e-mail and IP), run on the same texts.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import string
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import peers
import pyarrow as pa

from data_pipeline.annotate import privacy
from data_pipeline.zstd import zstd

Draw = random.Random
ALNUM = string.ascii_letters + string.digits
PEER = """
import sys, time, orjson
from datatrove.pipeline.formatters import PIIFormatter
texts = orjson.loads(open(sys.argv[1], "rb").read())
formatter = PIIFormatter()
began = time.process_time()
for text in texts:
    formatter.format(text)
seconds = time.process_time() - began
found = []
for text in texts:
    spans = []
    for name, replacer in (("email", formatter.emails_replacer), ("ip", formatter.ip_replacer)):
        for match in replacer.regex.finditer(text):
            if replacer.validator is None or replacer.validator(match.group(0)):
                spans.append([match.start(), match.end(), name])
    found.append(spans)
open(sys.argv[2], "wb").write(orjson.dumps([seconds, found]))
"""


def digits(draw: Draw, n: int, first: str = string.digits) -> str:
    return draw.choice(first) + "".join(draw.choices(string.digits, k=n - 1))


def luhn(body: str) -> str:
    """A number with its check digit behind it."""
    total = 0
    for i, c in enumerate(reversed(body)):
        value = int(c) * (2 if i % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


def email(draw: Draw) -> str:
    names = [
        "anna",
        "j.smith",
        "maria-lopez",
        "info",
        "li.wei",
        "o.k",
        "peter_pan",
        "sales+eu",
        "dr.house",
        "x1",
    ]
    hosts = ["mail", "uni-koeln", "acme", "my-shop", "kanzlei-meier", "company", "cs.stanford", "service.gov"]
    ends = ["com", "de", "co.uk", "org", "io", "fr", "museum", "edu", "info"]
    name = draw.choice(names) + draw.choice(["", digits(draw, 2)])
    if draw.random() < 0.1:
        return f"{name}@[{'.'.join(str(draw.randint(1, 223)) for _ in range(4))}]"
    dots = f"{draw.choice(names)}{'.' * draw.randint(2, 40)}" if draw.random() < 0.1 else ""
    return (
        f"{dots}{name}{draw.choice(['@'] * 8 + ['(at)', ' [at] '])}{draw.choice(hosts)}.{draw.choice(ends)}"
    )


def ip(draw: Draw) -> str:
    if draw.random() < 0.3:
        groups = [f"{draw.randrange(65536):x}" for _ in range(7)]
        head = draw.choice(["2a00", "2600", "2001", "2606", "2c0f"])
        if head == "2001":
            groups[0] = "4860"
        return f"{head}:" + (
            ":".join(groups) if draw.random() < 0.5 else f"{groups[0]}:{groups[1]}::{groups[2]}"
        )
    while True:
        parts = [draw.randint(1, 223), *(draw.randrange(256) for _ in range(3))]
        if privacy_public(parts) and max(parts) > 31:
            return ".".join(map(str, parts))


def privacy_public(parts: list[int]) -> bool:
    import ipaddress

    return ipaddress.ip_address(".".join(map(str, parts))).is_global


def phone(draw: Draw) -> str:
    us = f"{digits(draw, 3, '23456789')}", f"{digits(draw, 3, '23456789')}", digits(draw, 4)
    forms: list[Callable[[], str]] = [
        lambda: "({}) {}-{}".format(*us),
        lambda: "{}-{}-{}".format(*us),
        lambda: "{}.{}.{}".format(*us),
        lambda: "+1 {} {} {}".format(*us),
        lambda: "1-{}-{}-{}".format(*us),
        lambda: f"+49 {digits(draw, 3, '123456789')} {digits(draw, 7)}",
        lambda: f"+49 (0){digits(draw, 2, '2345678')} / {digits(draw, 8)}",
        lambda: f"+44 20 {digits(draw, 4)} {digits(draw, 4)}",
        lambda: f"+33 {digits(draw, 1, '1234567')} " + " ".join(digits(draw, 2) for _ in range(4)),
        lambda: "0" + digits(draw, 1, "12345679") + "".join(" " + digits(draw, 2) for _ in range(4)),
        lambda: f"+91-{digits(draw, 5, '6789')}-{digits(draw, 5)}",
        lambda: f"+86 1{digits(draw, 2, '3578')} {digits(draw, 4)} {digits(draw, 4)}",
        lambda: f"Tel.: 0{digits(draw, 3, '23456789')} {digits(draw, 6)}",
        lambda: f"Phone {digits(draw, 3, '23456789')} {digits(draw, 4)}",
        lambda: f"(0{digits(draw, 2, '23456789')}) {digits(draw, 7)}",
        lambda: f"020 {digits(draw, 4)} {digits(draw, 4)}",
        lambda: f"03-{digits(draw, 4)}-{digits(draw, 4)}",
        lambda: f"+376 {digits(draw, 3, '346')} {digits(draw, 3)}",
        lambda: f"+298 {digits(draw, 6, '2345678')}",
        lambda: "+299 " + " ".join((digits(draw, 2, "2345"), digits(draw, 2), digits(draw, 2))),
        lambda: "+687 " + ".".join((digits(draw, 2, "2347"), digits(draw, 2), digits(draw, 2))),
        lambda: f"+354 {digits(draw, 3, '4568')} {digits(draw, 4)}",
        lambda: f"+500 {digits(draw, 5, '2567')}",
    ]
    return draw.choice(forms)()


def card(draw: Draw) -> str:
    prefix, size = draw.choice(
        [("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16), ("3056", 14)]
    )
    number = luhn(prefix + "".join(draw.choices(string.digits, k=size - 1 - len(prefix))))
    joint = draw.choice(["", " ", "-"])
    if size == 16:
        return joint.join(number[i : i + 4] for i in range(0, 16, 4))
    return joint.join((number[:4], number[4:10], number[10:]))


def iban(draw: Draw) -> str:
    country, body = draw.choice(
        [
            ("DE", "n" * 18),
            ("FR", "n" * 23),
            ("GB", "aaaa" + "n" * 14),
            ("NL", "aaaa" + "n" * 10),
            ("CH", "n" * 17),
            ("ES", "n" * 20),
        ]
    )
    rest = "".join(draw.choice(string.digits if c == "n" else string.ascii_uppercase) for c in body)
    number = "".join(str(int(c, 36)) for c in rest + country + "00")
    whole = f"{country}{98 - int(number) % 97:02}{rest}"
    return " ".join(whole[i : i + 4] for i in range(0, len(whole), 4)) if draw.random() < 0.5 else whole


def ssn(draw: Draw) -> str:
    area = draw.choice([a for a in range(1, 900) if a != 666])
    return f"{area:03}-{draw.randint(1, 99):02}-{draw.randint(1, 9999):04}"


HEXADECIMAL, URL_SAFE = "0123456789abcdef", ALNUM + "-_"


def secret(draw: Draw) -> str:
    """A key of a service, of the length and the alphabet that the service gives it."""

    def some(n: int, alphabet: str = ALNUM) -> str:
        return "".join(draw.choices(alphabet, k=n))

    def web_token() -> str:
        parts = [
            '{"alg":"HS256","typ":"JWT"}',
            f'{{"sub":"{digits(draw, 10)}","iat":{digits(draw, 10, "1")}}}',
        ]
        return ".".join(
            [*(base64.urlsafe_b64encode(p.encode()).decode().rstrip("=") for p in parts), some(43, URL_SAFE)]
        )

    def discord() -> str:
        user = (
            base64.b64encode(digits(draw, draw.choice([18, 19]), "123456789").encode()).decode().rstrip("=")
        )
        return f"{user}.G{some(5, URL_SAFE)}.{some(38, URL_SAFE)}"

    upper = string.ascii_uppercase + string.digits
    forms: list[Callable[[], str]] = [
        lambda: "AKIA" + some(16, string.ascii_uppercase + "234567"),
        lambda: "ghp_" + some(36),
        lambda: "github_pat_" + some(22) + "_" + some(59),
        lambda: f"xoxb-{digits(draw, 12)}-{digits(draw, 13)}-{some(24)}",
        lambda: "sk_live_" + some(24),
        lambda: "AIza" + some(35, URL_SAFE),
        web_token,
        lambda: "glpat-" + some(20, URL_SAFE),
        lambda: "hf_" + some(34, string.ascii_letters),
        lambda: "npm_" + some(36),
        lambda: f"https://hooks.slack.com/services/T0{some(9, upper)}/B0{some(9, upper)}/{some(24)}",
        lambda: f"https://discord.com/api/webhooks/{digits(draw, 19, '1')}/{some(68, URL_SAFE)}",
        discord,
        lambda: f"SG.{some(22, URL_SAFE)}.{some(43, URL_SAFE)}",
        lambda: draw.choice(["SK", "AC"]) + some(32, HEXADECIMAL),
        lambda: f"{some(32, HEXADECIMAL)}-us{draw.randint(1, 21)}",
        lambda: f"{digits(draw, 10, '123456789')}:AA{some(33, URL_SAFE)}",
        lambda: (
            "-----BEGIN PRIVATE KEY-----\n"
            + "\n".join(some(64, ALNUM + "+/") for _ in range(8))
            + "\n-----END PRIVATE KEY-----"
        ),
        lambda: "api_key=" + some(32),
        lambda: 'password: "' + some(20) + '"',
        lambda: "AWS_SECRET_ACCESS_KEY = " + some(40, ALNUM + "+/"),
    ]
    return draw.choice(forms)()


# fmt: off
# ruff: noqa: E501
DECOYS: dict[str, Callable[[Draw], str]] = {
    "version": lambda d: f"{d.choice(['version ', 'v', 'Version: ', 'Chrome/', 'release ', ''])}{d.randrange(12)}.{d.randrange(20)}.{d.randrange(30)}.{d.randrange(9)}",
    "private address": lambda d: d.choice(["192.168.", "10.1.", "172.20.", "127.0."]) + f"{d.randrange(256)}.{d.randrange(256)}",
    "documentation address": lambda d: d.choice(["192.0.2.", "198.51.100.", "203.0.113."]) + str(d.randrange(256)),
    "ISBN": lambda d: d.choice([f"ISBN 978-{digits(d, 1)}-{digits(d, 2)}-{digits(d, 6)}-{digits(d, 1)}", f"978{digits(d, 10)}", f"ISBN {digits(d, 1)}-{digits(d, 3)}-{digits(d, 5)}-{digits(d, 1)}"]),
    "order number": lambda d: d.choice([f"order {digits(d, 10)}", f"Order #{digits(d, 3)}-{digits(d, 7)}-{digits(d, 7)}", f"invoice no. {digits(d, 8)}", f"SKU {digits(d, 12)}", f"Art.-Nr. {digits(d, 9)}"]),
    "hash": lambda d: "".join(d.choices("0123456789abcdef", k=d.choice([32, 40, 64]))),
    "uuid": lambda d: "-".join("".join(d.choices("0123456789abcdef", k=k)) for k in (8, 4, 4, 4, 12)),
    "date": lambda d: d.choice([f"{d.randint(1900, 2030)}-{d.randint(1, 12):02}-{d.randint(1, 28):02} {d.randrange(24):02}:{d.randrange(60):02}:{d.randrange(60):02}", f"{d.randint(1, 28):02}.{d.randint(1, 12):02}.{d.randint(1900, 2030)}", f"{d.randint(1, 12)}/{d.randint(1, 28)}/{d.randint(1900, 2030)}"]),
    "years": lambda d: f"{d.randint(1800, 1950)}-{d.randint(1951, 2020)} {d.randint(1000, 2000)}",
    "DOI": lambda d: f"doi:10.{digits(d, 4, '123456789')}/{digits(d, 3)}.{digits(d, 3)}-{digits(d, 4)}",
    "coordinates": lambda d: f"{d.randrange(90)}.{digits(d, 6)}, -{d.randrange(180)}.{digits(d, 6)}",
    "amount": lambda d: d.choice([f"${d.randrange(1, 999)},{digits(d, 3)},{digits(d, 3)}.{digits(d, 2)}", f"{d.randrange(1, 999)} 000 000", f"€ {d.randrange(1, 99)}.{digits(d, 3)}.{digits(d, 3)},00"]),
    "timestamp": lambda d: d.choice([digits(d, 10, "1"), digits(d, 13, "1")]),
    "wrong card": lambda d: (lambda n: n[:-1] + str((int(n[-1]) + d.randint(1, 9)) % 10))(luhn("4" + digits(d, 14))),
    "wrong IBAN": lambda d: (lambda n: n[:2] + f"{(int(n[2:4]) + d.randint(1, 90)) % 97 + 2:02}"[:2] + n[4:])(iban(d).replace(" ", "")),
    "sprite": lambda d: f"icon{digits(d, 2)}@{d.choice('23')}x.{d.choice(['png', 'jpg', 'webp'])}",
    "handle": lambda d: f"@user{digits(d, 3)}",
    "package": lambda d: f"lodash@{d.randrange(9)}.{d.randrange(20)}.{d.randrange(9)}",
    "time": lambda d: f"{d.randrange(24):02}:{d.randrange(60):02}:{d.randrange(60):02}",
    "MAC address": lambda d: ":".join("".join(d.choices("0123456789abcdef", k=2)) for _ in range(6)),
    "C++ name": lambda d: f"{d.choice(['std', 'dead', 'abc', 'cafe'])}::{d.choice(['vector', 'beef', 'map', 'face'])}",
    "gain": lambda d: f"+{d.randrange(1, 999)} {d.choice(['%', 'points', 'EUR', '000 units'])}",
    "module path": lambda d: f"Main.{d.choice(['System', 'Models'])}.{d.choice(['Collections', 'Generic'])}.{''.join(d.choices(string.ascii_lowercase, k=30))}",
    "class name": lambda d: f"{d.choice(['token', 'password', 'secret'])}: {d.choice(['MyPasswordManagerServiceFactory', 'DefaultAccessTokenProviderImpl', 'SomeVeryLongConstantNameForThis'])}",
    "placeholder": lambda d: d.choice(["api_key=YOUR_API_KEY_GOES_HERE", "password: changeme", "token = get_token_from_environment()", "secret_key: <your-secret-key>"]),
}  # fmt: skip
VALID: dict[str, Callable[[Draw], str]] = {
    "email": email, "ip": ip, "phone": phone, "card": card, "iban": iban, "ssn": ssn, "secret": secret,
}  # fmt: skip
_ASSIGNED = ("api_key=", 'password: "', "AWS_SECRET_ACCESS_KEY = ", "Tel.: ", "Phone ")


def pages() -> list[str]:
    """Real pages, or prose of this file."""
    root = os.environ.get("ARRIERO_TEST_DATA")
    if root is None:
        print("ARRIERO_TEST_DATA is not set: items are planted in this file's own prose")
        return [(__doc__ or "") * 20] * 50
    found = []
    for path in sorted(Path(root, "web").glob("*.ground_truth.jsonl.zst")):
        with path.open("rb") as file:
            for line in zstd.decompress(file.read()).splitlines():
                row = orjson.loads(line)
                found.append(row.get("main_content") or row.get("text_content") or "")
    with Path(root, "neardup", "uci_docs.jsonl.zst").open("rb") as file:
        crawled = zstd.decompress(file.read()).splitlines()
    return [t for t in (*found, *(orjson.loads(line)["text"] for line in crawled)) if len(t) > 500]


def plant(texts: list[str], items: int, seed: int) -> tuple[list[str], list[list[tuple[int, int, str]]]]:
    """Texts with one item each between two words, and its span and kind; pages in which something is found are left out."""
    draw = random.Random(seed)
    clean = [t for t, n in zip(texts, per_text(texts), strict=True) if n == 0]
    planted, spans = [], []
    for kind, make in (*VALID.items(), *(("decoy: " + k, m) for k, m in DECOYS.items())):
        for _ in range(items if kind in VALID else max(20, items // 4)):
            text = draw.choice(clean)[:3000]
            gaps = [i for i, c in enumerate(text) if c in " \n"]
            at = draw.choice(gaps) + 1
            item = make(draw)
            behind = draw.choice([" ", ", ", ". ", "\n", ") "])
            begin, end = at, at + len(item)
            if kind == "email" and ".." in item:
                begin += item.rindex("..") + 2
            for head in _ASSIGNED:
                if kind in VALID and item.startswith(head):
                    begin += len(head)
                    end -= item.endswith('"')
            planted.append(text[:at] + item + behind + text[at:])
            spans.append([(begin, end, kind)])
    return planted, spans


def per_text(texts: list[str]) -> np.ndarray:
    """Finds of each text."""
    found, _ = privacy.find(pa.array(texts, pa.large_string()))
    return np.bincount(found[:, 0], minlength=len(texts))


def score(
    name: str,
    found: list[list[tuple[int, int, str]]],
    spans: list[list[tuple[int, int, str]]],
    kinds: tuple[str, ...],
) -> None:
    """Print recall and precision by kind, and which decoys were taken for what."""
    there, right, touched, said = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    wrong: Counter[tuple[str, str]] = Counter()
    for finds, (planted,) in zip(found, spans, strict=True):
        begin, end, kind = planted
        there[kind] += 1
        right[kind] += planted in finds
        touched[kind] += any(k == kind and a < end and b > begin for a, b, k in finds)
        for _, _, k in finds:
            said[k] += 1
            if k != kind:
                wrong[kind, k] += 1
    print(f"\n{name}\n{'kind':<8} {'planted':>8} {'exact':>8} {'overlap':>8} {'precision':>10}")
    for kind in kinds:
        false = sum(n for (_, k), n in wrong.items() if k == kind)
        print(
            f"{kind:<8} {there[kind]:8} {right[kind] / there[kind]:8.3f} {touched[kind] / there[kind]:8.3f} "
            f"{1 - false / max(said[kind], 1):10.3f}"
        )
    for (kind, taken), n in wrong.most_common(12):
        print(f"  {n} of {there[kind]} {kind} taken for {taken}")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--items", type=int, default=400, help="valid items of each kind")
    options.add_argument(
        "--shown", type=int, default=10, help="finds of each kind shown, in pages as they are"
    )
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    texts = pages()
    planted, spans = plant(texts, chosen.items, chosen.seed)
    found: list[list[tuple[int, int, str]]] = [[] for _ in planted]
    for d, a, b, k in privacy.find(pa.array(planted, pa.large_string()))[0].tolist():
        found[d].append((a, b, privacy.KINDS[k]))
    score("planted items", found, spans, privacy.KINDS)
    many = pa.array(texts * 4, pa.large_string())
    size = 4 * sum(len(t.encode()) for t in texts) / 1e6
    seconds = []
    for _ in range(3):
        began = time.process_time()
        privacy.find(many)
        seconds.append(time.process_time() - began)
    speed = size / sorted(seconds)[1]
    print(f"\nspeed on {size:.0f} MB of pages, one core: {speed:.0f} MB/s")
    try:
        python = peers.python("datatrove", peers.DATATROVE)
        with tempfile.TemporaryDirectory() as folder:
            given, result = Path(folder) / "texts", Path(folder) / "found"
            given.write_bytes(orjson.dumps([*planted, *texts]))
            subprocess.run([python, "-c", PEER, given, result], check=True)
            peer_seconds, peer = orjson.loads(result.read_bytes())
        finds = [[(a, b, k) for a, b, k in f] for f in peer[: len(planted)]]
        score("datatrove's PIIFormatter on the same texts", finds, spans, ("email", "ip"))
        peer_size = sum(len(t.encode()) for t in (*planted, *texts)) / 1e6
        ratio = speed * peer_seconds / peer_size
        print(f"datatrove (e-mail and IP alone): {peer_size / peer_seconds:.1f} MB/s; ratio {ratio:.1f}")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"peer not run: {error}")
    real, n_chars = privacy.find(pa.array(texts, pa.large_string()))
    counts = Counter(privacy.KINDS[k] for k in real[:, 3].tolist())
    print(f"\nin {len(texts)} pages as they are ({n_chars.sum() / 1e6:.1f}M characters): {dict(counts)}")
    rows = real.tolist()
    random.Random(chosen.seed).shuffle(rows)
    for kind in range(len(privacy.KINDS)):
        for d, a, b, _ in [r for r in rows if r[3] == kind][: chosen.shown]:
            before, behind = texts[d][max(0, a - 40) : a], texts[d][b : b + 15]
            print(
                f"  {privacy.KINDS[kind]:<6} …{' '.join(before.split())} [[{texts[d][a:b][:60]!r}]] {' '.join(behind.split())}…"
            )


if __name__ == "__main__":
    main()
