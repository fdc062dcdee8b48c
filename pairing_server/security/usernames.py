"""Which names a new account may have: those of RFC 8265 (PRECIS, UsernameCaseMapped), of one script (UTS 39).

An account that is older than a rule keeps its name: names are compared as ever (`store.users.username_key`).
"""

from __future__ import annotations

import unicodedata
from uuid import UUID

import regex
from precis_i18n import get_profile

MIN_LENGTH, MAX_LENGTH = 3, 64

_PRESERVED, _MAPPED = get_profile("UsernameCasePreserved"), get_profile("UsernameCaseMapped")

# The scripts that are recommended for identifiers (UAX 31, table 5), and those that are written together (UTS 39, 5.2,
# highly restrictive). A character that several scripts use is of each of them.
_SCRIPTS = [
    "Arab",
    "Armn",
    "Beng",
    "Bopo",
    "Cyrl",
    "Deva",
    "Ethi",
    "Geor",
    "Grek",
    "Gujr",
    "Guru",
    "Hang",
    "Hani",
    "Hebr",
    "Hira",
    "Kana",
    "Khmr",
    "Knda",
    "Laoo",
    "Latn",
    "Mlym",
    "Mymr",
    "Orya",
    "Sinh",
    "Taml",
    "Telu",
    "Thaa",
    "Thai",
    "Tibt",
]
_TOGETHER = (["Latn", "Hani", "Hira", "Kana"], ["Latn", "Hani", "Bopo"], ["Latn", "Hani", "Hang"])
_ONE_SCRIPT = regex.compile(
    "|".join(
        "[" + "".join(rf"\p{{scx={script}}}" for script in (*scripts, "Zyyy", "Zinh")) + "]+"
        for scripts in (*([script] for script in _SCRIPTS), *_TOGETHER)
    )
)
# A mark over nothing, the same one twice, more than four on a letter (UTS 39, 5.4); and joiners, which are not seen.
_UNSEEN = regex.compile(r"^\p{M}|(\p{Mn})\1|\p{Mn}{5}|[\u200c\u200d]")

# Each letter or digit that a name may have and that looks like one of ASCII, and that one (UTS 39, confusables.txt). The
# Turkish ı is left out: Yıldız is a name.
_PAIRS = [
    "аa",
    "б6",
    "гr",
    "еe",
    "оo",
    "рp",
    "сc",
    "уy",
    "хx",
    "ѕs",
    "іi",
    "јj",
    "ѡw",
    "ѵv",
    "үy",
    "һh",
    "ҽe",
    "ӏl",
    "ԁd",
    "ԛq",
    "ԝw",
    "ꙇi",
    "αa",
    "γy",
    "ιi",
    "νv",
    "οo",
    "ρp",
    "σo",
    "υu",
    "ϳj",
    "ᴦr",
    "աw",
    "գq",
    "զq",
    "հh",
    "ոn",
    "ռn",
    "սu",
    "ցg",
    "քf",
    "օo",
    "ყy",
    "ჿo",
    "ƍg",
    "ƽs",
    "ǀl",
    "ȣ8",
    "ɑa",
    "ɡg",
    "ɣy",
    "ɩi",
    "ɪi",
    "ɯw",
    "ʋu",
    "ʏy",
    "ᴄc",
    "ᴏo",
    "ᴑo",
    "ᴜu",
    "ᴠv",
    "ᴡw",
    "ᴢz",
    "ᶃg",
    "ᶌy",
    "ẝf",
    "ỿy",
    "ꜱs",
    "ꞙf",
    "ꞟu",
    "ꬲe",
    "ꬵf",
    "ꬽo",
    "ꭇr",
    "ꭈr",
    "ꭎu",
    "ꭒu",
    "ꭚy",
    "ଃ8",
    "ଠo",
    "୦o",
    "୨9",
    "০o",
    "৪8",
    "৭9",
    "੦o",
    "੧9",
    "੪8",
    "ംo",
    "ഠo",
    "൦o",
    "൭9",
    "۱l",
    "۵o",
    "۷v",
    "ంo",
    "౦o",
    "ಂo",
    "೦o",
    "ංo",
    "०o",
    "૦o",
    "௦o",
    "๐o",
    "໐o",
    "ဝo",
    "၀o",
    "〇o",
    "ሀu",
    "ዐo",
]
_ALIKE = {ord(pair[0]): pair[1] for pair in _PAIRS}


def usable(name: str) -> str:
    """The name as it is kept and shown: normalized, in upper and lower case as given.

    Raises ValueError, which says what it must be.
    """
    name = unicodedata.normalize("NFC", name)
    if not MIN_LENGTH <= len(name) <= MAX_LENGTH:
        raise ValueError(f"Must be {MIN_LENGTH} to {MAX_LENGTH} characters.")
    if "" in (words := name.split(" ")):
        raise ValueError("Must not have spaces at its ends, nor two together.")
    try:
        kept = " ".join(_PRESERVED.enforce(word) for word in words)
        compared = " ".join(_MAPPED.enforce(word) for word in words)
    except UnicodeEncodeError as error:
        raise ValueError(_fault(error)) from None
    if "|" in kept:
        # "issuer|sub" names the user of another issuer.
        raise ValueError("Must not have the character |.")
    if _is_id(kept):
        raise ValueError("Must not look like an account's id (a UUID).")
    if _UNSEEN.search(unicodedata.normalize("NFD", kept)):
        raise ValueError("Must not have characters that are not seen, nor marks that stand alone or twice.")
    if not _ONE_SCRIPT.fullmatch(compared):
        raise ValueError("Must be written in the letters of one script, such as Latin or Cyrillic.")
    if not compared.isascii() and (read := compared.translate(_ALIKE)).isascii():
        raise ValueError(f"Must not be written in letters that look like others: one would read {read}.")
    return kept


def _fault(error: UnicodeEncodeError) -> str:
    if error.reason.endswith("bidi_rule"):
        return "Must be written in one direction, from its first character to its last."
    character = error.object[error.start]
    shown = f"{character} (U+{ord(character):04X})" if character.isprintable() else f"U+{ord(character):04X}"
    return f"Must have letters, digits and the signs of ASCII only, without {shown}."


def _is_id(name: str) -> bool:
    """Whether it could be an account's id, in any of the ways to write a UUID."""
    try:
        UUID(name)
    except ValueError:
        return False
    return True
