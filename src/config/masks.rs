//! Sizes of the decoder of masks: the VQ-VAE of big_vision's `segmentation.py` (<https://arxiv.org/abs/2301.02229>). Its widths are
//! those of its tensors, so that smaller ones can be trained; everything else is fixed.

/// Codes of a mask.
pub const CODES: usize = 16;
/// Values that a code has.
pub const CODEBOOK: usize = 128;
/// Pixels of a decoded mask's side.
pub const SIDE: usize = 64;
/// Residual blocks.
pub const BLOCKS: usize = 2;
/// Sides of the kernels of a residual block's convolutions.
pub const BLOCK_KERNELS: [usize; 3] = [3, 3, 1];
/// Side of the kernels that double a picture's side.
pub const UP_KERNEL: usize = 4;
/// Side of the picture that the codes make.
pub const CODES_SIDE: usize = 4;

/// How many channels the decoder's parts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widths {
    /// Values of a codebook entry; 512 in big_vision's.
    pub code: usize,
    /// Channels of the residual blocks; 128 in big_vision's.
    pub blocks: usize,
    /// Channels after each doubling of the side; 128, 64, 32, 16 in big_vision's.
    pub upsampled: [usize; 4],
}

/// Most channels that a part may have: eight times big_vision's.
pub const MOST_CHANNELS: usize = 1024;
