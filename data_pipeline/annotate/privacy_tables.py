"""Tables of the privacy scan: classes of bytes, words that tell what a number is, country codes, key prefixes."""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import uint64

from data_pipeline.compiled import subroutine
from data_pipeline.kernels.ascii import CASE_BIT, UPPER_A, UPPER_Z
from data_pipeline.kernels.records import fields

DIGIT, UPPER, LOWER, LOCAL, HEX, TRIGGER, TOKEN = 1, 2, 4, 8, 16, 32, 64
"""Bits of a byte: `LOCAL` may stand in the local part of an address, `TOKEN` in a key, at `TRIGGER` one is looked at."""

WORD_PHONE, OTHER_NUMBER, VERSION, ADDRESS, WORD_CARD, NATIONAL, LINK = 1, 2, 4, 8, 16, 32, 64
"""What a word before a number says of it."""

_WORDS = {
    WORD_PHONE: """tel tél telefon telefono teléfono telefone téléphone telephone telefax phone phones phon fon fax fone
        mobil mobile móvil movil cell cellphone cellular handy call hotline whatsapp sms dial celular tlf tfn tlfn
        puhelin telefoon telefonnummer rufnummer natel gsm portable тел телефон факс моб tfno ph
        τηλ τηλέφωνο 電話 电话 手机 전화 โทร هاتف تلفن طلفون""",
    OTHER_NUMBER: """isbn issn doi pmid pmcid oclc lccn arxiv order orders invoice item sku part parts model serial case
        patent tracking account acct ref reference id ids code codes zip lot batch article product barcode ean upc gtin
        asin vat ust ustid hrb steuernummer siret siren kvk nif cif iban bic blz konto kontonummer bestellnummer
        artikelnummer rechnung auftrag ticket docket license licence registration reg cas ein tin commit hash checksum
        md5 sha timestamp coordinates lat lon latitude longitude gps size dimensions issue bug pin passport seq build
        inv po""",
    VERSION: """version versions ver v vers release released releases firmware build driver update updated upgrade rev
        revision chapter section sections sec clause figure fig table appendix release paragraph kernel software oid
        package patch rfc ec""",
    ADDRESS: """ip ips ipv dns ping nameserver gateway firewall blocked banned""",
    WORD_CARD: """card cards visa mastercard amex credit debit kreditkarte karte carte tarjeta pan cc""",
    NATIONAL: "ssn ss social security",
    LINK: """no nr num number numbers nummer numéro numero n º us at on me him her is are was or by the our my your his
        and a an to of in office home work free toll direct line uns unter über bei oder und mob au al de du le la local
        main new now today privat dienstl geschäftlich büro bureau""",
}

SPACES, DASHES, DOTS, SLASHES, PARENTHESES, TWICE = 1, 2, 4, 8, 16, 32
"""Bits of what separates two groups of digits; `TWICE`: two of a kind that is none of spaces and parentheses."""
MAX_GROUPS = 10
"""Groups of digits that are looked at together."""
GROUP = fields(begin=np.int64, end=np.int64, size=np.int64, separator=np.int64)
"""A group of digits in a number: where it begins and ends, its digits, and what separates it from the group before."""

_COUNTRY_CODES = """
1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86
90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237 238
239 240 241 242 243 244 245 246 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 264 265 266 267 268 269
290 291 297 298 299 350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 380 381 382 383 385
386 387 389 420 421 423 500 501 502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597 598 599 670 672 673
674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 690 691 692 800 808 850 852 853 855 856 870 880 886 888
960 961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977 979 992 993 994 995 996 998
"""
"""ITU-T E.164."""
_SHORT_NUMBERS = {
    298: 6, 299: 6, 376: 6, 378: 6, 500: 5, 508: 6, 597: 6, 672: 6, 677: 5, 678: 5, 681: 6, 682: 5, 685: 5, 686: 5, 687: 6,
    688: 5, 689: 6,
}  # fmt: skip
"""Countries whose numbers may have fewer than 7 digits, by national numbering plans."""

_IBAN_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24
FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24
RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
"""SWIFT's IBAN registry: country and length."""

_FILES = """
png jpg jpeg gif svg webp bmp ico css js mjs ts tsx jsx json html htm xml php asp aspx jsp cgi pdf doc docx xls xlsx
txt csv yml yaml toml woff woff ttf eot gz tar exe dll so deb rpm apk jar war
"""
"""What stands behind the last dot of file names and is no top-level domain."""

_PREFIXES = (
    # (prefix, least and most characters behind it); what may follow is a run of letters, digits, `-` and `_`.
    ("ghp_", 36, 36), ("gho_", 36, 36), ("ghu_", 36, 36), ("ghs_", 36, 36), ("ghr_", 36, 76), ("github_pat_", 82, 82),
    ("glpat-", 20, 40), ("xoxb-", 20, 120), ("xoxa-", 20, 120), ("xoxp-", 20, 120), ("xoxr-", 20, 120),
    ("xoxs-", 20, 120), ("xoxe-", 20, 180), ("xapp-", 20, 120), ("sk_live_", 16, 120), ("rk_live_", 16, 120),
    ("sk_test_", 16, 120), ("whsec_", 24, 80),
    ("sk-", 32, 200), ("npm_", 36, 36), ("pypi-", 85, 300), ("hf_", 30, 40), ("dop_v1_", 64, 64),
    ("shpat_", 32, 32), ("AIza", 35, 35), ("dckr_pat_", 24, 40), ("lin_api_", 40, 48), ("ya29.", 30, 300),
    ("shpss_", 32, 32), ("shpca_", 32, 32), ("shppa_", 32, 32), ("doo_v1_", 64, 64), ("dor_v1_", 64, 64),
    ("gldt-", 20, 40), ("glrt-", 20, 60), ("glptt-", 40, 40), ("api_org_", 30, 40), ("gsk_", 48, 60), ("xai-", 70, 90),
    ("pplx-", 40, 60), ("ntn_", 40, 50), ("secret_", 43, 43), ("figd_", 36, 60), ("GOCSPX-", 28, 28), ("hvs.", 24, 200),
    ("hvb.", 24, 300), ("sq0csp-", 43, 43), ("sq0atp-", 22, 22), ("sntrys_", 60, 300), ("sntryu_", 64, 64),
    ("glsa_", 41, 41), ("NRAK-", 27, 27), ("PMAK-", 59, 59), ("rubygems_", 48, 48), ("pul-", 40, 40), ("sbp_", 40, 40),
    ("r8_", 37, 37), ("tskey-auth-", 20, 80), ("tskey-api-", 20, 80), ("pat-na1-", 36, 36), ("pat-eu1-", 36, 36),
    ("nfp_", 36, 40),
)  # fmt: skip


def hash_word(word: str) -> int:
    """FNV-1a over UTF-8, as the scan computes it."""
    h = 0xCBF29CE484222325
    for byte in word.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def _hashed(entries: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Open addressing from hashes of words to values: uint64 and int64, of one power of two; 0 is empty."""
    size = 1 << (2 * len(entries)).bit_length()
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for word, value in sorted(entries.items()):
        h = hash_word(word)
        at = h & (size - 1)
        while keys[at] not in (0, h):
            at = (at + 1) & (size - 1)
        keys[at], values[at] = h, values[at] | value
    return keys, values


@cache
def bytes_table() -> np.ndarray:
    """Bits of every byte: uint8 [256]."""
    table = np.zeros(256, np.uint8)
    for bit, characters in (
        (DIGIT, "0123456789"),
        (UPPER, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        (LOWER, "abcdefghijklmnopqrstuvwxyz"),
        (LOCAL, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._%+-'!#$&*?^`{|}~"),
        (HEX, "0123456789abcdefABCDEF"),
        (TRIGGER, "@([=:_-CJKSz."),
        (TOKEN, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"),
    ):
        table[np.frombuffer(characters.encode(), np.uint8)] |= bit
    return table


@cache
def words_table() -> tuple[np.ndarray, np.ndarray]:
    """Words before numbers → what they say. The scan folds ASCII alone, so other scripts stand here in every case."""
    found: dict[str, int] = {}
    for bit, words in _WORDS.items():
        for word in words.split():
            for written in {word, word.capitalize(), word.upper()}:
                folded = "".join(c.lower() if c.isascii() else c for c in written)
                found[folded] = found.get(folded, 0) | bit
    return _hashed(found)


@cache
def files_table() -> tuple[np.ndarray, np.ndarray]:
    """File name extensions → 1."""
    return _hashed(dict.fromkeys(_FILES.split(), 1))


@cache
def countries() -> np.ndarray:
    """uint8 [1000]: for country codes of telephone numbers the fewest digits behind them, else 0."""
    table = np.zeros(1000, np.uint8)
    for code in _COUNTRY_CODES.split():
        table[int(code)] = _SHORT_NUMBERS.get(int(code), 6 if code[0] == "9" and len(code) == 2 else 7)
    return table


@cache
def iban_lengths() -> np.ndarray:
    """uint8 [26, 26]: length of an IBAN by the letters of its country, 0 where there is none."""
    table = np.zeros((26, 26), np.uint8)
    for entry in _IBAN_LENGTHS.split():
        table[ord(entry[0]) - UPPER_A, ord(entry[1]) - UPPER_A] = int(entry[2:])
    return table


@cache
def prefixes() -> tuple[np.ndarray, np.ndarray]:
    """Prefixes of keys, and what is to be known of them.

    Returns:
        uint8 [n, 16] padded with 0; int64 [n, 5]: length, least and most characters behind it, position of the byte at which
        the scan looks, and this byte with the one before it, by which the rows are sorted.
    """

    def pair(prefix: str) -> tuple[int, int]:
        # The mark of a prefix is its last byte; that of `AIza` is rarer than its last.
        position = 2 if prefix.endswith("a") else len(prefix) - 1
        return position, ord(prefix[position - 1]) << 8 | ord(prefix[position])

    ordered = sorted(_PREFIXES, key=lambda p: (pair(p[0])[1], -len(p[0]), p))
    text, sizes = np.zeros((len(ordered), 16), np.uint8), np.zeros((len(ordered), 5), np.int64)
    for i, (prefix, least, most) in enumerate(ordered):
        text[i, : len(prefix)] = np.frombuffer(prefix.encode(), np.uint8)
        sizes[i] = len(prefix), least, most, *pair(prefix)
    return text, sizes


@subroutine
def lookup(keys, values, h):  # type: ignore[no-untyped-def]
    """Value of a hash in a table of `_hashed`; 0 where it is not in it."""
    mask = uint64(len(keys) - 1)
    at = h & mask
    while keys[at] != 0:
        if keys[at] == h:
            return values[at]
        at = (at + uint64(1)) & mask
    return 0


@subroutine
def word_hash(data, begin, end):  # type: ignore[no-untyped-def]
    """`hash_word` of some bytes, ASCII in lower case."""
    h = uint64(0xCBF29CE484222325)
    for k in range(begin, end):
        c = data[k]
        h = (h ^ uint64(c | CASE_BIT if UPPER_A <= c <= UPPER_Z else c)) * uint64(0x100000001B3)
    return h
