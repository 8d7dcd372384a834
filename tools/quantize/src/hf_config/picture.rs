//! How pictures become numbers: `processor_config.json`, or `preprocessor_config.json`.

use std::path::Path;

use anyhow::{Result, ensure};
use gemmule::config::{PreprocessConfig, ResizeRule, VisionConfig};
use serde_json::{Map, Value};

use super::section::{Section, whole};
use crate::json;

/// Names of PIL's filters, by its numbers.
const FILTERS: [&str; 6] = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"];
const BICUBIC: u32 = 3;

/// The settings, and the file that holds them. The section that transformers 5 saves counts before the file that earlier ones
/// have saved.
fn find(directory: &Path) -> Result<(Value, String)> {
    let processor = directory.join("processor_config.json");
    let preprocessor = directory.join("preprocessor_config.json");
    if let Some(mut value) = json::read_optional(&processor)? {
        let section = value.as_object_mut().and_then(|map| map.remove("image_processor"));
        if let Some(section) = section.filter(|section| !section.is_null()) {
            if preprocessor.exists() {
                let other = json::read(&preprocessor).unwrap_or(Value::Null);
                let differs = |key: &str| section.get(key) != other.get(key);
                let keys =
                    ["size", "resample", "image_mean", "image_std", "rescale_factor", "do_rescale", "do_normalize"];
                if keys.into_iter().any(differs) {
                    log::warn!(
                        "{} is followed, as transformers 5 does; {} differs",
                        processor.display(),
                        preprocessor.display()
                    );
                }
            }
            return Ok((section, format!("{} (image_processor)", processor.display())));
        }
    }
    if let Some(value) = json::read_optional(&preprocessor)? {
        return Ok((value, preprocessor.display().to_string()));
    }
    log::warn!(
        "{}: neither processor_config.json nor preprocessor_config.json is here: pictures are resized bicubically, mean and \
         deviation are 0.5",
        directory.display()
    );
    Ok((Value::Object(Map::new()), preprocessor.display().to_string()))
}

pub(super) fn read(directory: &Path, vision: &VisionConfig, asked: Option<ResizeRule>) -> Result<PreprocessConfig> {
    let (value, name) = find(directory)?;
    let section = Section::new(&value, name)?;
    ensure!(section.switch("do_resize", true)?, "{}: 'do_resize' is off, which is not supported", section.name);
    check_size(&section, vision)?;
    section.neutral(&["do_center_crop", "do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis"])?;
    let rule = read_rule(&section, asked)?;
    let resample = read_filter(&section)?;
    ensure!(
        rule == ResizeRule::Pillow || resample <= BICUBIC,
        "{}: torchvision has no filter '{}': choose --resize pillow",
        section.name,
        FILTERS[resample as usize]
    );
    if let Some(value) = section.given("image_seq_length") {
        let tokens = vision.tokens() as u64;
        if whole(value) != Some(tokens) {
            return Err(section.wrong("image_seq_length", value, &format!("the vision tower makes {tokens}")));
        }
    }
    if section.given("do_convert_rgb") == Some(&Value::Bool(true)) {
        log::warn!(
            "{}: with 'do_convert_rgb' transformers may put a picture with opacity on white; here opacity is dropped",
            section.name
        );
    }
    let rescales = section.switch("do_rescale", true)?;
    let rescale = match section.value("rescale_factor") {
        _ if !rescales => 1.0,
        None => 1.0 / 255.0,
        Some(value) => {
            let factor = value.as_f64().filter(|factor| factor.is_finite() && *factor != 0.0);
            factor.ok_or_else(|| section.wrong("rescale_factor", value, "no number other than zero"))?
        }
    };
    let normalizes = section.switch("do_normalize", true)?;
    let (mean, deviation) = (channels(&section, "image_mean")?, channels(&section, "image_std")?);
    ensure!(!deviation.contains(&0.0), "{}: 'image_std' has a zero, which divides by zero", section.name);
    section.irrelevant(&[
        "rescale_factor",
        "crop_size",
        "data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "input_data_format",
        "pad_size",
        "processor_class",
        "return_tensors",
        "size_divisor",
        "use_fast",
        "do_convert_rgb",
        "antialias",
        "feature_extractor_type",
        "image_token",
        "auto_map",
        "max_pixels",
        "min_pixels",
    ]);
    section.warn_of_others();
    let (mean, deviation) = if normalizes { (mean, deviation) } else { ([0.0; 3], [1.0; 3]) };
    let preprocess = PreprocessConfig { resample, resize_rule: rule, rescale, mean, deviation };
    preprocess.check().map_err(|reason| anyhow::anyhow!("{}: {reason}", section.name))?;
    Ok(preprocess)
}

fn check_size(section: &Section<'_>, vision: &VisionConfig) -> Result<()> {
    let Some(size) = section.value("size") else { return Ok(()) };
    let side = vision.image_size as u64;
    let wanted = format!("the vision tower takes {{\"height\": {side}, \"width\": {side}}}");
    let fits = match size {
        Value::Array(list) => list.len() == 2 && list.iter().all(|found| whole(found) == Some(side)),
        Value::Object(map) => {
            map.len() == 2 && ["height", "width"].iter().all(|key| map.get(*key).and_then(whole) == Some(side))
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(section.wrong("size", size, &wanted)) }
}

/// A number, or a filter's name.
fn read_filter(section: &Section<'_>) -> Result<u32> {
    let Some(value) = section.given("resample") else { return Ok(BICUBIC) };
    let by_name = |name: &str| FILTERS.iter().position(|filter| name.eq_ignore_ascii_case(filter));
    let number = match value {
        Value::Number(number) => {
            number.as_u64().filter(|number| *number < FILTERS.len() as u64).map(|number| number as usize)
        }
        Value::String(name) => by_name(name),
        _ => None,
    };
    let wanted = format!("no filter: its number from 0 to 5, or its name ({})", FILTERS.join(", "));
    number.map(|number| number as u32).ok_or_else(|| section.wrong("resample", value, &wanted))
}

/// The resize rule: the one asked for, or that of the image processor that the file names.
fn read_rule(section: &Section<'_>, asked: Option<ResizeRule>) -> Result<ResizeRule> {
    let stored = match section.given("image_processor_type") {
        None => ResizeRule::Pillow,
        Some(kind) => match kind.as_str() {
            Some("SiglipImageProcessor" | "SiglipImageProcessorPil" | "SiglipFeatureExtractor") => ResizeRule::Pillow,
            Some("SiglipImageProcessorFast") => ResizeRule::Torchvision,
            _ => return Err(section.wrong("image_processor_type", kind, "only SiglipImageProcessor is supported")),
        },
    };
    Ok(asked.unwrap_or(stored))
}

/// Three numbers, or one for all three.
fn channels(section: &Section<'_>, key: &str) -> Result<[f32; 3]> {
    let Some(value) = section.value(key) else { return Ok([0.5; 3]) };
    match value {
        Value::Array(list) if list.len() == 3 => {
            let numbers: Vec<f32> = list.iter().map(|value| section.as_float(key, value)).collect::<Result<_>>()?;
            Ok([numbers[0], numbers[1], numbers[2]])
        }
        Value::Number(_) => Ok([section.as_float(key, value)?; 3]),
        _ => Err(section.wrong(key, value, "neither three numbers nor one")),
    }
}
