"""Names of languages: what models call them, in one scheme.

ISO 639-1 where it has a code, else ISO 639-3; the script (ISO 15924) is a value of its own. `und` is text in a language
that could not be told, `zxx` no language at all, such as source code (both ISO 639-2).
"""

from __future__ import annotations

import functools
import re

UNKNOWN, NONE = "und", "zxx"
SURE = 0.5
"""Score of an identified language from which rules take a document for one in that language."""


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


# ISO 639-3, and 639-2/B where it differs, to ISO 639-1.
_TWO_LETTERS = _pairs(
    """
    aar:aa abk:ab afr:af aka:ak amh:am ara:ar arg:an asm:as ava:av ave:ae aym:ay aze:az bak:ba bam:bm bel:be ben:bn bis:bi
    bod:bo tib:bo bos:bs bre:br bul:bg cat:ca ces:cs cze:cs cha:ch che:ce chu:cu chv:cv cor:kw cos:co cre:cr cym:cy wel:cy
    dan:da deu:de ger:de div:dv dzo:dz ell:el gre:el eng:en epo:eo est:et eus:eu baq:eu ewe:ee fao:fo fas:fa per:fa fij:fj
    fin:fi fra:fr fre:fr fry:fy ful:ff gla:gd gle:ga glg:gl glv:gv grn:gn guj:gu hat:ht hau:ha heb:he her:hz hin:hi hmo:ho
    hrv:hr hun:hu hye:hy arm:hy ibo:ig ido:io iii:ii iku:iu ile:ie ina:ia ind:id ipk:ik isl:is ice:is ita:it jav:jv jpn:ja
    kal:kl kan:kn kas:ks kat:ka geo:ka kau:kr kaz:kk khm:km kik:ki kin:rw kir:ky kom:kv kon:kg kor:ko kua:kj kur:ku lao:lo
    lat:la lav:lv lim:li lin:ln lit:lt ltz:lb lub:lu lug:lg mah:mh mal:ml mar:mr mkd:mk mac:mk mlg:mg mlt:mt mon:mn mri:mi
    mao:mi msa:ms may:ms mya:my bur:my nau:na nav:nv nbl:nr nde:nd ndo:ng nep:ne nld:nl dut:nl nno:nn nob:nb nor:nb nya:ny
    oci:oc oji:oj ori:or orm:om oss:os pan:pa pli:pi pol:pl por:pt pus:ps que:qu roh:rm ron:ro rum:ro run:rn rus:ru sag:sg
    san:sa sin:si slk:sk slo:sk slv:sl sme:se smo:sm sna:sn snd:sd som:so sot:st spa:es sqi:sq alb:sq srd:sc srp:sr ssw:ss
    sun:su swa:sw swe:sv tah:ty tam:ta tat:tt tel:te tgk:tg tgl:tl fil:tl tha:th tir:ti ton:to tsn:tn tso:ts tuk:tk tur:tr
    twi:tw uig:ug ukr:uk urd:ur uzb:uz ven:ve vie:vi vol:vo wln:wa wol:wo xho:xh yid:yi yor:yo zha:za zho:zh chi:zh zul:zu
    """
)
# Members of macrolanguages that are what everybody means by the macrolanguage.
_MEMBERS = _pairs(
    """
    arb:ar cmn:zh ekk:et lvs:lv pes:fa prs:fa zsm:ms zlm:ms swh:sw khk:mn uzn:uz azj:az kmr:ku ydd:yi plt:mg gaz:om npi:ne
    ory:or pbt:ps pbu:ps hbs:sh fuv:ff quy:qu quz:qu ayr:ay gug:gn knc:kr
    """
)
# What two-letter codes of older or looser lists mean.
_OLDER = {"no": "nb", "iw": "he", "in": "id", "ji": "yi", "mo": "ro", "jw": "jv", "simple": "en"}
_PARTS = re.compile(r"[-_]")


@functools.cache
def normal(label: str) -> tuple[str, str | None]:
    """(language, script) of a model's label: `eng_Latn` is (`en`, `Latn`), `de-1996` (`de`, None), `sr-cyrl` (`sr`, `Cyrl`).

    A label that is no language code is kept as it is.
    """
    first, *rest = _PARTS.split(label)
    code = first.lower()
    script = next((part.capitalize() for part in rest if len(part) == 4 and part.isalpha()), None)
    # Wikipedia, and models trained on it, call Alemannic `als`; in ISO 639-3 that is Tosk Albanian.
    if code == "als":
        code = "gsw" if script is None else "sq"
    if code in _OLDER:
        return _OLDER[code], script
    if len(code) == 3:
        code = _TWO_LETTERS.get(code) or _MEMBERS.get(code) or code
    elif not (len(code) == 2 and code.isalpha()):
        return label, None
    return code, script


SCRIPTS: dict[str, tuple[str, ...]] = {
    language: tuple(scripts.split("+"))
    for scripts, languages in {
        "Latn": "aa ace af ak an ast ay az ban bcl bi bm br bs ca ceb ch co crh cs csb cy da de diq dsb ee en eo es et eu "
        "ext ff fi fil fj fo fr frp frr fur fy ga gd gl gn gsw gv ha haw hil hr hsb ht hu ia id ie ig ik ilo io is it "
        "jam jv kab kg ki kl kw la lb lfn lg li lij lld lmo ln lt ltg lua lv mad mg mh mi min ms mt mwl na nap nb nds nds "
        "nah nhn nl nn nov nr nso nv ny oc om pag pam pap pcd pl pms prg pt qu rm rn ro rup rw sc scn sco se sg sgs sk sl "
        "sm smn sn so sq ss st stq su sv sw szl tet tk tl tn to tpi tr ts tum tw ty ve vec vep vi vls vo vro wa war wo xh "
        "yo za zea zu",
        "Cyrl": "ab ady alt av ba be bg bua bxr ce cv cu inh kaa kbd kk koi krc kum kv ky lbe lez mdf mhr mk mn mrj myv os "
        "ru rue sah tg tt tyv udm uk xal",
        "Cyrl+Latn": "sr sh uz cnr mo gag",
        "Arab": "ar arz ary apc azb fa glk lrc mzn pnb ps skr sd ur acm ajp aeb ars bal bgn khw",
        "Arab+Latn": "ckb ku kmr ug ks",
        "Deva": "hi mr ne bh bho mai awa hne mag gom kok new sa dty anp doi raj brx",
        "Grek": "el grc pnt",
        "Hebr": "he yi lad",
        "Armn": "hy hyw",
        "Geor": "ka xmf lzz",
        "Beng": "bn as bpy mni syl",
        "Guru": "pa",
        "Gujr": "gu kfr",
        "Orya": "or",
        "Taml": "ta",
        "Telu": "te",
        "Knda": "kn tcy",
        "Mlym": "ml",
        "Sinh": "si",
        "Thai": "th",
        "Laoo": "lo",
        "Khmr": "km",
        "Mymr": "my shn mnw ksw blk",
        "Tibt": "bo dz",
        "Ethi": "am ti tig gez",
        "Thaa": "dv",
        "Hang": "ko",
        "Jpan+Hani": "ja",
        "Hani": "zh yue wuu gan hsn lzh cjy",
        "Hani+Latn+Bopo": "hak nan cdo",
        "Cher": "chr",
        "Cans": "iu cr oj",
        "Olck": "sat",
        "Syrc": "aii arc syc",
        "Tfng": "zgh tzm",
        "Vaii": "vai",
        "Nkoo": "nqo",
        "Yiii": "ii",
    }.items()
    for language in languages.split()
}
"""Scripts a language is written in; a language that is not listed may stand in any."""

UNIQUE: dict[str, str] = {
    "Grek": "el", "Hebr": "he", "Armn": "hy", "Geor": "ka", "Beng": "bn", "Guru": "pa", "Gujr": "gu", "Orya": "or",
    "Taml": "ta", "Telu": "te", "Knda": "kn", "Mlym": "ml", "Sinh": "si", "Thai": "th", "Laoo": "lo", "Khmr": "km",
    "Mymr": "my", "Tibt": "bo", "Ethi": "am", "Thaa": "dv", "Hang": "ko", "Jpan": "ja", "Hani": "zh", "Cher": "chr",
    "Cans": "iu", "Olck": "sat", "Tfng": "zgh", "Vaii": "vai", "Nkoo": "nqo", "Yiii": "ii", "Java": "jv", "Mtei": "mni",
    "Adlm": "ff", "Lisu": "lis", "Talu": "khb", "Cham": "cjm", "Bugi": "bug", "Bali": "ban", "Sund": "su",
    "Mong": "mn", "Copt": "cop", "Goth": "got",
}  # fmt: skip
"""The language that a script nearly always means, where there is one."""


def scripts_of(label: str) -> tuple[str, ...] | None:
    """Scripts in which text of a model's label may stand; None: any."""
    language, script = normal(label)
    if script is None:
        return SCRIPTS.get(language)
    return {"Hans": ("Hani",), "Hant": ("Hani",), "Kore": ("Hang",), "Jpan": ("Jpan", "Hani")}.get(
        script, (script,)
    )
