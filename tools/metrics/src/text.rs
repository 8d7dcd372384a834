//! Measures of short answers.

use std::collections::HashMap;
use std::sync::LazyLock;

/// 1 where the answer is one of the references, without regard to case and outer space (GQA, AI2D), else 0.
pub fn exact_match(answer: &str, references: &[String]) -> f64 {
    let plain = |text: &str| text.trim().to_lowercase();
    f64::from(u8::from(references.iter().any(|reference| plain(reference) == plain(answer))))
}

/// Average normalized Levenshtein similarity to the nearest reference (DocVQA's rule): one minus the edits for each
/// character of the longer text, without regard to case and spacing; one half and less count as 0.
pub fn anls(answer: &str, references: &[String]) -> f64 {
    let plain = |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let answer = plain(answer);
    let similarity = references.iter().map(|reference| {
        let reference = plain(reference);
        let length = answer.chars().count().max(reference.chars().count());
        if length == 0 { 1.0 } else { 1.0 - strsim::levenshtein(&answer, &reference) as f64 / length as f64 }
    });
    let best = similarity.fold(0.0, f64::max);
    if best <= 0.5 { 0.0 } else { best }
}

/// 1 where the answer is a reference without regard to case, or a number within 5 % of it (ChartQA's rule; "12%" is 0.12),
/// else 0. (`relaxed_correctness` of pix2struct, big_vision and lmms-eval; texts are compared without outer space.)
pub fn relaxed_accuracy(answer: &str, references: &[String]) -> f64 {
    let number = |text: &str| -> Option<f64> {
        let text = text.trim();
        let number = |digits: &str| digits.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        // Divided, not multiplied by 0.01, which rounds to another side of the edge.
        if text.ends_with('%') { number(text.trim_end_matches('%')).map(|number| number / 100.0) } else { number(text) }
    };
    let right = |reference: &String| match (number(answer), number(reference)) {
        (Some(answer), Some(reference)) if reference != 0.0 => (answer - reference).abs() / reference.abs() <= 0.05,
        _ => answer.trim().to_lowercase() == reference.trim().to_lowercase(),
    };
    f64::from(u8::from(references.iter().any(right)))
}

/// VQAv2's accuracy: for each annotator left out, a third for each of the others who said the same, at most one; the mean of
/// these. Answers are normalized as the official script does where the annotators do not all say the same.
pub fn vqa_accuracy(answer: &str, references: &[String]) -> f64 {
    let clean = |text: &str| text.replace(['\n', '\t'], " ").trim().to_owned();
    let (mut answer, mut references) = (clean(answer), references.iter().map(|text| clean(text)).collect::<Vec<_>>());
    if references.windows(2).any(|pair| pair[0] != pair[1]) {
        let normal = |text: &str| normalize_words(&strip_punctuation(text));
        answer = normal(&answer);
        references.iter_mut().for_each(|reference| *reference = normal(reference));
    }
    let same = references.iter().filter(|reference| **reference == answer).count();
    let without = |left_out: &String| {
        let others = same - usize::from(*left_out == answer);
        (others as f64 / 3.0).min(1.0)
    };
    references.iter().map(without).sum::<f64>() / references.len().max(1) as f64
}

/// The official script takes each of these out where it stands beside a space, and makes it a space elsewhere.
const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";
/// Periods that it takes out at most: it passes a flag (32) in the place of a count.
const MOST_PERIODS: usize = 32;

fn strip_punctuation(text: &str) -> String {
    let mut out = text.to_owned();
    let chars: Vec<char> = text.chars().collect();
    // A comma between digits makes it take out everything.
    let thousands = chars.windows(3).any(|w| w[0].is_numeric() && w[1] == ',' && w[2].is_numeric());
    for mark in PUNCTUATION.chars() {
        let beside_space = text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        out = out.replace(mark, if beside_space || thousands { "" } else { " " });
    }
    let chars: Vec<char> = out.chars().collect();
    let mut left = MOST_PERIODS;
    let kept = chars.iter().enumerate().filter(|(at, char)| {
        let goes = **char == '.' && left > 0 && !chars.get(at + 1).is_some_and(|next| next.is_numeric());
        left -= usize::from(goes);
        !goes
    });
    kept.map(|(_, char)| *char).collect()
}

fn normalize_words(text: &str) -> String {
    const NUMBERS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    let text = text.to_lowercase();
    let words = text.split_whitespace().filter(|word| !["a", "an", "the"].contains(word));
    let normal = words.map(|word| {
        let word = if word == "none" { "zero" } else { word };
        let number = NUMBERS.iter().position(|number| *number == word);
        number.map_or_else(|| CONTRACTIONS.get(word).unwrap_or(&word.to_owned()).clone(), |number| number.to_string())
    });
    normal.collect::<Vec<_>>().join(" ")
}

/// Contractions that the official script mends when one of their apostrophes is missing.
const CONTRACTED: &str = "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't \
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't \
    not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's \
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're \
    there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's \
    where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all \
    y'all'll y'all'd've you'd you'd've you'll you're you've";

static CONTRACTIONS: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let mut map = HashMap::new();
    for whole in CONTRACTED.split_whitespace() {
        for (at, _) in whole.match_indices('\'') {
            map.insert(format!("{}{}", &whole[..at], &whole[at + 1..]), whole.to_owned());
        }
    }
    // The one entry that goes the other way.
    map.insert("somebody'd".to_owned(), "somebodyd".to_owned());
    map
});
