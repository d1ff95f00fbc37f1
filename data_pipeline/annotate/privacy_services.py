# mypy: disable-error-code="no-untyped-def"
"""Keys of services whose form is more than a prefix: webhooks, tokens of several parts, hexadecimal ones.

Forms as the services give them out: webhooks of Slack and Discord are addresses whose path is the key; a bot's token of
Discord begins with the base64 of a number; keys of SendGrid, Telegram, Twilio and Mailchimp have parts of fixed length.
Helpers take the position of the byte that marks a form and return (begin, end), begin -1 where there is none.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.annotate.privacy_tables import DIGIT, HEX, LOWER, TOKEN, UPPER
from data_pipeline.compiled import subroutine
from data_pipeline.kernels.ascii import (
    BLANK,
    DOT,
    LOWER_A,
    LOWER_B,
    LOWER_D,
    LOWER_O,
    LOWER_P,
    LOWER_S,
    LOWER_T,
    LOWER_U,
    LOWER_V,
    LOWER_Z,
    NINE,
    SLASH,
    UPPER_A,
    UPPER_G,
    UPPER_K,
    UPPER_S,
    UPPER_Z,
    ZERO,
)

_HTTPS, _SLACK, _DISCORD, _DISCORD_APP, _API, _WEBHOOKS = (
    np.frombuffer(t, np.uint8)
    for t in (b"https://", b"hooks.slack.com/", b"discord", b"discordapp", b".com/api/", b"webhooks/")
)
MIN_HOOK, MAX_HOOK = 30, 120
"""Bytes of the path of a webhook of Slack behind the host."""


@subroutine
def same(data, at, high, text):
    """Whether some bytes stand at `at`."""
    if at + len(text) > high:
        return False
    k = 0
    while k < len(text) and data[at + k] == text[k]:
        k += 1
    return k == len(text)


@subroutine
def _run_end(data, at, high, cls, bits, limit):
    """End of the run of bytes of a class from `at` on, at most `limit` bytes behind it."""
    k = at
    while k < high and k - at < limit and cls[data[k]] & bits:
        k += 1
    return k


@subroutine
def _is_free(data, low, high, begin, end, cls):
    """Whether no byte of a key stands on either side."""
    return not (begin > low and cls[data[begin - 1]] & TOKEN) and not (end < high and cls[data[end]] & TOKEN)


@subroutine
def _address_begin(data, low, at):
    return at - 8 if at - 8 >= low and same(data, at - 8, at, _HTTPS) else at


@subroutine
def _slack(data, low, high, i, cls):
    """A webhook `hooks.slack.com/…/…` whose first full stop stands at `i`."""
    begin = i - 5
    if begin < low or not same(data, begin, high, _SLACK):
        return -1, 0
    path = begin + len(_SLACK)
    end, slashes, digits = path, 0, 0
    while end < high and end - path < MAX_HOOK and (cls[data[end]] & TOKEN or data[end] == SLASH):
        slashes += data[end] == SLASH
        digits += cls[data[end]] & DIGIT != 0
        end += 1
    while end > path and data[end - 1] == SLASH:
        end -= 1
    if end - path < MIN_HOOK or slashes < 3 or digits < 2:
        return -1, 0
    return _address_begin(data, low, begin), end


@subroutine
def _discord_hook(data, low, high, i, cls):
    """A webhook `discord.com/api/webhooks/NUMBER/KEY` with the full stop before `com` at `i`."""
    if i - 7 >= low and same(data, i - 7, i, _DISCORD):
        begin = i - 7
    elif i - 10 >= low and same(data, i - 10, i, _DISCORD_APP):
        begin = i - 10
    else:
        return -1, 0
    if not same(data, i, high, _API):
        return -1, 0
    k = i + len(_API)
    if k < high and data[k] == LOWER_V:  # v10/
        k = _run_end(data, k + 1, high, cls, DIGIT, 3)
        if k < high and data[k] == SLASH:
            k += 1
    if not same(data, k, high, _WEBHOOKS):
        return -1, 0
    number = k + len(_WEBHOOKS)
    k = _run_end(data, number, high, cls, DIGIT, 21)
    if k - number < 17 or k >= high or data[k] != SLASH:
        return -1, 0
    end = _run_end(data, k + 1, high, cls, TOKEN, 100)
    if end - k - 1 < 60:
        return -1, 0
    while begin > low and (cls[data[begin - 1]] & LOWER or data[begin - 1] == DOT):  # ptb., canary.
        begin -= 1
    return _address_begin(data, low, begin), end


@subroutine
def _sextet(c):
    """Value of a byte of base64, -1 for others."""
    if UPPER_A <= c <= UPPER_Z:
        return c - UPPER_A
    if LOWER_A <= c <= LOWER_Z:
        return c - LOWER_A + 26
    return c - ZERO + 52 if ZERO <= c <= NINE else -1


@subroutine
def _is_number(data, begin, end):
    """Whether bytes are the base64 of decimal digits."""
    bits, held = 0, 0
    for k in range(begin, end):
        value = _sextet(int(data[k]))
        if value < 0:
            return False
        bits = (bits << 6 | value) & 0xFFFF
        held += 6
        if held >= 8:
            held -= 8
            if not ZERO <= (bits >> held & 255) <= NINE:
                return False
    return bits & ((1 << held) - 1) == 0


@subroutine
def _discord_bot(data, low, high, i, cls):
    """A token `NUMBER.TIME.KEY` whose first full stop stands at `i`."""
    if i + 7 >= high or data[i + 7] != DOT:
        return -1, 0
    begin = i
    while begin > low and i - begin < 30 and cls[data[begin - 1]] & TOKEN:
        begin -= 1
    if not 22 <= i - begin <= 28 or not _is_number(data, begin, i):
        return -1, 0
    if _run_end(data, i + 1, high, cls, TOKEN, 7) != i + 7:
        return -1, 0
    end = _run_end(data, i + 8, high, cls, TOKEN, 64)
    return (begin, end) if 27 <= end - i - 8 <= 40 else (-1, 0)


@subroutine
def _sendgrid(data, low, high, i, cls):
    """A key `SG.` with 22 and 43 characters behind it, whose first full stop stands at `i`."""
    if (
        i - 2 < low
        or data[i - 1] != UPPER_G
        or data[i - 2] != UPPER_S
        or i + 67 > high
        or data[i + 23] != DOT
    ):
        return -1, 0
    middle, end = _run_end(data, i + 1, high, cls, TOKEN, 23), _run_end(data, i + 24, high, cls, TOKEN, 44)
    fits = middle == i + 23 and end == i + 67 and _is_free(data, low, high, i - 2, end, cls)
    return (i - 2, end) if fits else (-1, 0)


@subroutine
def dotted(data, low, high, i, cls):
    """A key with a full stop at `i`."""
    before = data[i - 1] if i > low else np.uint8(BLANK)
    begin, end = -1, 0
    if before == LOWER_S:
        begin, end = _slack(data, low, high, i, cls)
    elif before in (LOWER_D, LOWER_P):
        begin, end = _discord_hook(data, low, high, i, cls)
    elif before == UPPER_G:
        begin, end = _sendgrid(data, low, high, i, cls)
    if begin < 0 and cls[before] & TOKEN:
        begin, end = _discord_bot(data, low, high, i, cls)
    return begin, end


@subroutine
def telegram(data, low, high, i, cls):
    """A bot's token `NUMBER:A…` with the colon at `i`."""
    if i <= low or i + 36 > high or data[i + 1] != UPPER_A or not cls[data[i - 1]] & DIGIT:
        return -1, 0
    begin = i
    while begin > low and i - begin < 13 and cls[data[begin - 1]] & DIGIT:
        begin -= 1
    end = _run_end(data, i + 1, high, cls, TOKEN, 36)
    if not 6 <= i - begin <= 12 or end != i + 36:
        return -1, 0
    bot = (
        begin - 3 >= low
        and data[begin - 3] == LOWER_B
        and data[begin - 2] == LOWER_O
        and data[begin - 1] == LOWER_T
    )
    if begin > low and cls[data[begin - 1]] & TOKEN and not bot:
        return -1, 0
    return begin, end


@subroutine
def _is_random_hex(data, begin, end, cls):
    """Whether bytes are hexadecimal in one case, with letters and digits as chance has them (4 of 32 at the least)."""
    digits, upper, lower = 0, 0, 0
    for k in range(begin, end):
        c = data[k]
        if not cls[c] & HEX:
            return False
        digits += cls[c] & DIGIT != 0
        upper += cls[c] & UPPER != 0
        lower += cls[c] & LOWER != 0
    return digits >= 4 and ((upper == 0 and lower >= 2) or (lower == 0 and upper >= 2))


@subroutine
def twilio(data, low, high, i, cls):
    """`SK` or `AC` with 32 hexadecimal digits behind it, of which the second letter stands at `i`."""
    begin, end = i - 1, i + 33
    if begin < low or end > high or data[begin] != (UPPER_S if data[i] == UPPER_K else UPPER_A):
        return -1, 0
    fits = _is_random_hex(data, i + 1, end, cls) and _is_free(data, low, high, begin, end, cls)
    return (begin, end) if fits else (-1, 0)


@subroutine
def mailchimp(data, low, high, i, cls):
    """32 hexadecimal digits, `-us` and a number, with the hyphen at `i`."""
    if i - 32 < low or i + 3 >= high or data[i + 1] != LOWER_U or data[i + 2] != LOWER_S:
        return -1, 0
    end = _run_end(data, i + 3, high, cls, DIGIT, 3)
    fits = 1 <= end - i - 3 <= 2 and _is_random_hex(data, i - 32, i, cls)
    return (i - 32, end) if fits and _is_free(data, low, high, i - 32, end, cls) else (-1, 0)
