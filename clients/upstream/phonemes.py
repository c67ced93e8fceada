"""Text -> the numbers of the phoneme symbols that Matcha-TTS, VITS and others of their line were trained on.

Rules: espeak-ng supplies the phonemes (IPA with stress); punctuation is kept. Between two symbols, and at both ends, stands
the blank, number 0.
"""

import re
import unicodedata

from glowd.clients.upstream.espeak import MISSING
from glowd.clients.upstream.processes import output_of

PAD = "_"
PUNCTUATION = ';:,.!?¡¿—…"«»“” '
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
IPA = "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'̩'ᵻ"
NUMBERS = {symbol: number for number, symbol in enumerate(PAD + PUNCTUATION + LETTERS + IPA)}
"""The order is that of the models' training and must not change; of a symbol that stands twice the second place counts."""
MARKS = re.compile(r"""\s*[;:,.!?¡¿—…"«»“”]+\s*""")
PATIENCE_S = 60.0
ESPEAK = ("espeak-ng", "--stdin", "-q", "--ipa", "-b", "1", "-v", "en-us")


def symbol_ids(text: str) -> list[int]:
    """The numbers, with blanks; none if there is nothing to say."""
    numbers = [NUMBERS[symbol] for symbol in phonemes(text) if symbol in NUMBERS]
    with_blanks = [0] * (2 * len(numbers) + 1)
    with_blanks[1::2] = numbers
    return with_blanks if numbers else []


def phonemes(text: str) -> str:
    """The phonemes of the words, with the punctuation between them."""
    plain = unicodedata.normalize("NFKC", text).replace("’", "'")
    words, marks = MARKS.split(plain), MARKS.findall(plain)
    spoken = [phonemes_of_words(part) for part in words]
    if not any(spoken):
        return ""
    joined = "".join(part + mark for part, mark in zip(spoken, [*marks, ""]))
    return " ".join(joined.split())


def phonemes_of_words(words: str) -> str:
    """The phonemes of words without punctuation, "" of none."""
    if not re.search(r"\w", words):
        return ""
    with output_of(ESPEAK, words, patience_s=PATIENCE_S, about="espeak-ng", missing=MISSING) as output:
        return " ".join(output.read().decode().split())
