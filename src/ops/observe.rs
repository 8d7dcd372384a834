//! Seeing what a model's matrices are multiplied with.

use std::fmt::Debug;

/// What one or more matrices are about to be multiplied with.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Inputs<'a> {
    /// The names, in the model's file, of the matrices that share these inputs.
    pub tensors: &'a [&'a str],
    /// `[rows][columns]`: a row for each token.
    pub values: &'a [f32],
    /// Inputs of the matrices.
    pub columns: usize,
    /// The place in the sequence of the token that the first row belongs to, the pictures' tokens included; the others follow it. None in the
    /// vision tower and the projector.
    pub position: Option<usize>,
}

/// Sees the inputs of every matrix of a model, the vision tower's first; the decoder of masks is not shown. It is called by a thread that
/// computes, which waits meanwhile.
pub trait Observer: Debug + Send + Sync {
    /// Some matrices are about to be multiplied.
    fn observe(&self, inputs: &Inputs<'_>);
}
