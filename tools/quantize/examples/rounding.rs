//! What each way of rounding costs the outputs of some matrices: `rounding FILE.safetensors TYPE [RIDGE …]`.
//!
//! The file has for each name `NAME.weight` (`[rows][columns]`), `NAME.calibration` and `NAME.test`, second moments of its inputs
//! (`[columns][columns]`). Prints a table of mean squared output errors on the test moments, as shares of plain rounding's.

use anyhow::{Context, Result};
use gemmule_quant::{Format, encode_row};
use gemmule_quantize::rounding::{Moments, Rounding, output_error};
use safetensors::SafeTensors;

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>> {
    let tensor = tensors.tensor(name)?;
    Ok(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, name, ridges @ ..] = &arguments[..] else { anyhow::bail!("rounding FILE.safetensors TYPE [RIDGE …]") };
    let format = Format::from_name(name).context("no such type")?;
    let ridges: Vec<f32> = ridges.iter().map(|ridge| ridge.parse()).collect::<Result<_, _>>()?;
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut names: Vec<String> =
        tensors.names().iter().filter_map(|name| name.strip_suffix(".weight")).map(str::to_owned).collect();
    names.sort();
    println!(
        "| matrix | weighted | {} |",
        ridges.iter().map(|r| format!("compensated, {r}")).collect::<Vec<_>>().join(" | ")
    );
    let mut seconds = 0.0;
    let mut logs = vec![Vec::new(); ridges.len() + 1];
    for name in names {
        let columns = tensors.tensor(&format!("{name}.weight"))?.shape()[1];
        let weights = floats(&tensors, &format!("{name}.weight"))?;
        let (calibration, test) =
            (floats(&tensors, &format!("{name}.calibration"))?, floats(&tensors, &format!("{name}.test"))?);
        let error = |bytes: &[u8]| output_error(format, bytes, &weights, &test);
        let mut plain = vec![0; format.row_bytes(weights.len()).context("whole blocks")?];
        encode_row(format, &weights, &mut plain)?;
        let plain = error(&plain)?;
        let round = |moments: &Moments, ridge: f32| -> Result<Vec<u8>> {
            let mut out = vec![0; format.row_bytes(weights.len()).context("whole blocks")?];
            Rounding::new(moments, ridge)?.round(format, &weights, &mut out)?;
            Ok(out)
        };
        let diagonal = (0..columns).map(|i| calibration[i * columns + i]).collect();
        let mut shares = vec![error(&round(&Moments::Diagonal(diagonal), 0.0)?)? / plain];
        let full = Moments::Blocks(vec![calibration]);
        for ridge in &ridges {
            let start = std::time::Instant::now();
            let bytes = round(&full, *ridge)?;
            seconds += start.elapsed().as_secs_f64();
            shares.push(error(&bytes)? / plain);
        }
        println!("| {name} | {} |", shares.iter().map(|share| format!("{share:.3}")).collect::<Vec<_>>().join(" | "));
        logs.iter_mut().zip(&shares).for_each(|(logs, share)| logs.push(share.ln()));
    }
    let means: Vec<String> =
        logs.iter().map(|logs| format!("{:.3}", (logs.iter().sum::<f64>() / logs.len() as f64).exp())).collect();
    println!("| geometric mean | {} |", means.join(" | "));
    eprintln!("{seconds:.1} s of compensated rounding");
    Ok(())
}
