//! What `generate` does with a model: `generation_config.json`, or where that is absent the same keys of `config.json`.

use std::path::Path;

use anyhow::{Result, ensure};
use gemmule::config::GenerationRules;
use serde_json::{Map, Value, json};

use super::section::{Section, token, whole};
use crate::json;

/// The tokens that begin and end a text, and the rules for those between.
pub(super) struct Generation {
    pub(super) rules: GenerationRules,
    pub(super) ends: Vec<u32>,
    pub(super) bos: i64,
    /// The file that names it.
    pub(super) bos_source: String,
    pub(super) not_obeyed: Option<String>,
}

/// Keys that may stand in `config.json`, too.
pub(super) const KEYS: [&str; 36] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "sep_token_id",
    "sequence_bias",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Keys that change a sampled answer only.
const OF_SAMPLING: [&str; 8] =
    ["temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"];

/// Keys that change no answer of greedy generation.
const HARMLESS: [&str; 30] = [
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "disable_compile",
    "is_assistant",
    "low_memory",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "prompt_lookup_num_tokens",
    "renormalize_logits",
    "return_legacy_cache",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
    "use_model_defaults",
    "max_cache_len",
    "use_mtp",
    "speculation_type",
    "trust_remote_code",
    "seed",
    "top_n_sigma",
    "assistant_ensemble",
    "generation_kwargs",
];

pub(super) fn read(directory: &Path, top: &Section<'_>, text: &Section<'_>, vocabulary: usize) -> Result<Generation> {
    let path = directory.join("generation_config.json");
    let value = match json::read_optional(&path)? {
        Some(value) => value,
        // What config.json says; its top level counts before `text_config`.
        None => {
            let given =
                |key: &&str| top.given(key).or_else(|| text.given(key)).map(|value| ((*key).to_owned(), value.clone()));
            Value::Object(KEYS.iter().filter_map(given).collect::<Map<_, _>>())
        }
    };
    let is_own = path.exists();
    let name = if is_own { path.display().to_string() } else { top.name.clone() };
    let section = Section::new(&value, name)?;
    let ends = read_ends(&section, is_own, top, text, vocabulary)?;
    // `bos_token_id` of generation_config.json has no effect: `generate` gets finished prompts.
    let found = [top, text].into_iter().find_map(|place| place.given("bos_token_id").map(|value| (value, place)));
    let (bos, bos_source) = match found {
        Some((value, place)) => {
            (token(value).ok_or_else(|| place.wrong("bos_token_id", value, "no token"))?, place.name.clone())
        }
        None => (2, section.name.clone()),
    };
    let rules = read_rules(&section, vocabulary, &ends)?;
    rules.check(vocabulary).map_err(|reason| anyhow::anyhow!("{}: {reason}", section.name))?;
    let not_obeyed = read_others(&section)?;
    section.irrelevant(&KEYS);
    section.irrelevant(&OF_SAMPLING);
    section.irrelevant(&HARMLESS);
    section.warn_of_others();
    Ok(Generation { rules, ends, bos, bos_source, not_obeyed })
}

/// Tokens that end an answer. Those of `generation_config.json` count alone, as for `generate`; only where it does not speak of
/// them, those of `config.json` are taken, and that is said.
fn read_ends(
    section: &Section<'_>,
    is_own: bool,
    top: &Section<'_>,
    text: &Section<'_>,
    vocabulary: usize,
) -> Result<Vec<u32>> {
    let key = "eos_token_id";
    let (value, place) = match section.value(key) {
        Some(value) => (value.clone(), section),
        None => {
            let others = [top, text].into_iter().find_map(|place| place.given(key).map(|value| (value.clone(), place)));
            let (value, place) = others.unwrap_or((json!(1), top));
            let source = if is_own { &section.name } else { &top.name };
            log::warn!("{source}: no '{key}': answers end with {value}; transformers' `generate` would not end them");
            (value, place)
        }
    };
    let list = match &value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.clone(),
        value => vec![value.clone()],
    };
    let mut ends = Vec::new();
    for member in &list {
        let id = if member.is_number() { token(member) } else { None };
        let id = id.ok_or_else(|| place.wrong(key, &value, "which has a member that is no token"))?;
        match u32::try_from(id).ok().filter(|id| (*id as usize) < vocabulary) {
            Some(id) => ends.push(id),
            None => log::warn!("{}: '{key}' has {id}, which is no token and ends nothing", place.name),
        }
    }
    if ends.is_empty() {
        log::warn!("{}: '{key}' is {value}: answers go on to the limit of tokens", place.name);
    }
    Ok(ends)
}

/// The penalty that a key sets; none where it is absent, null, or 1, which changes nothing.
fn penalty(section: &Section<'_>, key: &str) -> Result<Option<f32>> {
    let value = section.given(key).map(|value| section.as_float(key, value)).transpose()?;
    ensure!(value.is_none_or(|value| value > 0.0), "{}: '{key}' is not above zero", section.name);
    Ok(value.filter(|value| *value != 1.0))
}

fn count(section: &Section<'_>, key: &str) -> Result<usize> {
    let Some(value) = section.given(key) else { return Ok(0) };
    // Below zero is none, as for `generate`.
    let is_below = value.as_f64().is_some_and(|number| number < 0.0 && number.fract() == 0.0);
    let number = if is_below { Some(0) } else { whole(value) };
    let number = number.map(|number| number as usize);
    number.ok_or_else(|| section.wrong(key, value, "no whole number"))
}

/// The tokens of a list, or a single one. With `vocabulary`, tokens outside it are left out.
fn tokens(section: &Section<'_>, key: &str, value: &Value, vocabulary: Option<usize>) -> Result<Vec<u32>> {
    let list = match value {
        Value::Array(list) => list.clone(),
        value => vec![value.clone()],
    };
    let mut found = Vec::new();
    for member in &list {
        let id = if member.is_number() { token(member) } else { None };
        let id = id.ok_or_else(|| section.wrong(key, value, "no list of tokens"))?;
        match (u32::try_from(id), vocabulary) {
            (Ok(id), None) => found.push(id),
            (Ok(id), Some(vocabulary)) if (id as usize) < vocabulary => found.push(id),
            (_, Some(_)) => {}
            (Err(_), None) => return Err(section.wrong(key, value, "no list of tokens")),
        }
    }
    Ok(found)
}

fn lenient(section: &Section<'_>, key: &str, vocabulary: usize) -> Result<Vec<u32>> {
    section.given(key).map_or(Ok(Vec::new()), |value| tokens(section, key, value, Some(vocabulary)))
}

fn read_rules(section: &Section<'_>, vocabulary: usize, ends: &[u32]) -> Result<GenerationRules> {
    let mut rules = GenerationRules::default();
    rules.repetition_penalty = penalty(section, "repetition_penalty")?;
    rules.encoder_repetition_penalty = penalty(section, "encoder_repetition_penalty")?;
    rules.no_repeat_ngram_size = count(section, "no_repeat_ngram_size")?;
    rules.encoder_no_repeat_ngram_size = count(section, "encoder_no_repeat_ngram_size")?;
    // Without end tokens there is no end to delay.
    if !ends.is_empty() {
        rules.min_length = count(section, "min_length")?;
        rules.min_new_tokens = section.given("min_new_tokens").map(|_| count(section, "min_new_tokens")).transpose()?;
    }
    rules.suppress_tokens = lenient(section, "suppress_tokens", vocabulary)?;
    rules.begin_suppress_tokens = lenient(section, "begin_suppress_tokens", vocabulary)?;
    if let Some(value) = section.given("forced_eos_token_id") {
        rules.forced_eos_token_id = tokens(section, "forced_eos_token_id", value, None)?;
    }
    let key = "bad_words_ids";
    if let Some(value) = section.given(key) {
        let list = value.as_array().ok_or_else(|| section.wrong(key, value, "no list of lists of tokens"))?;
        let sequences = list.iter().map(|sequence| match sequence {
            Value::Array(_) => tokens(section, key, sequence, None),
            _ => Err(section.wrong(key, value, "no list of lists of tokens")),
        });
        rules.bad_words_ids = sequences.collect::<Result<_>>()?;
        rules.bad_words_ids.retain(|sequence| !sequence.is_empty());
    }
    let key = "sequence_bias";
    if let Some(value) = section.given(key) {
        let wrong = || section.wrong(key, value, "no list of [[tokens], bias]");
        for entry in value.as_array().ok_or_else(wrong)? {
            let Some([ids, bias]) = entry.as_array().map(Vec::as_slice) else { return Err(wrong()) };
            let ids = tokens(section, key, ids, None)?;
            let bias = section.as_float(key, bias)?;
            // Of equal ones the last counts.
            rules.sequence_bias.retain(|(other, _)| *other != ids);
            rules.sequence_bias.push((ids, bias));
        }
    }
    let key = "exponential_decay_length_penalty";
    if let Some(value) = section.given(key) {
        let pair =
            value.as_array().and_then(|list| Some((whole(list.first()?)? as usize, list.get(1)?.as_f64()? as f32)));
        rules.exponential_decay_length_penalty =
            Some(pair.ok_or_else(|| section.wrong(key, value, "no [start, factor]"))?);
    }
    Ok(rules)
}

/// What changes answers of `generate` and is not done here; as JSON, for the file.
fn read_others(section: &Section<'_>) -> Result<Option<String>> {
    let mut found = Map::new();
    let samples = section.given("do_sample").is_some_and(|value| *value != false && value.as_f64() != Some(0.0));
    let is = |value: &Value, number: f64| value.as_f64() == Some(number);
    let mut add = |key: &str, is_on: &dyn Fn(&Value) -> bool| {
        if let Some(value) = section.given(key).filter(|value| is_on(value)) {
            found.insert(key.to_owned(), value.clone());
        }
    };
    if samples {
        add("do_sample", &|_| true);
        OF_SAMPLING.iter().for_each(|key| add(key, &|_| true));
    }
    add("num_beams", &|value| !is(value, 1.0));
    if section.given("num_beams").is_some_and(|value| !is(value, 1.0)) {
        for key in ["length_penalty", "early_stopping", "num_beam_groups", "diversity_penalty"] {
            add(key, &|_| true);
        }
    }
    add("guidance_scale", &|value| !is(value, 1.0));
    add("penalty_alpha", &|value| !is(value, 0.0));
    for key in ["constraints", "force_words_ids", "dola_layers", "stop_strings", "token_healing", "watermarking_config"]
    {
        add(key, &|value| *value != false);
    }
    add("max_time", &|_| true);
    add("prefill_chunk_size", &|_| true);
    add("cache_implementation", &|value| *value == "quantized");
    for key in ["max_new_tokens", "max_length"] {
        if let Some(value) = section.given(key) {
            log::warn!("{}: {key} = {value} is not carried: a run's own limit counts (-n)", section.name);
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let keys: Vec<String> = found.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    log::warn!("{}: not obeyed: {} (answers take the likeliest token each time)", section.name, keys.join(", "));
    Ok(Some(Value::Object(found).to_string()))
}
