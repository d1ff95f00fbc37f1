"""Phrases that line rules look for: notices of C4, leftovers of pages after RefinedWeb."""

from __future__ import annotations

from functools import cache

import numpy as np

from data_pipeline.analysis.phrase_hashes import extend, hash_folded

LOREM, SCRIPT, POLICY, CURLY, CITATION = 1, 2, 4, 8, 16
"""Bits of what a line holds."""

NOTICES = {
    "lorem ipsum": LOREM,
    "javascript": SCRIPT,
    "terms of use": POLICY,
    "privacy policy": POLICY,
    "cookie policy": POLICY,
    "uses cookies": POLICY,
    "use of cookies": POLICY,
    "use cookies": POLICY,
}
"""Raffel et al., 2020, section 2.2, and the code of C4."""

BEGIN, END, ANYWHERE, COUNTED = 1, 2, 4, 8
"""Where a phrase makes a short line a leftover; `COUNTED`: what stands with a number, as in "3 likes"."""

LEFTOVERS = {
    BEGIN: "sign in|sign up|signin|signup|log in|login|log out|logout|my account|create account|register now|skip to|"
    "jump to|back to top|go to top|share this|share on|follow us|follow on|tweet this|pin it|print this|email this|"
    "posted in|filed under|tagged with|related posts|related articles|previous post|next post|previous article|"
    "next article|leave a comment|leave a reply|post a comment|write a comment|add comment|add a comment|reply to|"
    "click here|tap here|subscribe to|toggle navigation|main menu|all rights reserved|advertisement|sponsored|close menu",
    END: "read more|read more about|read full article|continue reading|learn more|show more|see more|view more|load more|"
    "find out more|more info|see all|view all|show all|sign in|log in|sign up|add to cart|add to basket|buy now|shop now|"
    "order now|download now|see details|view details|full story|permalink",
    ANYWHERE: "items in cart|item in cart|items in your cart|your cart is empty|add to cart|add to wishlist|"
    "add to wish list|shopping cart|shopping bag|all rights reserved|powered by wordpress|forgot your password|"
    "forgot password|lost your password|remember me|accept cookies|accept all cookies|cookie settings|"
    "subscribe to our newsletter|sign up for our newsletter|share on facebook|share on twitter|share on linkedin|"
    "share on whatsapp|share via email|opens in a new window|opens in new window|opens in new tab|this site uses|"
    "enable javascript|skip to content|skip to main content",
    COUNTED: "like|likes|share|shares|comment|comments|reply|replies|retweet|retweets|repost|reposts|view|views|follower|"
    "followers|following|subscriber|subscribers|post|posts|point|points|vote|votes|upvote|upvotes|rating|ratings|review|"
    "reviews|reaction|reactions|favorite|favorites|favourite|favourites|download|downloads|member|members|reader|readers|"
    "play|plays|pin|pins|star|stars|tweet|tweets|response|responses|item|items|result|results|photo|photos|read|reads|"
    "minutes|min|mins|hour|hours|day|days|week|weeks|month|months|year|years",
}
"""After Penedo et al., 2023 (RefinedWeb), appendix G.2, which gives one example of each kind."""


@cache
def notices() -> tuple[np.ndarray, np.ndarray]:
    """(characters of all notices one behind another: uint32; beginning, end and bits of each: int64 [n, 3])."""
    text, rows = "", []
    for phrase, bit in NOTICES.items():
        rows.append((len(text), len(text) + len(phrase), bit))
        text += phrase
    return np.array(list(map(ord, text)), np.uint32), np.array(rows, np.int64)


@cache
def leftovers() -> np.ndarray:
    """Hash table of phrases: uint64 [2, 4096], keys by `hash_folded` and `extend`, and their bits."""

    size = 4096
    table = np.zeros((2, size), np.uint64)

    def insert(key: int, bits: int) -> None:
        slot = key & (size - 1)
        while int(table[0, slot]) not in (0, key):
            slot = (slot + 1) & (size - 1)
        table[0, slot] = key
        table[1, slot] |= np.uint64(bits)

    for bit, listed in LEFTOVERS.items():
        for phrase in listed.split("|"):
            parts = phrase.split()
            key = hash_folded(parts[0])
            for part in parts[1:]:
                insert(key, 0)
                key = int(extend(np.uint64(key), np.uint64(hash_folded(part))))
            insert(key, bit)
    return table
