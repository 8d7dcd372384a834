//! Types for each matrix by what its errors cost: the least divergence of answers that a size allows.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use gemmule_quant::{FORMATS, Format, codes};

use crate::convert::{Plain, Progress, Watcher};
use crate::plan::Item;
use crate::rounding::relative_error;
use crate::sensitivity::{decoded, sample, without_layer};
use crate::statistics::Statistics;
use crate::summary::Allotment;

/// How large a model may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Bits for each weight of the matrices that are quantized.
    Bits(f64),
    /// Bytes of the files.
    Bytes(u64),
}

/// What a model is to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Machine {
    /// Any of these: types that are fast on all.
    #[default]
    Any,
    /// A Raspberry Pi 5, or another ARM processor with dot products of bytes.
    Pi5,
    /// x86-64 with AVX2 and without VNNI, on which products with 8-bit codes take twice as long.
    Avx2,
    /// x86-64 with AVX-512 and VNNI.
    Avx512,
    /// x86-64 with AMX.
    Amx,
}

impl Machine {
    /// Whether some types are slow there.
    fn leaves_out(self) -> bool {
        matches!(self, Self::Any | Self::Avx2)
    }

    /// Whether products with a type are as fast there as with others: `cargo bench --bench kernels -- "panel products"`. Without VNNI those with
    /// codes of 8 bits take twice as long as those of up to 6.
    fn is_fast(self, format: Format) -> bool {
        let is_wide = codes(format).is_some_and(|codes| codes.nearest(f32::MIN) < -32);
        format.info().integer && !(self.leaves_out() && is_wide)
    }
}

/// A type that some matrices may have.
#[derive(Clone, Copy, Debug)]
struct Choice {
    format: Format,
    bytes: u64,
    /// What its errors add to the divergence, in nats for each token.
    cost: f64,
}

/// Matrices that are multiplied with the same inputs, and so have one type.
#[derive(Debug)]
struct Unit {
    /// Their places in the plan.
    items: Vec<usize>,
    /// By size, each larger one with a smaller cost and less to gain for a byte than the one before.
    choices: Vec<Choice>,
    chosen: usize,
}

/// Chooses types of all matrices that statistics are of; the others keep theirs, and count, as do `others`, bytes of the files that are no
/// tensor's.
///
/// # Errors
/// When the statistics do not say how far errors move answers, or the budget is too small.
pub(crate) fn allot(
    items: &mut [Item],
    plain: &Plain<'_>,
    statistics: &Statistics,
    Request { budget, machine }: Request,
    others: u64,
    watcher: &mut Watcher<'_>,
) -> Result<Allotment> {
    let mut units = Vec::new();
    let quantized = || items.iter().filter(|item| item.format.info().integer);
    let all: usize = quantized().map(|item| item.rows * item.columns).sum();
    for members in members(items, statistics) {
        ensure!(!watcher.cancel.is_cancelled(), "interrupted; nothing was changed");
        if let Some(progress) = &mut watcher.progress {
            let total = items.iter().map(|item| bytes_of(item, item.format)).sum();
            progress(Progress { done: 0, total, tensor: &items[members[0]].name });
        }
        units.push(Unit::measure(items, members, plain, statistics, machine)?);
    }
    // Bytes of quantized matrices, and of all beside them.
    let free: Vec<usize> = units.iter().flat_map(|unit| &unit.items).copied().collect();
    let fixed = items.iter().enumerate().filter(|(index, item)| item.format.info().integer && !free.contains(index));
    let used: u64 = units.iter().map(Unit::bytes).chain(fixed.map(|(_, item)| bytes_of(item, item.format))).sum();
    let floats = items.iter().filter(|item| !item.format.info().integer);
    let others = others + floats.map(|item| bytes_of(item, item.format)).sum::<u64>();
    let most = match budget {
        Budget::Bits(bits) => (bits * all as f64 / 8.0).round() as u64,
        Budget::Bytes(bytes) => bytes.saturating_sub(others),
    };
    if used > most {
        match budget {
            Budget::Bits(bits) => {
                let least = (used as f64 * 8.0 / all as f64 * 100.0).ceil() / 100.0;
                bail!("{bits} bits a weight are too few for this model: the least is --bits {least}")
            }
            Budget::Bytes(bytes) => {
                let least = (used + others).div_ceil(1000);
                bail!("{bytes} bytes are too few for this model: the least is --budget {least}kB")
            }
        }
    }
    spend(&mut units, used, most);
    if machine.leaves_out() && units.iter().all(|unit| unit.next().is_none() && unit.chosen > 0) {
        log::warn!(
            "every matrix has the largest type that is fast on any machine: --for pi5, avx512 or amx allows larger ones"
        );
    }
    for unit in &units {
        unit.items.iter().for_each(|index| items[*index].format = unit.choices[unit.chosen].format);
    }
    let divergence = units.iter().map(|unit| unit.choices[unit.chosen].cost).sum();
    Ok(Allotment { table: table(items, &units), divergence })
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) budget: Budget,
    pub(crate) machine: Machine,
}

fn bytes_of(item: &Item, format: Format) -> u64 {
    format.row_bytes(item.columns).map_or(0, |row| (row * item.rows) as u64)
}

/// Matrices that share inputs, in the order of the first of each.
fn members(items: &[Item], statistics: &Statistics) -> Vec<Vec<usize>> {
    let mut found: Vec<((&str, usize), Vec<usize>)> = Vec::new();
    for (index, item) in items.iter().enumerate().filter(|(_, item)| item.format.info().integer) {
        let Some(owner) = statistics.owner(&item.name) else { continue };
        let inputs = (owner, item.columns);
        match found.iter_mut().find(|(other, _)| *other == inputs) {
            Some((_, members)) => members.push(index),
            None => found.push((inputs, vec![index])),
        }
    }
    found.into_iter().map(|(_, members)| members).collect()
}

/// Gives room to whoever gains most for a byte, until `most` bytes are used.
fn spend(units: &mut [Unit], mut used: u64, most: u64) {
    // What does not fit now never will: less and less is left.
    let mut done = vec![false; units.len()];
    loop {
        let gains = units.iter().enumerate().filter(|(index, unit)| !done[*index] && unit.next().is_some());
        let best = gains.max_by(|(_, one), (_, other)| one.gain().total_cmp(&other.gain()));
        let Some((index, unit)) = best else { return };
        let more = unit.next().map_or(0, |next| next.bytes - unit.bytes());
        if used + more > most {
            done[index] = true;
            continue;
        }
        used += more;
        units[index].chosen += 1;
    }
}

impl Unit {
    /// Measures what each type costs.
    fn measure(
        items: &[Item],
        members: Vec<usize>,
        plain: &Plain<'_>,
        statistics: &Statistics,
        machine: Machine,
    ) -> Result<Self> {
        let first = &items[members[0]];
        let moments = statistics.moments(&first.name)?.padded(first.columns);
        let context = || format!("tensor '{}'", first.name);
        let owner = statistics.owner(&first.name).unwrap_or(&first.name);
        let rounding = statistics.rounding(owner, &moments)?;
        let mut samples = Vec::new();
        for index in &members {
            let item = &items[*index];
            let sensitivity = statistics.sensitivity(&item.name)?.with_context(|| {
                format!("the statistics do not say how far errors of {} move answers: gather them with `gemmule calibrate --sensitivity`", item.name)
            })?;
            let mut weights = Vec::new();
            for rows in sample(item.filled().0) {
                weights.extend(plain.rows(item, rows)?);
            }
            samples.push((f64::from(sensitivity), weights));
        }
        if samples.iter().all(|(sensitivity, _)| *sensitivity == 0.0) {
            let name = &first.name;
            log::warn!(
                "no answer that was measured moved by errors of {name}: it gets the smallest type; measure on more rows"
            );
        }
        let mut choices = Vec::new();
        for format in FORMATS.iter().map(|info| info.format).filter(|format| machine.is_fast(*format)) {
            let Some(row_bytes) = format.row_bytes(first.columns) else { continue };
            let mut cost = 0.0;
            for (sensitivity, weights) in &samples {
                let mut bytes = vec![0; weights.len() / first.columns * row_bytes];
                rounding.round(format, weights, &mut bytes).with_context(context)?;
                let rounded = decoded(format, &bytes, first.columns);
                cost += sensitivity * relative_error(&moments, weights, &rounded)?;
            }
            let bytes = members.iter().map(|index| bytes_of(&items[*index], format)).sum();
            choices.push(Choice { format, bytes, cost });
        }
        let choices = worthwhile(choices);
        ensure!(!choices.is_empty(), "no type fits rows of {} values of {}", first.columns, first.name);
        Ok(Self { items: members, choices, chosen: 0 })
    }

    fn bytes(&self) -> u64 {
        self.choices[self.chosen].bytes
    }

    fn next(&self) -> Option<&Choice> {
        self.choices.get(self.chosen + 1)
    }

    /// What the next type saves for each byte.
    fn gain(&self) -> f64 {
        let Some(next) = self.next() else { return 0.0 };
        gain(&self.choices[self.chosen], next)
    }
}

fn gain(small: &Choice, large: &Choice) -> f64 {
    (small.cost - large.cost) / (large.bytes - small.bytes) as f64
}

/// By size, those that cost less than any smaller one, and of these the ones on the lower convex hull.
fn worthwhile(mut choices: Vec<Choice>) -> Vec<Choice> {
    choices.sort_by(|one, other| one.bytes.cmp(&other.bytes).then(one.cost.total_cmp(&other.cost)));
    let mut hull: Vec<Choice> = Vec::new();
    for choice in choices {
        if hull.last().is_some_and(|last| choice.bytes == last.bytes || choice.cost >= last.cost) {
            continue;
        }
        while let [.., before, last] = &hull[..] {
            if gain(before, last) > gain(last, &choice) {
                break;
            }
            hull.pop();
        }
        hull.push(choice);
    }
    hull
}

/// Which matrices have which type, a line for each kind.
fn table(items: &[Item], units: &[Unit]) -> Vec<String> {
    let mut kinds: Vec<(String, BTreeMap<Format, Vec<usize>>)> = Vec::new();
    for unit in units {
        let names: Vec<_> = unit.items.iter().map(|index| without_layer(&items[*index].name)).collect();
        let kind = names.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>().join(", ");
        let place = kinds.iter().position(|(name, _)| *name == kind).unwrap_or_else(|| {
            kinds.push((kind, BTreeMap::new()));
            kinds.len() - 1
        });
        kinds[place].1.entry(unit.choices[unit.chosen].format).or_default().push(names[0].1.unwrap_or(0));
    }
    let line = |(kind, formats): &(String, BTreeMap<Format, Vec<usize>>)| {
        let parts = formats.iter().map(|(format, layers)| match formats.len() {
            1 => format.name().to_owned(),
            _ => format!("{} {}", format.name(), ranges(layers)),
        });
        format!("{kind}: {}", parts.collect::<Vec<_>>().join(" | "))
    };
    kinds.iter().map(line).collect()
}

/// `0-2, 5`.
fn ranges(layers: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = layers;
    while let [first, ..] = rest {
        let run = (1..).zip(rest).take_while(|(step, layer)| **layer + 1 == first + step).count();
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = match run {
            1 => write!(text, "{separator}{first}"),
            _ => write!(text, "{separator}{first}-{}", first + run - 1),
        };
        rest = &rest[run..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(format: Format, bytes: u64, cost: f64) -> Choice {
        Choice { format, bytes, cost }
    }

    #[test]
    fn choices_that_never_pay_are_left_out() {
        let all = vec![
            choice(Format::Q8_0, 85, 0.1),
            choice(Format::Q4_0, 45, 8.0),
            choice(Format::Q4K, 45, 5.0),
            choice(Format::Q5_0, 55, 5.5),
            choice(Format::Q5K, 60, 4.0),
            choice(Format::Q6K, 66, 1.0),
        ];
        let formats: Vec<_> = worthwhile(all).iter().map(|choice| choice.format).collect();
        assert_eq!(formats, [Format::Q4K, Format::Q6K, Format::Q8_0]);
    }

    #[test]
    fn codes_of_eight_bits_are_slow_without_vnni() {
        let fast = |machine: Machine| {
            let formats = FORMATS.iter().filter(|info| machine.is_fast(info.format));
            formats.map(|info| info.name).collect::<Vec<_>>()
        };
        assert_eq!(fast(Machine::Avx2), ["q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"]);
        assert_eq!(fast(Machine::Any), fast(Machine::Avx2));
        assert_eq!(fast(Machine::Amx).len(), 9);
    }

    #[test]
    fn room_goes_where_it_gains_most() {
        let unit = |sensitivity: f64| Unit {
            items: Vec::new(),
            choices: vec![choice(Format::Q4K, 10, 8.0 * sensitivity), choice(Format::Q8_0, 20, sensitivity)],
            chosen: 0,
        };
        for (most, chosen) in [(39, [0, 0, 0]), (40, [0, 1, 0]), (50, [0, 1, 1]), (60, [1, 1, 1]), (999, [1, 1, 1])] {
            let mut units = [unit(0.5), unit(3.0), unit(1.0)];
            spend(&mut units, 30, most);
            assert_eq!(units.each_ref().map(|unit| unit.chosen), chosen, "{most}");
        }
    }

    #[test]
    fn layers_are_told_in_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(ranges(&[3]), "3");
    }
}
