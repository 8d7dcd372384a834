//! Words of captions, as the Penn Treebank's tokenizer of CoreNLP 3.4.1 parts them for `pycocoevalcap`: in lower case and without
//! punctuation. The rules were found by asking that tool about some thousands of rows; they differ from it on about two rows in a
//! thousand of made-up ones (soft hyphens and combining accents beside signs, `„“` and `‹›` in pairs, some signs within addresses).

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::bytes::Regex;

// Characters beyond ASCII as the patterns see them, one byte each.
const LETTER: u8 = 0x80;
const KEPT: u8 = 0x82;
const SINGLE_OPEN: u8 = 0x83;
const SINGLE_CLOSE: u8 = 0x84;
const DOUBLE_OPEN: u8 = 0x86;
const DOUBLE_CLOSE: u8 = 0x87;

/// Words that keep their period. An upper-case letter must be one, and a letter behind `_` a lower-case one; others may be either.
const ABBREVIATIONS: &str = "al ala apr Ark ariz assn attys aug Az bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec \
    Del esq est etc ext feb fla fri ga Ill inc ind intl jan jr jul jun kan kans ky La ltd mar Mass md mich minn Miss mo mon mont \
    neb nev nov oct okla Ore Pa penn ph.d plc ppt_e ppt_es ppt_y ppt_ys pt_e pt_es pt_y pt_ys rd rt sep sept seq sq sr sys tel tenn \
    Tex thu thurs tue tues univ va vt Wash wed wis wisc wyo";
const TITLES: &str = "adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov \
    govs hon insp invt jos lieut lt maj messrs m_fg mlle mme mr mrs ms msgr mt m_tg natl pfc ph pres prof profs pvt rep reps rev sen \
    sens sfc sgt spc st ste supt supts treas vs wm";
/// Words that keep their period before a number.
const NUMBERED: &str = "art ca fig figs no nos op pp prop";
/// Words that begin a sentence, so that a letter and a period before them end one.
const STARTS: &str = "A About Additionally After An As At But Earlier He Her Here However If In It Last Many More Mr\\. Ms\\. Now \
    Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You";
/// Words that are two, and where the first ends.
const SPLIT: [(&str, usize); 8] =
    [("cannot", 3), ("gonna", 3), ("gotta", 3), ("lemme", 3), ("gimme", 3), ("wanna", 3), ("'tis", 2), ("'twas", 2)];
const FILE_ENDINGS: &str = "c h x gz pl ps py bat bmp cgi cpp dll doc exe gif htm jar jpg mov mp3 pdf php png ppt sql tar txt wav xml \
    zip docx html java jpeg";

/// Longest word, in characters.
const LONGEST: usize = 512;

/// What becomes of what a rule takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is a word.
    Word,
    /// It is two words.
    Split,
    /// Its quotes become straight ones.
    Straight,
    /// Its round brackets become words for them.
    Bracketed,
    /// It is no word.
    Gap,
}

/// What has to follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Anything,
    /// White space, or the end.
    Space,
    /// No ASCII letter.
    NoLetter,
    /// No letter or digit.
    NoAlphanumeric,
}

impl After {
    fn fits(self, next: Option<&u8>) -> bool {
        let Some(&next) = next else { return true };
        match self {
            Self::Anything => true,
            Self::Space => next.is_ascii_whitespace() || next == 0x0b,
            Self::NoLetter => !next.is_ascii_alphabetic(),
            Self::NoAlphanumeric => !next.is_ascii_alphanumeric() && next != LETTER,
        }
    }
}

/// Of all rules that fit at a place the one that is longest counts, the first of equals. A group of the pattern is all that is
/// taken, but the whole counts as length; `more` characters count besides.
struct Rule {
    pattern: Regex,
    kind: Kind,
    more: usize,
    after: After,
}

/// A pattern for any of some words, as the tables above have them.
fn any_of(words: &str) -> String {
    let mut words: Vec<&str> = words.split_whitespace().collect();
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let one = |word: &&str| {
        let (mut out, mut is_lower) = (String::new(), false);
        for char in word.chars() {
            match char {
                '_' => {
                    is_lower = true;
                    continue;
                }
                '.' | '+' => out.extend(['\\', char]),
                char if is_lower || char.is_uppercase() || !char.is_alphabetic() => out.push(char),
                char => out.extend(['[', char, char.to_ascii_uppercase(), ']']),
            }
            is_lower = false;
        }
        out
    };
    format!("(?:{})", words.iter().map(one).collect::<Vec<_>>().join("|"))
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let letter = r"[A-Za-z\x80]";
    let (a, quote, mark) = (r"[A-Za-z0-9\x80]", r"['\x84]", r"['`\x84\x83]");
    let word_part = format!("(?:[dloDLO]{mark}{a}{a}+|{a}+)");
    let word = format!(r"{word_part}(?:[_\-]{word_part})*");
    let dotted = format!(r"{letter}{a}*(?:[.!?]{letter}{a}*)+");
    let acronym = format!(r"{letter}(?:\.{letter})+\.");
    let part = "[A-Za-z0-9]+(?:-[A-Za-z]+)*";
    let name = r"[A-Za-z][A-Za-z0-9_:.\-]*";
    let suffix = "(?:[sSmMdD]|[lL][lL]|[rR][eE]|[vV][eE])";
    let sign = r#"[^\s"<>|()\x86\x87]"#;
    let last = r#"[^\s"<>|.!?(){},\-\x86\x87]"#;
    let face = r"[\^x=~<>'\-]";
    let mut starts: Vec<&str> = STARTS.split_whitespace().collect();
    starts.sort_by_key(|start| std::cmp::Reverse(start.len()));
    let starts = starts.join("|");
    let split: String = SPLIT.map(|row| row.0).join(" ");
    let rule = |pattern: String, kind: Kind, more: usize, after: After| Rule {
        pattern: Regex::new(&format!(r"\A(?-u:{pattern})")).expect("the patterns are sound"),
        kind,
        more,
        after,
    };
    let plain = |pattern: String| rule(pattern, Kind::Word, 0, After::Anything);
    vec![
        plain(format!(
            r#"<(?:/{name}\s*|{name}(?:\s+{name}(?:\s*=\s*(?:"[^"]*"|'[^']*'))?)*\s*/?\s*|[!?][A-Za-z\-][^>]*)>"#
        )),
        rule(any_of(&split), Kind::Split, 0, After::Anything),
        plain(format!(r"([A-Za-z]*[A-MO-Za-mo-z])[nN]{mark}[tT]")),
        rule(format!("[nN]{mark}[tT]"), Kind::Straight, 0, After::Anything),
        plain(format!("({a}+){quote}{suffix}")),
        rule(format!("'{suffix}"), Kind::Straight, 0, After::NoLetter),
        rule(format!(r"\x84{suffix}"), Kind::Straight, 0, After::Anything),
        rule("'[nN]".to_owned(), Kind::Word, 1, After::Space),
        plain(r"\x84[nN]".to_owned()),
        plain(format!(
            "{quote}(?:{}|[nN]{quote})|(?:{}{quote}[nN]|{}{quote}{}|[oO]{mark}[oO]|{}{quote})|{}",
            any_of("em till til cause"),
            any_of("cap"),
            any_of("c"),
            any_of("est mon"),
            any_of("ol d j l"),
            any_of("e'er li'l ev'ry nat'l c++ c# f#"),
        )),
        plain(format!("([yY]{quote}){letter}")),
        plain(format!("{quote}[2-9]0s")),
        rule(format!("{quote}[0-9][0-9]"), Kind::Word, 0, After::Space),
        plain(format!(r"{}\.", any_of(TITLES))),
        rule(format!(r"([A-Za-z])\. +(?:{starts})"), Kind::Word, 1, After::Space),
        plain(format!(r"([A-Za-z])\. +</?{name}[^<>]*>")),
        plain(r"[A-Za-z]\.".to_owned()),
        plain(format!(r"({}\.) ?[0-9]", any_of(NUMBERED))),
        plain(acronym.clone()),
        plain(r"[+\-]?(?:[0-9]*(?:[.,:][0-9]+)+|[0-9]+)".to_owned()),
        plain(r"[0-9]{1,2}[\-/][0-9]{1,2}[\-/][0-9]{2,4}".to_owned()),
        plain(r"(?:[0-9]{1,4}[\- ])?[0-9]{1,4}/[0-9]{1,4}".to_owned()),
        rule(
            r"(?:\([0-9]{2,3}\) ?|(?:\+\+?)?(?:[0-9]{2,4}[ \-])?[0-9]{2,4}[ \-])[0-9]{3,4}[ \-]?[0-9]{3,5}".to_owned(),
            Kind::Bracketed,
            0,
            After::Anything,
        ),
        plain(word.clone()),
        plain(dotted.clone()),
        rule(format!(r"{}\.", any_of(ABBREVIATIONS)), Kind::Word, 2, After::Anything),
        plain(format!(r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{acronym}|[A-Za-z0-9]+))+")),
        plain(format!(r"((?:{word}|{dotted}|{a}[A-Za-z0-9\x80.,]*(?:-{a}+)+)\.)[,:;]")),
        plain(format!(r"{part}(?:\\?/{part}){{1,2}}")),
        rule(format!(r"{a}+(?:\.{a}+)*\.{}", any_of(FILE_ENDINGS)), Kind::Word, 1, After::NoAlphanumeric),
        plain(format!("[nA-HJ-XZ]{mark}{letter}{letter}+|{letter}+[aeiouyAEIOUY]{mark}[aeiouA-Z]{letter}*")),
        plain("[A-Z]+(?:[&+][A-Z]+)+".to_owned()),
        plain(r"[A-Z]*\$".to_owned()),
        plain(format!("https?://{sign}+{last}")),
        plain(format!(
            r#"(?:www\.(?:[^\s"<>|.!?(){{}},]+\.)+[A-Za-z]{{2,4}}|(?:{a}+\.)+(?:com|net|org|edu))/{sign}+{last}"#
        )),
        plain(format!(r#"<?[A-Za-z0-9]{sign}*@(?:[^\s"<>|(){{}}.]+\.)*[^\s"<>|(){{}}.]+>?"#)),
        plain("@[A-Za-z_][A-Za-z_0-9]*".to_owned()),
        plain(format!("#{letter}+")),
        rule(r"[<>]?[:;=][\-o*']?[()@{|\[\]\\DPdpO]".to_owned(), Kind::Bracketed, 0, After::NoAlphanumeric),
        rule(
            format!(r"{face}_{face}|\({face}[_.]?{face}\)|\([\^x=~<>']-[\^x=~<>']\)"),
            Kind::Bracketed,
            0,
            After::Anything,
        ),
        plain(r"(?:\\\*)+|&#[0-9]+;".to_owned()),
        rule(
            r"[!?]+|\*+|#+|_+|@+|<<|>>|-{5,}|[\x84\x83]{2}|[\x86\x87]{2}".to_owned(),
            Kind::Straight,
            0,
            After::Anything,
        ),
        rule(r"-{2,4}|\.{3,}|\. \. \.|''|``".to_owned(), Kind::Gap, 0, After::Anything),
    ]
});

/// Signs that become a word of another text.
const INSTEAD: [(char, &str); 11] = [
    ('¼', "1/4"),
    ('½', "1/2"),
    ('¾', "3/4"),
    ('⅓', "1/3"),
    ('⅔', "2/3"),
    ('¢', "cents"),
    ('£', "#"),
    ('¤', "$"),
    ('₠', "$"),
    ('€', "$"),
    ('\u{80}', "$"),
];
const BRACKETS: [(char, &str); 6] =
    [('(', "-lrb-"), (')', "-rrb-"), ('[', "-lsb-"), (']', "-rsb-"), ('{', "-lcb-"), ('}', "-rcb-")];
const ENTITIES: [(&str, &str); 7] = [
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&apos;", "'"),
    ("&nbsp;", " "),
    ("&mdash;", "—"),
];
/// Quotes, as patterns see them and as straight ones.
const QUOTES: [(char, u8, &str); 6] = [
    ('’', SINGLE_CLOSE, "'"),
    ('\u{92}', SINGLE_CLOSE, "'"),
    ('‘', SINGLE_OPEN, "`"),
    ('‛', SINGLE_OPEN, "`"),
    ('“', DOUBLE_OPEN, "``"),
    ('”', DOUBLE_CLOSE, "''"),
];
/// Between letters as `_` is, else nothing.
const HYPHENS: [char; 3] = ['\u{2010}', '\u{2011}', '\u{58a}'];
const DROPPED: &str = "‹›«»–—―…\u{91}\u{93}\u{94}\u{96}\u{97}";
/// Signs that are words of one character.
const SIGNS: [(u32, u32); 38] = [
    (0xa1, 0xa1),
    (0xa5, 0xa9),
    (0xac, 0xac),
    (0xae, 0xb4),
    (0xb6, 0xb9),
    (0xbf, 0xbf),
    (0xd7, 0xd7),
    (0xf7, 0xf7),
    (0x37e, 0x37e),
    (0x387, 0x387),
    (0x589, 0x589),
    (0x5be, 0x5be),
    (0x60c, 0x60c),
    (0x61b, 0x61b),
    (0x61f, 0x61f),
    (0x66a, 0x66a),
    (0x964, 0x965),
    (0x2016, 0x2017),
    (0x201a, 0x201a),
    (0x201e, 0x2023),
    (0x2030, 0x2038),
    (0x203b, 0x203b),
    (0x203e, 0x2042),
    (0x2070, 0x2070),
    (0x2074, 0x207e),
    (0x2080, 0x208e),
    (0x2100, 0x214f),
    (0x2155, 0x215e),
    (0x2190, 0x2bff),
    (0x3001, 0x3002),
    (0x3012, 0x3012),
    (0x30fb, 0x30fb),
    (0xff01, 0xff0f),
    (0xff1a, 0xff20),
    (0xff3b, 0xff40),
    (0xff5b, 0xff65),
    (0xffe0, 0xffe1),
    (0xffe5, 0xffe6),
];
/// Marks that count as letters.
const MARKS: [(u32, u32); 7] =
    [(0x2c2, 0x36f), (0x483, 0x487), (0x591, 0x5c7), (0x610, 0x61a), (0x64b, 0x670), (0x6d6, 0x6ed), (0x900, 0xecd)];
/// Words that are punctuation (pycocoevalcap's list, as far as words come out here).
const PUNCTUATION: [&str; 13] = ["''", "'", "`", "``", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

fn is_within(table: &[(u32, u32)], char: char) -> bool {
    table.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(char)))
}

/// A character as the patterns see it.
fn seen(char: char) -> u8 {
    if let Some((_, byte, _)) = QUOTES.iter().find(|row| row.0 == char) {
        return *byte;
    }
    if INSTEAD.iter().any(|row| row.0 == char) || is_within(&SIGNS, char) {
        return KEPT;
    }
    if DROPPED.contains(char) {
        return b'"';
    }
    match char {
        '\0'..='\x7f' => char as u8,
        char if HYPHENS.contains(&char) => b'_',
        char if u32::from(char) > 0xffff || char.is_whitespace() => b' ',
        char if is_letter(char) || is_within(&MARKS, char) => LETTER,
        char if is_decimal(char) => b'0',
        _ => b' ',
    }
}

/// As Python's `isalpha`: letters, not marks or letter-like numbers.
fn is_letter(char: char) -> bool {
    char.is_alphabetic()
        && !is_decimal(char)
        && !matches!(u32::from(char), 0x2160..=0x2188 | 0x24b6..=0x24e9 | 0x3007 | 0x3021..=0x3029)
}

/// Decimal digits of other scripts: ten in a row from these on.
fn is_decimal(char: char) -> bool {
    const ZEROS: [u32; 37] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
        0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x30,
    ];
    ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&u32::from(char)))
}

/// Words of a caption.
pub(super) fn words(text: &str) -> Vec<String> {
    let text = without_entities(&text.replace('\u{ad}', ""));
    let chars: Vec<char> = text.chars().collect();
    let seen: Vec<u8> = chars.iter().map(|char| seen(*char)).collect();
    let mut words = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if seen[at].is_ascii_whitespace() || seen[at] == 0x0b {
            at += 1;
            continue;
        }
        let (word, length) = next(&chars[at..], &seen[at..]);
        let lower = word.to_lowercase();
        let parts = lower.split_whitespace().filter(|word| !PUNCTUATION.contains(word));
        words.extend(parts.map(str::to_owned));
        at += length;
    }
    words
}

/// Entities are read before all else, whatever their case.
fn without_entities(text: &str) -> String {
    let mut text = text.to_owned();
    for (entity, sign) in ENTITIES {
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find('&') {
            let (before, found) = rest.split_at(at);
            out += before;
            let is_it = found.get(..entity.len()).is_some_and(|start| start.eq_ignore_ascii_case(entity));
            let taken = if is_it { entity.len() } else { 1 };
            out += if is_it { sign } else { "&" };
            rest = &found[taken..];
        }
        text = out + rest;
    }
    text
}

/// The word at the beginning, and how many characters it takes.
fn next(chars: &[char], seen: &[u8]) -> (String, usize) {
    // Most words are letters between spaces, of which no other rule takes more.
    let letters = seen.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let alone = seen.get(letters).is_none_or(|byte| *byte == b' ');
    let text = |length: usize| chars[..length].iter().collect::<String>();
    if letters > 0 && alone {
        let word = text(letters);
        if !SPLIT.iter().any(|row| word.eq_ignore_ascii_case(row.0)) {
            return (word, letters);
        }
    }
    let (mut best, mut taken, mut kind) = (0, 1, None);
    // No word of a caption is as long; a text without an end must not be searched to it from each of its places.
    let near = &seen[..seen.len().min(LONGEST)];
    for rule in RULES.iter() {
        let Some(found) = rule.pattern.captures(near) else { continue };
        let whole = found.get(0).map_or(0, |whole| whole.end());
        if whole + rule.more > best && rule.after.fits(seen.get(whole)) {
            let head = found.get(1).map_or(whole, |head| head.end());
            (best, taken, kind) = (whole + rule.more, head, Some(rule.kind));
        }
    }
    let word = text(taken);
    let first = chars[0];
    let word = match kind {
        Some(Kind::Split) => {
            let lower = word.to_lowercase();
            let length = SPLIT.iter().find(|row| row.0 == lower).map_or(taken, |row| row.1);
            // The rest is read again.
            return (text(length), length);
        }
        None => single(first, seen[0]),
        Some(_) if HYPHENS.contains(&first) => String::new(),
        Some(Kind::Straight) => straight(&word),
        Some(Kind::Gap) => String::new(),
        Some(Kind::Bracketed) => word.replace('(', "-lrb-").replace(')', "-rrb-"),
        Some(Kind::Word) => word,
    };
    (word, taken)
}

/// What no rule takes is one character.
fn single(char: char, seen: u8) -> String {
    let found = INSTEAD.iter().chain(&BRACKETS).find(|row| row.0 == char);
    match found {
        Some((_, text)) => (*text).to_owned(),
        None if [b'"', SINGLE_OPEN, SINGLE_CLOSE, DOUBLE_OPEN, DOUBLE_CLOSE].contains(&seen) => String::new(),
        None => char.to_string(),
    }
}

fn straight(word: &str) -> String {
    let quotes: HashMap<char, &str> = QUOTES.iter().map(|row| (row.0, row.2)).collect();
    word.chars().map(|char| quotes.get(&char).map_or_else(|| char.to_string(), |quote| (*quote).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::words;

    /// Against the tokenizer itself (`tools/reference/penn_goldens.py`).
    #[test]
    fn words_are_the_tokenizers() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/penn.json");
        let cases: Vec<(String, Vec<String>)> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let differ: Vec<String> = cases
            .iter()
            .filter(|(text, expected)| words(text) != *expected)
            .map(|(text, expected)| format!("{text:?}: {:?} in place of {expected:?}", words(text)))
            .collect();
        assert!(differ.is_empty(), "{} of {}:\n{}", differ.len(), cases.len(), differ.join("\n"));
        assert!(cases.len() > 400);
    }
}
