//! Singular and plural of English nouns: rules, and small tables of what the rules would get wrong.

/// Singulars and plurals of another form, and words that end in them: `fireman`, `grandchildren`.
const IRREGULAR_ENDS: [(&str, &str); 4] =
    [("man", "men"), ("child", "children"), ("person", "people"), ("tooth", "teeth")];
/// The same without the words that end in them: `mongoose`, `fox`, `olive`.
const IRREGULAR: [(&str, &str); 14] = [
    ("mouse", "mice"),
    ("louse", "lice"),
    ("goose", "geese"),
    ("foot", "feet"),
    ("ox", "oxen"),
    ("life", "lives"),
    ("quiz", "quizzes"),
    ("cactus", "cacti"),
    ("fungus", "fungi"),
    ("octopus", "octopi"),
    ("hippopotamus", "hippopotami"),
    ("larva", "larvae"),
    ("alga", "algae"),
    ("antenna", "antennae"),
];
/// Letters that a word has more than the irregular noun it ends in, at least: an `omen` is no plural.
const COMPOUND: usize = 2;
/// Nouns whose plural has `ves`, and words that end in them.
const VES: [&str; 16] = [
    "calf", "dwarf", "elf", "half", "hoof", "knife", "leaf", "loaf", "scarf", "self", "sheaf", "shelf",
    "thief", "wharf", "wife", "wolf",
];
/// Words that end like plurals and are none, or whose singular is another word.
const NO_PLURALS: [&str; 48] = [
    "alias",
    "amen",
    "asbestos",
    "atlas",
    "barracks",
    "bias",
    "biceps",
    "boxers",
    "briefs",
    "canvas",
    "chaos",
    "christmas",
    "contents",
    "corps",
    "cosmos",
    "crossroads",
    "customs",
    "flats",
    "forceps",
    "gallows",
    "goods",
    "headquarters",
    "jeans",
    "kansas",
    "kudos",
    "lens",
    "mars",
    "means",
    "molasses",
    "news",
    "omen",
    "overalls",
    "pajamas",
    "pancreas",
    "physics",
    "pyjamas",
    "ramen",
    "rhinoceros",
    "series",
    "shorts",
    "slacks",
    "species",
    "texas",
    "thanks",
    "theses",
    "tights",
    "triceps",
    "vegas",
];
/// Plurals in `is` and `us`, which are the ends of singulars otherwise.
const PLURALS_IN_IS_OR_US: [&str; 28] = [
    "alibis",
    "bikinis",
    "broccolis",
    "bureaus",
    "caribous",
    "chilis",
    "emus",
    "gnus",
    "gurus",
    "jacuzzis",
    "kimchis",
    "kiwis",
    "martinis",
    "menus",
    "okapis",
    "origamis",
    "plateaus",
    "rabbis",
    "safaris",
    "salamis",
    "samurais",
    "saris",
    "skis",
    "spaghettis",
    "taxis",
    "tsunamis",
    "tutus",
    "zucchinis",
];

/// A word's other forms in singular and plural, itself left out. Of words that are not of Latin letters only, none.
///
/// Some are not English ("gooses", "potatoe"): captions do not have them. Words of which a rule would make another common word are in tables.
pub(super) fn other_forms(word: &str) -> Vec<String> {
    let is_latin = |c: char| c.is_alphabetic() && c < '\u{250}';
    if word.chars().count() < 2 || !word.chars().all(is_latin) {
        return Vec::new();
    }
    let mut forms = singulars(word);
    if forms.is_empty() {
        forms = plurals(word);
    } else {
        let plurals: Vec<String> = forms.iter().flat_map(|singular| plurals(singular)).collect();
        forms.extend(plurals);
    }
    forms.sort_unstable();
    forms.dedup();
    forms.retain(|form| form != word);
    forms
}

fn plurals(word: &str) -> Vec<String> {
    let mut plurals: Vec<String> = irregular(word, |&pair| pair).into_iter().collect();
    let vowel_before = |end: &str| {
        let stem = &word[..word.len() - end.len()];
        stem.ends_with(['a', 'e', 'i', 'o', 'u']) && !stem.ends_with("qu")
    };
    if VES.iter().any(|singular| word.ends_with(singular)) {
        let stem = word.strip_suffix("fe").or(word.strip_suffix('f')).unwrap_or(word);
        plurals.push(format!("{stem}ves"));
    }
    if word.ends_with('y') && !vowel_before("y") {
        plurals.push(replace_end(word, "y", "ies"));
        return plurals;
    }
    if word.ends_with(['s', 'x', 'z']) || word.ends_with("sh") {
        plurals.push(format!("{word}es"));
        return plurals;
    }
    // Matches and stomachs, potatoes and photos.
    if word.ends_with("ch") || word.ends_with('o') && !vowel_before("o") {
        plurals.push(format!("{word}es"));
    }
    plurals.push(format!("{word}s"));
    plurals
}

/// What a word is the plural of; nothing if it is a singular.
fn singulars(word: &str) -> Vec<String> {
    if NO_PLURALS.contains(&word) {
        return Vec::new();
    }
    if let Some(singular) = irregular(word, |&(singular, plural)| (plural, singular)) {
        return vec![singular];
    }
    let Some(stem) = word.strip_suffix('s').filter(|_| word.chars().count() > 3) else { return Vec::new() };
    if let Some(short) = word.strip_suffix("ies") {
        // Puppies and cookies; ties.
        let in_y = (short.len() > 1).then(|| format!("{short}y"));
        return in_y.into_iter().chain([stem.to_owned()]).collect();
    }
    if let Some(stem) = word.strip_suffix("ves") {
        let singular = [format!("{stem}f"), format!("{stem}fe")]
            .into_iter()
            .find(|singular| VES.iter().any(|known| singular.ends_with(known)));
        return vec![singular.unwrap_or_else(|| format!("{stem}ve"))];
    }
    if let Some(short) = word.strip_suffix("es").filter(|short| may_take_es(short)) {
        // Boxes, watches, buses, potatoes; and headaches, houses.
        return vec![short.to_owned(), stem.to_owned()];
    }
    let is_singular = stem.ends_with(['s', 'i', 'u']) && !PLURALS_IN_IS_OR_US.contains(&word);
    if is_singular { Vec::new() } else { vec![stem.to_owned()] }
}

/// Whether what stands before a word's `es` may be a singular.
fn may_take_es(stem: &str) -> bool {
    let in_s = ["ss", "us", "is", "lens"].iter().any(|end| stem.ends_with(end))
        || ["alias", "atlas", "canvas", "gas", "pancreas"].contains(&stem);
    let in_sibilant = in_s || stem.ends_with(['x', 'z']) || stem.ends_with("sh") || stem.ends_with("ch");
    // No toes, shoes, axes.
    in_sibilant && stem.len() > 2 || stem.ends_with('o') && stem.len() > 3
}

/// A word with its irregular end exchanged: `from` says which of a pair is the end, and which is put in its place.
fn irregular(
    word: &str,
    from: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) -> Option<String> {
    let whole = IRREGULAR.iter().map(&from).find(|(end, _)| word == *end);
    let is_end = |end: &str| word == end || word.ends_with(end) && word.len() >= end.len() + COMPOUND;
    let (end, with) = whole.or_else(|| IRREGULAR_ENDS.iter().map(from).find(|(end, _)| is_end(end)))?;
    Some(replace_end(word, end, with))
}

fn replace_end(word: &str, end: &str, with: &str) -> String {
    format!("{}{with}", &word[..word.len() - end.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_and_plural_are_each_others_forms() {
        for (singular, plural) in [
            ("dog", "dogs"),
            ("backpack", "backpacks"),
            ("shoe", "shoes"),
            ("toe", "toes"),
            ("dress", "dresses"),
            ("glass", "glasses"),
            ("bus", "buses"),
            ("octopus", "octopuses"),
            ("octopus", "octopi"),
            ("gas", "gases"),
            ("lens", "lenses"),
            ("iris", "irises"),
            ("box", "boxes"),
            ("fox", "foxes"),
            ("ox", "oxen"),
            ("axe", "axes"),
            ("watch", "watches"),
            ("stomach", "stomachs"),
            ("headache", "headaches"),
            ("dish", "dishes"),
            ("house", "houses"),
            ("rose", "roses"),
            ("vase", "vases"),
            ("quiz", "quizzes"),
            ("prize", "prizes"),
            ("puppy", "puppies"),
            ("fly", "flies"),
            ("cookie", "cookies"),
            ("tie", "ties"),
            ("toy", "toys"),
            ("potato", "potatoes"),
            ("photo", "photos"),
            ("studio", "studios"),
            ("leaf", "leaves"),
            ("knife", "knives"),
            ("bookshelf", "bookshelves"),
            ("wolf", "wolves"),
            ("werewolf", "werewolves"),
            ("roof", "roofs"),
            ("cafe", "cafes"),
            ("glove", "gloves"),
            ("olive", "olives"),
            ("giraffe", "giraffes"),
            ("man", "men"),
            ("woman", "women"),
            ("fireman", "firemen"),
            ("german", "germans"),
            ("person", "people"),
            ("person", "persons"),
            ("child", "children"),
            ("grandchild", "grandchildren"),
            ("mouse", "mice"),
            ("house", "houses"),
            ("goose", "geese"),
            ("mongoose", "mongooses"),
            ("foot", "feet"),
            ("tooth", "teeth"),
            ("menu", "menus"),
            ("taxi", "taxis"),
            ("camera", "cameras"),
            ("café", "cafés"),
            ("piano", "pianos"),
            ("legging", "leggings"),
        ] {
            assert!(
                other_forms(singular).contains(&plural.to_owned()),
                "{singular}: {:?}",
                other_forms(singular)
            );
            assert!(
                other_forms(plural).contains(&singular.to_owned()),
                "{plural}: {:?}",
                other_forms(plural)
            );
        }
    }

    #[test]
    fn no_word_is_cut_into_another() {
        for (word, wrong) in [
            ("glass", "glas"),
            ("bus", "bu"),
            ("dress", "dres"),
            ("jeans", "jean"),
            ("shorts", "short"),
            ("news", "new"),
            ("lens", "len"),
            ("series", "sery"),
            ("species", "specie"),
            ("tennis", "tenni"),
            ("cactus", "cactu"),
            ("toes", "to"),
            ("shoes", "sho"),
            ("leaves", "leave"),
            ("cafe", "caves"),
            ("safe", "saves"),
            ("box", "boxen"),
            ("mongoose", "mongeese"),
            ("gas", "ga"),
            ("yes", "ye"),
            ("ties", "ty"),
            ("olives", "olife"),
            ("omen", "oman"),
            ("houses", "hou"),
        ] {
            assert!(!other_forms(word).contains(&wrong.to_owned()), "{word}: {:?}", other_forms(word));
        }
        for word in ["s", "", "747", "собака", "x9"] {
            assert!(other_forms(word).is_empty(), "{word}");
        }
        assert_eq!(other_forms("jeans"), ["jeanses"]);
    }
}
