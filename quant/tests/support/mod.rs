//! What tests of kernels share: random rows and plain arithmetic.
#![allow(dead_code)] // Each test program uses some of it.

use gemmule_quant::isa::Isa;
use gemmule_quant::{Format, Kernels, encode_row, set_scales};

/// A small deterministic generator: tests must not depend on a seed from outside.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    pub(crate) fn value(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 10_000.0 - 1.0
    }
    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }
    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Those of every instruction set this machine has, or of the one that `GEMMULE_ISA` names, after the reference.
pub(crate) fn all_kernels() -> Vec<Kernels> {
    let wanted = std::env::var("GEMMULE_ISA").ok();
    let chosen = |isa: Isa| wanted.as_ref().is_none_or(|name| name == isa.name() || isa == Isa::Portable);
    let kernels: Vec<Kernels> = Kernels::available().filter(|kernels| chosen(kernels.isa())).collect();
    let found = |name: &String| kernels.iter().any(|kernels| kernels.isa().name() == name);
    assert!(wanted.as_ref().is_none_or(found), "GEMMULE_ISA names {wanted:?}, which this machine lacks");
    // What a machine lacks is not tested, without a word: whoever counts on it says so.
    let required = std::env::var("GEMMULE_REQUIRE_ISA").unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        assert!(
            found(&name.to_owned()),
            "GEMMULE_REQUIRE_ISA names {name}, which this machine lacks, or GEMMULE_ISA leaves out"
        );
    }
    kernels
}

/// Random bytes as blocks, with the scales made finite and moderate: extreme codes included.
pub(crate) fn random_row(format: Format, k: usize, random: &mut Random) -> Vec<u8> {
    let info = format.info();
    if !info.integer {
        let mut row = vec![0; format.row_bytes(k).unwrap()];
        encode_row(format, &random.values(k), &mut row).unwrap();
        return row;
    }
    let mut row = random.bytes(format.row_bytes(k).unwrap());
    for block in row.chunks_exact_mut(info.block_bytes) {
        set_scales(format, block, random.value() * 0.1);
    }
    row
}

/// A dot product in double precision.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    pub(crate) value: f64,
    /// The sum of magnitudes, which scales the tolerance.
    pub(crate) magnitude: f64,
}

impl Sum {
    /// Added to something.
    pub(crate) fn plus(self, start: f64) -> Self {
        Self { value: self.value + start, magnitude: self.magnitude + start.abs() }
    }
}

pub(crate) fn exact(w: &[f32], x: &[f32]) -> Sum {
    w.iter().zip(x).fold(Sum::default(), |sum, (w, x)| {
        let product = f64::from(*w) * f64::from(*x);
        Sum { value: sum.value + product, magnitude: sum.magnitude + product.abs() }
    })
}

#[track_caller]
pub(crate) fn assert_close(got: f32, expected: Sum, what: &str) {
    let tolerance = expected.magnitude * 2e-6 + 1e-30;
    let expected = expected.value;
    assert!((f64::from(got) - expected).abs() <= tolerance, "{what}: {got} instead of {expected} ± {tolerance}");
}

/// Lengths of 1 to 3 blocks, and long ones; for floats also every tail.
pub(crate) fn lengths(format: Format) -> Vec<usize> {
    let block = format.info().block_len;
    if block == 1 {
        (1..=70).chain([577, 588, 1152]).collect()
    } else {
        vec![block, 2 * block, 3 * block, 1152 / block * block + block]
    }
}
