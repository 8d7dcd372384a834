//! Sizes of the decoder of masks: the VQ-VAE of big_vision's `segmentation.py` (<https://arxiv.org/abs/2301.02229>), which has no others.

/// Codes of a mask.
pub const CODES: usize = 16;
/// Values that a code has.
pub const CODEBOOK: usize = 128;
/// Pixels of a decoded mask's side.
pub const SIDE: usize = 64;
/// Width of a codebook entry.
pub const CODE_LEN: usize = 512;
/// Channels of the residual blocks.
pub const CHANNELS: usize = 128;
/// Channels after each doubling of the side.
pub const UPSAMPLED: [usize; 4] = [128, 64, 32, 16];
/// Residual blocks.
pub const BLOCKS: usize = 2;
/// Sides of the kernels of a residual block's convolutions.
pub const BLOCK_KERNELS: [usize; 3] = [3, 3, 1];
/// Side of the kernels that double a picture's side.
pub const UP_KERNEL: usize = 4;
/// Side of the picture that the codes make.
pub const CODES_SIDE: usize = 4;
