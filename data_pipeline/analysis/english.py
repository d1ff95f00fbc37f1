"""English words that are cut, or kept whole, against the general rules: contractions, abbreviations, emoticons.

Tokenisers of the Penn Treebank family, on whose words the published thresholds were set, agree on these. Texts in other
languages hold few of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

_PERSONS = "i you he she it we they"
_ASKING = "who what when where why how there that this these those"
_NOT = "ca could do does did had may might must need ought sha should wo would"
_NOT_ONLY = "ai are is was were have has dare"
_HAVE = "could might must should would"
_HOMOGRAPHS = ("ill", "its", "hell", "shell", "shed", "were", "well", "whore")
"""Words that would be contractions without their apostrophe, but are words of their own."""

_CUT = {
    "y'all": (2,),
    "yall": (1,),
    "how'd'y": (3, 5),
    "How'd'y": (3, 5),
    "not've": (3,),
    "notve": (3,),
    "Not've": (3,),
    "Notve": (3,),
    "cannot": (3,),
    "Cannot": (3,),
    "gonna": (3,),
    "Gonna": (3,),
    "gotta": (3,),
    "Gotta": (3,),
    "let's": (3,),
    "Let's": (3,),
    "c'mon": (3,),
    "C'mon": (3,),
}
"""Where other contractions are cut."""

_WHOLE = (
    # shortened words
    "doin' goin' nothin' nuthin' ol' somethin' lovin' havin' Doin' Goin' Nothin' Nuthin' Ol' Somethin' Lovin' Havin' "
    "'em 'll 'nuff 's 'S ‘s ‘S 're 'd 'cause 'Cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout and/or w/o ma'am Ma'am o'clock "
    "O'clock "
    # titles, forms of business, Latin
    "Adm. Bros. co. Co. Corp. Dr. Gen. Gov. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. Ph.D. Prof. Rep. Rev. Sen. "
    "St. vs. v.s. a.m. p.m. e.g. E.g. E.G. i.e. I.e. I.E. "
    # months, states, mountains
    "Jan. Feb. Mar. Apr. Jun. Jul. Aug. Sep. Sept. Oct. Nov. Dec. Mt. Ak. Ala. Ariz. Ark. Calif. Colo. Conn. D.C. Del. "
    "Fla. Ga. Ia. Id. Ill. Ind. Kan. Kans. Ky. La. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. "
    "Okla. Ore. Pa. S.C. Tenn. Va. Wash. Wis. "
    # programming, and what escaping leaves behind
    r"""C++ \t \n \") <space> ' '' ä. ö. ü. """
    # faces
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (; (-; :( :-( :(( :-(( "
    ":((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* "
    ":-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- "
    "v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) "
    "(*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>"
)

_UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph hPa Pa mbar "
    "mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг м/с км/ч кПа Па мбар "
    "Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ كم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ غرام جرام جم كغ ملغ كوب "
    "$ US$ C$ A$ £ € ¥ ฿ ₽ ﷼ ₴ ₠ ₡ ₢ ₣ ₤ ₥ ₦ ₧ ₨ ₩ ₪ ₫ ₭ ₮ ₯ ₰ ₱ ₲ ₳ ₵ ₶ ₷ ₸ ₹ ₺ ₻ ₼ ₾ ₿"
)


def units() -> list[str]:
    """What is split off a number before it."""
    return _UNITS.split()


@cache
def exceptions() -> dict[str, tuple[int, ...]]:
    """Words → where they are cut (character offsets; none: kept whole)."""
    found: dict[str, tuple[int, ...]] = {}
    for parts in _contractions():
        for first in (parts[0], parts[0].title()):
            for apostrophe in (True, False):
                chosen = [first, *(p if apostrophe else p.replace("'", "") for p in parts[1:])]
                word = "".join(chosen)
                if apostrophe or word.lower() not in _HOMOGRAPHS:
                    lengths = [sum(map(len, chosen[:i])) for i in range(1, len(chosen))]
                    found[word] = tuple(lengths)
    for hour in range(1, 13):
        for period in ("am", "a.m.", "pm", "p.m."):
            found[f"{hour}{period}"] = (len(str(hour)),)
    found.update(_CUT)
    found.update(dict.fromkeys(_WHOLE.split(), ()))
    found.update({f"{letter}.": () for letter in "abcdefghijklmnopqrstuvwxyz"})
    found.update({f"°{letter}.": (1, 2) for letter in "cfkCFK"})
    # Typographers' apostrophes mean the same.
    return found | {word.replace("'", "’"): cuts for word, cuts in found.items()}


def _contractions() -> Iterator[tuple[str, ...]]:
    yield from (("i", "'m"), ("i", "'m", "a"))
    for word in (*_PERSONS.split(), *_ASKING.split()):
        yield from ((word, "'ll"), (word, "'ll", "'ve"), (word, "'d"), (word, "'d", "'ve"))
        if word in ("i", "you", "we", "they") or (word in _ASKING.split() and word not in ("that", "this")):
            yield (word, "'ve")
        if word in ("you", "we", "they") or (word in _ASKING.split() and word not in ("that", "this")):
            yield (word, "'re")
        if word in ("he", "she", "it") or (word in _ASKING.split() and word not in ("these", "those")):
            yield (word, "'s")
    for verb in (*_NOT.split(), *_NOT_ONLY.split()):
        yield (verb, "n't")
        if verb in _NOT.split():
            yield (verb, "n't", "'ve")
        if verb in _HAVE.split():
            yield (verb, "'ve")
