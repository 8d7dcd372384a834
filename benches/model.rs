//! Attention, parallel regions, loading and whole answers: `cargo bench --bench model`.

// The library keeps these to itself; they are measured as they stand in it.
#[path = "../src/ops/mod.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, unused_imports)]
mod ops;
#[path = "../src/platform.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, unused_imports)]
mod platform;
#[path = "../src/sched/mod.rs"]
#[allow(dead_code, missing_docs, unreachable_pub, unused_imports)]
mod sched;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemmule::{Error, GenerateOptions, Model, Picture, Result, Session, SessionOptions};
use gemmule_quant::Pieces;

use self::ops::Compute;
use self::ops::attention::{AttentionBuffer, AttentionShape, Qkv, attend_all};
use self::ops::cached_attention::{CachedAttentionBuffer, CachedHead, Seen, attend_cached};
use self::sched::default_threads;

fn threads() -> impl Iterator<Item = usize> {
    let all = default_threads();
    std::iter::once(1).chain((all > 1).then_some(all))
}

/// Attention of the 3B decoder.
const DECODER: AttentionShape =
    AttentionShape { heads: 8, kv_heads: 4, head_dim: 256, scale: 0.0625, softcap: Some(50.0), pieces: Pieces::Two };

/// Elements are floating-point operations: two products of every query with every key.
fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let tower =
        AttentionShape { heads: 16, kv_heads: 16, head_dim: 72, scale: 0.118, softcap: None, pieces: Pieces::Two };
    for threads in threads() {
        let compute = Compute::new(None, threads).expect("threads");
        for (name, shape) in [("tower", tower), ("decoder", DECODER)] {
            for tokens in [256, 1024, 4096] {
                let values = |heads: usize| vec![0.01f32; tokens * heads * shape.head_dim];
                let (q, k) = (values(shape.heads), values(shape.kv_heads));
                let (mut out, mut buffer) = (q.clone(), AttentionBuffer::default());
                group.throughput(Throughput::Elements((4 * tokens * tokens * shape.heads * shape.head_dim) as u64));
                group.bench_function(BenchmarkId::new(format!("{name} {tokens}"), threads), |b| {
                    let inputs = Qkv { q: &q, k: &k, v: &k };
                    b.iter(|| compute.pool.enter(|| attend_all(&compute, &shape, inputs, &mut buffer, &mut out)));
                });
            }
        }
    }
}

/// A generated token's attention over the cache of 4096 tokens, layer after layer as in a decoder; bytes are those of keys and
/// values, from memory.
fn cached_attention(c: &mut Criterion) {
    const TOKENS: usize = 4096;
    const LAYERS: usize = 26;
    let mut group = c.benchmark_group("cached attention");
    let shape = DECODER;
    let values = TOKENS * shape.head_dim;
    let head = || CachedHead { keys: half_values(values, 1), values: half_values(values, 2) };
    let layers: Vec<Vec<CachedHead>> = (0..LAYERS).map(|_| (0..shape.kv_heads).map(|_| head()).collect()).collect();
    group.throughput(Throughput::Bytes((LAYERS * shape.kv_heads * 4 * values) as u64));
    for threads in threads() {
        let compute = Compute::new(None, threads).expect("threads");
        let q = vec![0.01f32; shape.heads * shape.head_dim];
        let (mut out, mut buffer) = (q.clone(), CachedAttentionBuffer::default());
        group.bench_function(BenchmarkId::from_parameter(threads), |b| {
            compute.pool.enter(|| {
                b.iter(|| {
                    for heads in &layers {
                        attend_cached(&compute, &shape, &q, &[Seen { heads, first: 0 }], &mut buffer, &mut out);
                    }
                });
            });
        });
    }
}

/// Half-precision numbers between 0.5 and 1.
fn half_values(count: usize, seed: u16) -> Vec<u16> {
    (0..count).map(|index| 0x3800 | (index as u16).wrapping_mul(seed) & 0x3ff).collect()
}

/// What a parallel region costs when it has nothing to do.
fn regions(c: &mut Criterion) {
    let mut group = c.benchmark_group("region");
    for threads in threads() {
        let compute = Compute::new(None, threads).expect("threads");
        group.bench_function(BenchmarkId::from_parameter(threads), |b| {
            compute.pool.enter(|| b.iter(|| compute.pool.run(threads * 8, |_, task| _ = black_box(task))));
        });
    }
}

fn answers(c: &mut Criterion) {
    c.bench_function("load the bundled model", |b| b.iter(|| Model::bundled().and_then(|m| m.tokenizer().map(|_| ()))));
    let model = Model::bundled().expect("the bundled model");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/shape.png");
    let picture = Picture::open(&path).expect("the committed picture");
    let mut session = Session::new(&model, &SessionOptions::new()).expect("a session");
    c.bench_function("answer about a picture", |b| {
        b.iter(|| session.generate(std::slice::from_ref(&picture), "describe en", &GenerateOptions::new()));
    });
}

criterion_group! {
    name = model;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = attention, cached_attention, regions, answers
}
criterion_main!(model);
