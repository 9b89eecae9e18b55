"""Which images' captions name a label: words, case folded, plural tolerant in English. Plain and slow; the Rust uses an automaton.

    naming(labels, captions, images) -> for each label its images (numbers), and those that name only its last word
"""
import re
import unicodedata

IRREGULAR = {"man": "men", "woman": "women", "person": "people", "child": "children", "mouse": "mice", "goose": "geese", "foot": "feet", "tooth": "teeth", "ox": "oxen",
             "leaf": "leaves", "wolf": "wolves", "knife": "knives", "wife": "wives", "life": "lives", "half": "halves", "calf": "calves", "loaf": "loaves",
             "shelf": "shelves", "scarf": "scarves", "thief": "thieves", "hoof": "hooves", "elf": "elves"}
WORD = re.compile(r"[^\W_]+")


def words(text):
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def plurals(word):
    """Forms that can be the plural of an English word."""
    if word in IRREGULAR:
        return {IRREGULAR[word]}
    if re.search(r"(s|x|z|ch|sh)$", word):
        return {word + "es"}
    if re.search(r"[^aeiou]y$", word):
        return {word[:-1] + "ies"}
    if word.endswith("o"):
        return {word + "s", word + "es"}
    return {word + "s"}


def same(a, b):
    """Equal but for the number."""
    return a == b or a in plurals(b) or b in plurals(a)


def alternatives(label):
    """The names in a label: 'baluster or handrail', 'goldfish, Carassius auratus', 'crane (bird)'."""
    label = re.sub(r"\([^)]*\)", " ", label)
    return [w for part in re.split(r",|/|;| or ", label) if (w := words(part))]


def naming(labels, captions, images):
    """(images that name each label, images that name only the last word of each label of several words), as sets of image numbers."""
    names = [(c, name) for c, label in enumerate(labels) for name in alternatives(label)]
    by_last = {}
    vocabulary = {}
    split = [words(caption) for caption in captions]
    for caption in split:
        for word in caption:
            vocabulary.setdefault(word, None)
    for word in vocabulary:
        vocabulary[word] = [i for i, (_, name) in enumerate(names) if same(word, name[-1])]
    named, heads = [set() for _ in labels], [set() for _ in labels]
    for caption, image in zip(split, images):
        found = []
        for end, word in enumerate(caption, 1):
            for i in vocabulary[word]:
                c, name = names[i]
                start = end - len(name)
                if start >= 0 and caption[start:end - 1] == name[:-1]:
                    found.append((start, end, c))
                elif len(name) > 1:
                    heads[c].add(int(image))
        for start, end, c in found:
            if not any(s <= start and end <= e and (s, e) != (start, end) and other != c for s, e, other in found):
                named[c].add(int(image))
    return named, [head - whole for head, whole in zip(heads, named)]
