"""Words of `class`, `id`, `role` and `itemprop` that say what an element is for, by purpose, in several languages."""

# ruff: noqa: E501
from __future__ import annotations

from functools import cache

import numpy as np

from data_pipeline.extract import tags

PURPOSES: dict[str, str] = {
    "content": (
        "article articlebody article-body articletext article-text article-content artikel artikeltext article__body body-text bodytext content "
        "content-body entry entry-content entrycontent post-content postcontent post-body postbody post-text story "
        "story-body storybody storytext text texto texte testo tekst treść tresc contenido contenu conteudo inhalt inhoud prose "
        "richtext rich-text wysiwyg rte markdown markdown-body maincontent main-content main primary hauptinhalt noticia nota "
        "news-text paragraph paragraphs description beschreibung longread chapter reading mw-parser-output mw-content-text "
        "documentation doc-content page-content single td-post-content field-name-body"
    ),
    "navigation": (
        "nav navbar navigation navi menu menü menue submenu mainnav subnav topnav breadcrumb breadcrumbs brotkrumen "
        "breadcrump pagination pager paging pagenav prev next previous pfad krumen toc sitemap skip skip-link skiplink "
        "hamburger dropdown mega megamenu tabs tablist toolbar okruszki navigacja navegacion navegación jump-link"
    ),
    "side": "sidebar side aside widget widgets rail right-rail sidebars seitenleiste marginal marginalspalte barra secondary complementary rightcol leftcol",
    "foot": "footer foot bottom fusszeile fuss fuß stopka pie rodape copyright colophon imprint impressum legal contentinfo site-info subfooter",
    "head": "header head masthead banner topbar top-bar kopf kopfzeile logo site-header branding hero teaserbar intro",
    "advert": (
        "ad ads adv advert advertisement advertising anzeige anzeigen werbung reklama publicidad publicite publicidade "
        "sponsor sponsored sponsor promo promotion promoted outbrain taboola adsbygoogle dfp billboard adslot commercial affiliate cta "
        "paywall subscription abo upsell"
    ),
    "social": "share shares sharing social socials teilen partager compartir condividi follow followus facebook twitter whatsapp pinterest linkedin instagram like likes addthis sharedaddy bookmark",
    "comment": (
        "comment comments commentlist comment-list commentaires comentarios commenti kommentar kommentare komentarze reacties "
        "disqus respond reply replies discussion discuss feedback leserbriefe trackback pingback guestbook"
    ),
    "related": (
        "related relatedposts recommended recommendation recommendations recommend similar more morestories more-news popular trending "
        "most-read mostread latest recent teaser teasers teaserlist readmore read-more weitere mehr ähnliche aehnliche meistgelesen "
        "verwandte podobne powiazane relacionados relacionadas associes crosslink crosslinks further linkbox carousel slider swiper "
        "upnext suggestions also alsolike see-also upsells crosssell cross-sells"
    ),
    "meta": (
        "meta byline author autor auteur autore author-bio date datum time timestamp published posted postmeta post-meta entry-meta "
        "tags tag taglist tagcloud category categories kategorien keywords label badge info infos credit credits dateline source "
        "reading-time views stats bio"
    ),
    "dialog": (
        "cookie cookies consent gdpr dsgvo cmp onetrust cookiebot cookiebar modal popup pop-up overlay lightbox dialog alert notice "
        "notification newsletter subscribe signup sign-up login signin register registration anmelden anmeldung captcha "
        "toast tooltip offcanvas drawer"
    ),
    "form": "form search searchform searchbox suche recherche buscar cerca szukaj input field fieldset select option filter filters facet facets sort sorting refine",
    "shop": (
        "product products produkt produkte producto produit prodotto price prices preis prix precio cart basket warenkorb panier checkout "
        "wishlist add-to-cart buy sku stock shipping delivery variant quantity rating ratings review reviews bewertung bewertungen stars spec specs "
        "specification specifications"
    ),
    "list": "list liste lista listing items item grid card cards tile tiles row rows results result feed archive gallery thumbnails thumb catalog collection collections",
    "thread": "thread topic topics forum message messages posts post postlist question answer answers reply-content quote signature postprofile userinfo user username member poster",
    "caption": "caption figcaption wp-caption-text bildunterschrift image img picture photo bild foto media video player gallery-caption legende copyright-notice",
    "hidden": "hidden hide invisible sr-only screen-reader-text visually-hidden visuallyhidden screenreader hidden-print noprint no-print d-none nodisplay print-only visible-print",
    "title": "title titel headline titulo titre titolo heading entry-title post-title page-title subtitle subheadline lead lede dek standfirst vorspann summary excerpt abstract teaser-text chapo entradilla",
    "code": "code highlight codehilite sourcecode source-code prettyprint syntax hljs language math equation formula katex tex",
}
N_PURPOSES = len(PURPOSES)


@cache
def bits() -> np.ndarray:
    """Table (see `tags.table`) of hashed words → bits of their purposes."""
    found: dict[int, int] = {}
    for i, words in enumerate(PURPOSES.values()):
        for word in words.split():
            key = tags.fnv(word)
            found[key] = found.get(key, 0) | 1 << i
    return tags.table(found)
