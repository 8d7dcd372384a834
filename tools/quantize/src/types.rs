//! Names of types, as people spell them.

use gemmule_quant::{FORMATS, Format};

/// All types, by their names in one line: for help texts.
pub fn format_names() -> String {
    FORMATS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}

/// A type by its name: for command lines.
///
/// # Errors
/// When there is none of that name; the message lists all types, and the nearest where one is known.
pub fn parse_format(name: &str) -> Result<Format, String> {
    let plain = name.to_lowercase();
    if let Some(format) = Format::from_name(&plain) {
        return Ok(format);
    }
    // As others spell them: llama.cpp's mixes, bitsandbytes' and torch's names.
    let stem = ["_s", "_m", "_l", "_xl"].iter().find_map(|end| plain.strip_suffix(end)).unwrap_or(&plain);
    let near = match stem {
        stem if Format::from_name(stem).is_some() => stem,
        "q4" | "int4" | "nf4" | "fp4" | "4bit" | "4" | "mxfp4" => "q4_0",
        "iq4" | "iq4_xs" => "iq4_nl",
        "q2_k" | "q3_k" | "iq2_xxs" | "iq3_xxs" | "iq3" | "iq2" | "q2" | "q3" => "q4_k",
        "q5" | "int5" | "5bit" | "5" => "q5_k",
        "q6" | "int6" | "6bit" | "6" => "q6_k",
        "q8" | "int8" | "i8" | "8bit" | "8" | "fp8" | "f8" | "q8_1" | "q8_k" => "q8_0",
        "half" | "float16" | "fp16" | "16" => "f16",
        "bfloat16" => "bf16",
        "float" | "float32" | "fp32" | "32" => "f32",
        _ => "",
    };
    let all = format_names();
    Err(if near.is_empty() {
        format!("choose one of {all}")
    } else {
        format!("the nearest is {near}; choose one of {all}")
    })
}
