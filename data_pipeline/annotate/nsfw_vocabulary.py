"""Words that tell what kind of page holds listed words: vocabulary of adult advertising, and of reference.

Written for this project. Medicine, dictionaries, law, science and news use the words of every list, in sentences that
use these words too.
"""

from __future__ import annotations

ADULT = """
porn porno pornos pornography pornstar pornstars pornographic xxx nsfw hentai rule34 camgirl camgirls camsex webcam
sexcam nude nudes nudity naked topless uncensored erotic erotica erotik erotico erotique erotismo hardcore softcore
milf milfs gilf bbw bdsm fetish kinky escorts callgirl callgirls hooker hookers stripper strippers striptease swinger
swingers hookup hookups threesome gangbang orgy orgies blowjob blowjobs handjob cumshot creampie deepthroat dildo
dildos vibrator vibrators fleshlight masturbate masturbating masturbation orgasm orgasms horny slut sluts slutty busty
babes boobs tits titties pussy anal fuck fucks fucked fucking cumming wank wanking onlyfans playboy lingerie upskirt
voyeur shemale tranny ladyboy gloryhole bondage domina dominatrix femdom cuckold squirting squirt sexchat sextreff
sexkontakte titten fotze ficken geile geil muschi schwanz huren nutte nutten bordell desnuda desnudas desnudo tetas
puta putas follar polla coño maduras baise salope salopes pute putes nue nues chatte nichons nuda nude cazzo puttana
scopare tette porr naken knulla fitta neuken hoer geile lekker naakt cipka kurwa ruchanie cycki порно голая голые
сиськи трах трахает минет шлюха шлюхи эротика проститутки 色情 裸体 性爱 av女優 無修正
エロ 熟女 巨乳 야동 섹스 포르노 سكس نيك بورنو xvideos
xhamster redtube youporn
"""
"""Everyday words of pages for adults, of many languages; one sign of many, never one by itself."""

REFERENCE = """
patient patients clinical clinic symptom symptoms diagnosis diagnosed treatment treatments disease diseases infection
infections infected therapy doctor doctors physician medical medicine medication vaccine hormone hormones cancer tumor
gland tissue tissues anatomy anatomical uterus ovaries prostate urinary bladder pelvic surgery surgical nurse hospital
health healthcare pregnancy pregnant fertility contraception contraceptive puberty condom condoms hiv sti stis std stds
study studies research researchers researcher university professor journal percent percentage survey data evidence
analysis theory history historical century ancient literature literary author authors novel chapter published publisher
edition translation translated museum artist painting sculpture renaissance dictionary noun verb adjective adverb
etymology definition definitions defined synonym synonyms slang pronunciation plural latin greek derived meaning
meanings usage language languages linguistic linguistics grammar vocabulary word words term terms encyclopedia wikipedia
police court judge jury trial arrested charged convicted sentenced prosecutor prosecutors attorney lawyer lawsuit
alleged allegedly allegations accused victim victims investigation officials government minister president parliament
election policy legislation law laws legal rights activists campaign harassment assault abuse violence reported
reporter report reports according statement spokesman spokeswoman interview species genus bird birds mammal habitat
breeding animal animals biology biological chemistry physics evolution gender education teacher teachers school schools
students parents counseling counselor psychologist psychology psychological mental disorder sexuality
patienten krankheit behandlung symptome arzt medizin studie wissenschaft universität wörterbuch bedeutung polizei gericht
gesetz geschichte maladie traitement médecin étude université dictionnaire définition tribunal loi histoire enfermedad
tratamiento médico estudio universidad diccionario significado policía tribunal ley historia malattia trattamento
studio università dizionario polizia legge storia
"""
"""Words of medicine, science, dictionaries, law and news."""
