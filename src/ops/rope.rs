//! The rotary embedding: heads rotated by their token's position (<https://arxiv.org/abs/2104.09864>).

use super::Compute;

/// Cosine and sine of every pair of a head's values, for tokens at given positions.
#[derive(Debug, Default)]
pub(crate) struct Rotations {
    /// `[tokens][head_dim / 2]`.
    pairs: Vec<(f32, f32)>,
    head_dim: usize,
    base: f32,
    positions: Vec<usize>,
}

impl Rotations {
    /// Those of `positions`: pair `i` turns by `position / base^(2 i / head_dim)`. Nothing is computed where these are held already: a prefix
    /// asks anew in each of its layers.
    pub(crate) fn set(&mut self, base: f32, head_dim: usize, positions: impl Iterator<Item = usize>) {
        let positions: Vec<usize> = positions.collect();
        if (self.base, self.head_dim) == (base, head_dim) && self.positions == positions {
            return;
        }
        (self.base, self.head_dim) = (base, head_dim);
        self.pairs.clear();
        for &position in &positions {
            for pair in 0..head_dim / 2 {
                let inverse_frequency = 1.0 / base.powf((2 * pair) as f32 / head_dim as f32);
                let angle = position as f32 * inverse_frequency;
                self.pairs.push((angle.cos(), angle.sin()));
            }
        }
        self.positions = positions;
    }

    /// Rotates the heads of queries and keys, a row of either for each position.
    pub(crate) fn apply(&self, compute: &Compute, queries: &mut [f32], keys: &mut [f32]) {
        let pairs = self.head_dim / 2;
        let tokens = self.pairs.len() / pairs;
        let rows = queries.chunks_exact_mut(queries.len() / tokens).zip(keys.chunks_exact_mut(keys.len() / tokens));
        compute.pool.each(rows, |row, (queries, keys)| {
            let rotation = &self.pairs[row * pairs..][..pairs];
            for head in queries.chunks_exact_mut(self.head_dim).chain(keys.chunks_exact_mut(self.head_dim)) {
                compute.kernels.rotate(head, rotation);
            }
        });
    }
}
