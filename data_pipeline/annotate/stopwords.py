"""Function words by language: running text holds some of them, lists and menus hold none.

Generalises the stop-word rule of Gopher (Rae et al., 2021, appendix A1.1), which is English only. Words are in lower
case, in the spelling of running text, and chosen to be frequent, short and rarely names. `en` is Gopher's own list.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping

DEFAULT = "en"
"""Language of a text whose language is not known."""

UNSPACED = frozenset(
    ("zh", "ja", "ko", "am", "ti", "th", "lo", "km", "my", "bo", "dz", "yue", "wuu", "hsn", "gan")
)
"""Languages without spaces between words, or with marks for them (Ethiopic), and Korean, whose particles end words: their
stop words may stand anywhere in the text."""

_SPACED = {
    # Germanic
    "en": "the be to of and that have with",
    "de": "der die das und ist nicht ein eine zu den von mit auf für dem im sich auch",
    "nl": "de het een en van is niet dat op te voor met zijn in aan ook er",
    "af": "die en van is nie dat wat het vir met sy te op ook om 'n deur",
    "fy": "de it en fan is net dat op te foar mei in wie ek troch syn",
    "lb": "de an den ass vun mat déi net fir op dat eng ze bei och sech",
    "sv": "och att det som en är av för på med den till inte har ett om var",
    "da": "og at det som en er af for på med den til ikke har et de var",
    "nb": "og at det som en er av for på med den til ikke har et de var",
    "nn": "og at det som ein er av for på med den til ikkje har eit dei var",
    "is": "og að er sem til við um með en ekki það var fyrir hann af á í",
    "fo": "og at er sum til við um men ikki tað av fyri hann hava ein á í",
    "yi": "די און פון אין איז דער צו מיט אַז נישט דאָס אויף זיך האָט אַ דעם",
    "gsw": "de und isch vo mit im e uf für vu au d s het das nit ze wie ìn ùn",
    # Romance and Latin
    "fr": "le la les de des et est que un une dans pour qui pas sur par au du en ne",
    "es": "el la los de que y en un una es por con para no se las del al como su",
    "pt": "o a os de que e em um uma é por com para não se as do da ao como",
    "it": "il la le di che e un una è per con non del della si in da come i al",
    "ro": "și de la în nu cu o pe că un este din mai pentru care se sau să au a",
    "ca": "el la els de que i en un una és per amb no les del al com més o se",
    "gl": "o a os de que e en un unha é por con para non se as do da ao como",
    "oc": "lo la los de que e en un una es per amb non las del al se dins o son",
    "ast": "el la los de que y en un una ye por con pa nun se les del al como o",
    "an": "o a os de que y en un una ye por con ta no se as d'o como en la",
    "sc": "su sa sos sas de chi e in unu una est pro cun non si at",
    "co": "u a i di chì è in un una hè per cù ùn da l' e",
    "la": "et in est non ad ut cum quod qui ex sed si per ab de esse aut a quae",
    "ia": "le e de in que es un non pro con per a o al del se",
    "io": "la e di en esas ke por kun ne da a o on sur ek qua",
    "eo": "la kaj de en estas ne al por kun ke li oni aŭ ĉiu esti rajtas pri el sed",
    "ht": "yo ki nan pou ak se li la pa tout yon gen moun sa nou fè",
    # Celtic, Basque, Maltese
    "cy": "y a yn i o yr ar ei mae ac gan am wedi neu fel nid bod eu hawl",
    "ga": "an agus ar na a i is go le do bhí atá sé chun nó gach ag tá",
    "gd": "an agus air na a anns is gu le do bha tha e gach no nan aig am",
    "br": "ar hag an en eo a d'ar da ha ur pe evit e gant er war",
    "eu": "eta da ez du bat dira ere edo izan den dute zuen hori baina dago dituen orok",
    "mt": "li ta' u il- tal- kull ma bħala għandu jew f' fil- ebda dan din hija huwa ta",
    # Baltic, Uralic
    "lt": "ir yra kad į su iš tai ne kaip bet buvo jo už apie arba turi nuo kiekvienas",
    "lv": "un ir ka ar no uz par tas kas bet vai nav bija kā ne pie ikvienam tiesības",
    "fi": "ja on ei että se oli hän mutta ovat kun myös joka tai niin kuin sen voi",
    "et": "ja on ei et see oli ta aga kui ka mis või oma ning tema selle kes",
    "hu": "a az és hogy nem is egy van meg ez de csak volt mint már vagy ki",
    "se": "ja lea ii ahte go leat dat son muhto dahje maid buot vai eai mii",
    # Slavic
    "pl": "i w na z że się nie do jest to o jak od po za przez dla są oraz ma",
    "cs": "a v se na je že to s z do o i ve by jako pro si ale jsou nebo",
    "sk": "a v sa na je že to s z do o aj vo by ako pre si ale sú alebo",
    "sl": "in v je na se da za so z ki pa ne po s bi tudi ali kot ni pri",
    "hr": "i u je na se da za su s od ne koji o kao ali ili iz što bi nije",
    "bs": "i u je na se da za su s od ne koji o kao ali ili iz što bi nije",
    "sh": "i u je na se da za su s od ne koji o kao ali ili iz što bi nije",
    "sr": "и у је на се да за су с од не који о као али или из што би није "
    "i u je na se da za su s od ne koji o kao ali ili iz što bi nije",
    "mk": "и на во е да се од за со не што како тоа го ги или по има ќе сите",
    "bg": "и на в е да се от за с не по че са като но или има ще това до",
    "ru": "и в не на что с по как это он но из у за от к о для или его",
    "uk": "і в не на що з у до та як це за від по але або є для його про",
    "be": "і ў не на што з у да як гэта за ад па але або для яго пра быў",
    "rue": "і в не на што з у до та як то за од по але або є про быв",
    "hsb": "a w na je so z do ze za zo wo přez po jako su ma abo",
    # Other European
    "el": "και το να του η της με που για από δεν στο την είναι τα των ο σε θα",
    "sq": "dhe të e në i për me një që nga është si se ka nuk do u ose",
    "hy": "և է որ են ու այդ այս մի իր ոչ համար կամ նաև եւ մեջ ին պետք",
    "ka": "და არ რომ არის ამ ეს იყო თუ მისი უნდა როგორც ან მაგრამ მათ იგი ყველა ის კი ასევე მას "
    "რომელიც იყოს სხვა შემდეგ მხოლოდ ხოლო აქვს",
    # Turkic, Mongolic
    "tr": "ve bir bu da de için ile ne ama olarak daha çok gibi her olan var veya",
    "az": "və bir bu da də üçün ilə ki o olan hər ya kimi edir olduğu öz daha malikdir",
    "kk": "және бұл мен да де үшін бір деп бар ол осы оның емес болып не өз әр",
    "ky": "жана бул менен да үчүн бир деп бар ал ошол анын эмес болуп же өз ар",
    "uz": "va bu bilan ham uchun bir deb bor u har o'z emas edi yoki shu esa "
    "ва бу билан ҳам учун бир деб бор у ҳар ўз эмас эди ёки шу эса",
    "tk": "we bu bilen hem üçin bir diýip bar ol her öz däl boldy ýa-da şu eger",
    "tt": "һәм бу белән да өчен бер дип бар ул шул аның түгел булып яки үз һәр дә яисә башка булган торган",
    "ba": "һәм был менән да өсөн бер тип бар ул шул уның түгел булып йәки үҙ һәр",
    "cv": "тата ҫак та те ҫын вӑл ку пур мар тесе пулнӑ ҫеҫ кашни е хӑй",
    "ug": "ۋە بۇ بىلەن ھەم ئۈچۈن بىر دەپ بار ئۇ ھەر ئۆز ئەمەس ئىدى ياكى شۇ ھەممە ھەمدە ھەرقانداق "
    "كېرەك we bilen hemme yaki hemde",
    "mn": "нь ба байна энэ гэж юм нэг бол болон буюу тэр хүн бүр байсан ч эрхтэй байх бүх бөгөөд "
    "ямар аливаа гэсэн",
    "sah": "уонна бу буолан да иһин биир диэн баар кини ол кэм эбэтэр бэйэ",
    # Semitic, Iranian, Cushitic
    "ar": "في من على و أن إلى لا هذا عن التي ما هو أو كل مع كان الذي هذه",
    "arz": "فى من على و ان مش ده دى اللى ما هو او كل مع كان لى",
    "he": "של את על לא הוא זה עם או כל גם אל כי היא אשר אין היה אך",
    "fa": "و در به از که این را با است برای آن یک هر خود می تا بر یا",
    "ps": "او د په چې له دی سره کې ته يې هر هم نه دا يا څوک حق",
    "ckb": "و لە بۆ بە کە ئەم لەگەڵ هەر یان هەموو خۆی نییە ئەو وەک دەبێ",
    "ku": "û di de li ji bo ku bi her ev ne an jî xwe ye wî hemû",
    "tg": "ва дар ба аз ки ин бо барои он як ҳар худ то ё аст ҳуқуқ",
    "so": "iyo oo ka ku waa in la uu u ama ay leh aan wuxuu si ah kasta",
    # Indic
    "hi": "के का की है में और से को पर एक यह नहीं हैं भी कि ने या लिए",
    "ur": "کے کا کی ہے میں اور سے کو پر ایک یہ نہیں ہیں بھی کہ نے یا لیے",
    "pnb": "دے دا دی اے وچ تے نوں نال اک ایہ نئیں نیں وی کہ یا",
    "pa": "ਦੇ ਦਾ ਦੀ ਹੈ ਵਿੱਚ ਅਤੇ ਤੋਂ ਨੂੰ ਇੱਕ ਇਹ ਨਹੀਂ ਹਨ ਵੀ ਕਿ ਨੇ ਜਾਂ ਲਈ ਨਾਲ",
    "mr": "आणि आहे या व हे तो ती एक नाही आहेत की होते किंवा तर पण त्या असे",
    "ne": "र को मा छ लाई एक यो पनि हो ले वा छन् गर्ने हरेक प्रत्येक त भने",
    "sa": "च न तु अपि एव इति वा स तत् यः अस्ति हि सर्वे तस्य सः अधिकारः",
    "bho": "के का में बा से आ पर एक ई ना भी कि या लोग सब",
    "mai": "के आ सँ मे अछि एक ई नहि एहि वा जे पर सभ लेल",
    "sd": "۽ جي جو ۾ کي آهي سان هڪ هر نه به يا جا کان ته حق",
    "bn": "এবং ও করে এই এর একটি না থেকে তার যে জন্য কোন হয় বা সঙ্গে কিন্তু প্রত্যেকের",
    "as": "আৰু এই এটা নহয় পৰা তেওঁ যে বাবে কোনো হয় বা সৈতে কিন্তু প্ৰত্যেক ও",
    "gu": "અને છે આ એક માટે તે નથી પણ કે થી સાથે પર હોય દરેક અથવા તેના",
    "or": "ଏବଂ ଓ ଏହି ଏକ ନାହିଁ ପାଇଁ ସେ ଯେ ବା ମଧ୍ୟ ପ୍ରତ୍ୟେକ କରି ଥିବା",
    "si": "සහ හා ද මෙම එය නැත ඇත විසින් හෝ සඳහා ඒ මේ සෑම බව අයිතිය",
    "dv": "އަދި މި އެއް ނުވަތަ ވެސް އެ ކޮންމެ ހައްޤު އެވެ އިން އެއްވެސް އެހެން ވެއެވެ ހުރިހާ",
    # Dravidian
    "ta": "ஒரு மற்றும் இந்த என்று அது உள்ள அந்த என இது ஆகும் அல்லது வேண்டும் இல்லை தான் எந்த "
    "மேலும் பல சில அவர் அவர்கள் ஒவ்வொரு எல்லா பற்றிய இருந்து போன்ற ஆனால் என்ற",
    "te": "మరియు ఒక ఈ ఆ లేదా కూడా కాదు అని ఉంది నుండి తన వారు యొక్క తో హక్కు ప్రతి గాని లేక ఏ గల కానీ ఉన్న చేసిన అయిన",
    "kn": "ಮತ್ತು ಒಂದು ಈ ಆ ಅಥವಾ ಕೂಡ ಅಲ್ಲ ಎಂದು ಇದೆ ತನ್ನ ಅವರ ಎಲ್ಲಾ ಇದು",
    "ml": "ഒരു ഈ ആ എന്ന അല്ലെങ്കിൽ കൂടി അല്ല എന്ന് ഉണ്ട് തന്റെ അവകാശം ഇത് എല്ലാ അഥവാ ഏതൊരു "
    "എല്ലാവർക്കും കൂടാതെ അവരുടെ പോലെ വരെ വേണ്ടി ആണ് എന്നാൽ ഉള്ള എല്ലാവരും അവരവരുടെ",
    # South-East Asia, Pacific
    "id": "yang dan di dengan untuk dari ini itu tidak pada dalam adalah atau oleh ada akan juga ke",
    "ms": "yang dan di dengan untuk dari ini itu tidak pada dalam adalah atau oleh ada akan juga ke",
    "min": "nan jo di untuak dari ko itu indak pado dalam adolah atau dek ado ka",
    "jv": "lan ing kang sing iku ora saka karo utawa ana kanggo iki wong saben duwé",
    "su": "jeung anu di ku teu ti ka nu aya sareng pikeun ieu éta jalma saban atawa",
    "tl": "ang ng sa na mga at ay para ito hindi may o isang kung ni siya nang",
    "ceb": "ang sa nga mga ug si ni kini dili usa o may kay siya ngadto iyang",
    "war": "an ha nga mga ngan usa han hin ini diri o may kay hiya iya",
    "mg": "ny sy dia amin' ho tsy izany fa ao na ary amin'ny no ireo olona zo rehetra",
    "mi": "te o ngā ki i he me e ka kua nei ana tōna katoa tangata ko",
    "haw": "ka ke i o a me ma no ʻo he e nā i ko aku",
    "sm": "o le ma i e se lea ona mo ai po ua tagata uma ina",
    "vi": "và của là có không được trong cho một người các với những này để đã khi thì",
    "hmn": "thiab yog txhua tus muaj nyob los sis rau tsis neeg leej lawv cai",
    # Bantu and other African
    "sw": "ya na wa kwa ni katika za la kuwa haki au cha kila mtu hii yake huo si",
    "zu": "ukuthi futhi noma kanye wonke umuntu unelungelo yonke kodwa ngoba uma zonke lokhu "
    "kufanele kwakhe lapho ukuba nje ukuze njengoba kusho bese kakhulu kahle ngokuthi khona "
    "abantu uthe",
    "xh": "ukuba okanye wonke umntu unelungelo yonke kodwa kuba xa zonke oku kufuneka into ukuze "
    "nto ngokuba kwaye njengoko ke kunye le na emva lo kakhulu bonke abantu",
    "st": "le ya ho ka ba e ke o a tsa ha mme motho wa di bo mo empa",
    "nso": "le ya go ka ba e ke o a tša ga gomme motho wa di bo mo eupša",
    "tn": "le ya go ka ba e ke o a tsa ga mme motho wa di bo mo kgotsa",
    "ts": "na ku ni ya hi va leswi xi a ti ka wu kumbe munhu u la loko leswaku",
    "sn": "uye kuti ne munhu kana wose asi nokuti pana zvinhu vanhu iyi ari kwete kodzero chete ndi va",
    "ny": "ndi ya wa kuti munthu ali ndipo kapena pa kwa za aliyense zonse ku ufulu",
    "rw": "na mu ku kandi cyangwa umuntu wese ari uburenganzira kuri ibyo iyo no nta ko",
    "rn": "na mu ku kandi canke umuntu wese ari uburenganzira ata ivyo iyo no ko",
    "lg": "n' mu ku nga era oba buli muntu eddembe okuba ba kubanga ye nti naye okutuuka eri nnyo bonna ate gye",
    "ln": "na ya ba ezali mpe to nyonso moto oyo te kati mpo ndenge kasi bato azali",
    "yo": "ti ni àti tí ó sí fún kan náà gbogbo tó wọn ẹ̀tọ́ tàbí pé kò lati",
    "ha": "da a na ta ya ba wanda ko cikin ga don shi su wani kowa yana hakkin",
    "ig": "na nke ya ọ bụ n' ma ga ndị onye ka a maọbụ ikike nwere dị mmadụ",
    "wo": "ak ci la ne bu nit yi mu na te am ku di wala bépp ko",
    "ak": "na a no ne wɔ sɛ anaa biara ho nnipa ɔwɔ mu yi",
    "ee": "le kple me siwo ƒe la be alo amesiame na o eye aɖe",
    "bm": "ye ka ni ma la bɛ o kɛ mɔgɔ bɛɛ ko walima na",
    "ff": "e ko fof neɗɗo to kala nde ne walla ha so woni mo jojjande",
    "kab": "d n di ad s yal i ur is ney deg ar yes'a ma seg ara",
    "om": "fi akka kan namni ni qaba hundi irraa mirga keessatti wajjin ykn waan tokko",
    # Americas
    "qu": "chay hina wan ima kay mana sapa runa ch'aymi tukuy ñuqa kanan hinaspa hinallataq wakin "
    "llapa manam lliw pi pipas otaq alli tucuy",
    "gn": "ha pe upe va'erã umi peteĩ mba'e hetã avei térã opa ndaipóri yvypóra haguã ha'e",
    "ay": "jaqi taqi ukhamaraki uka jan mä utji jani ukat jupan aka taqpach derechoni taqe kuna jaqe",
}
_ANYWHERE = {
    "zh": "的 是 不 在 有 和 了 人 这 我 他 為 为 與 与 以 也 之 這",
    "yue": "嘅 係 唔 喺 有 同 咗 人 呢 我 佢 為 以 都 之 個",
    "wuu": "个 是 勿 辣 有 搭 了 人 迭 我 伊 为 以 也 之 嗰",
    "ja": "の に は を た が で て と し れ さ ある こと する です ます から",
    "ko": "은 는 이 가 을 를 의 에 로 다 고 하 지 도 한",
    "am": "ነው እና ላይ ወደ ይህ ነበር ግን ሁሉ ወይም ያለው መብት አለው እንደ ማንኛውም ጋር",
    "ti": "እዩ ናይ ከም ኣብ እዚ እቲ ካብ ወይ ኩሉ ሰብ መሰል ኣለዎ ናብ ምስ",
    "th": "ที่ และ ใน ของ เป็น ไม่ มี การ ได้ จะ ให้ ว่า จาก กับ คน นี้ หรือ แต่",
    "lo": "ແລະ ໃນ ຂອງ ເປັນ ບໍ່ ມີ ການ ໄດ້ ໃຫ້ ວ່າ ຈາກ ກັບ ຄົນ ນີ້ ຫຼື ທີ່",
    "km": "និង នៅ ជា មាន មិន ក្នុង ដោយ របស់ បាន ការ ដែល នេះ ឬ គ្រប់ ទៅ ពី",
    "my": "သည် နှင့် များ ၏ ကို တွင် မှ ဖြစ် ရှိ ခြင်း လည်း မ သော အ သို့ ၌",
    "bo": "ཀྱི གི གྱི ནི དང ལ ཡིན མི དུ ནས འདི ཡོད པ ཚང",
    "dz": "གི ཀྱི ནི དང ལ ཨིན མི ལུ ལས འདི ཡོད པ མེན",
}

_ALIAS = {"no": "nb", "zlm": "ms", "fil": "tl", "cnr": "sr", "tw": "ak", "hsn": "zh", "gan": "zh"}

STOP_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(unicodedata.normalize("NFD", words).split()) | frozenset(words.split())
    for language, words in (_SPACED | _ANYWHERE).items()
}
"""Stop words by language (ISO 639-1, where there is none 639-3), lower case, with accents composed and decomposed."""


def of(language: str | None) -> frozenset[str] | None:
    """Stop words of a language; Gopher's English ones where it is not known, None where there are none for it."""
    if language is None:
        return STOP_WORDS[DEFAULT]
    return STOP_WORDS.get(_ALIAS.get(language, language))


def count(text: str, words: Collection[str], language: str | None) -> int | None:
    """Number of different stop words of a language in a text, given the text's words as well.

    Words count as they stand, as in Gopher; in languages without spaces the stop words count anywhere in the text. None
    for a language without stop words.
    """
    wanted = of(language)
    if wanted is None:
        return None
    if language in UNSPACED:
        return sum(word in text for word in wanted)
    return len(wanted.intersection(words))
