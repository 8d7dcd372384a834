//! The part of the kernel's interface to cameras that is used here (linux/videodev2.h): structures as they are on 64-bit
//! machines, and the calls on them. Structures are plain integers, for all of which zero is a value.

use nix::libc::{c_int, c_long};

/// Major number of these devices.
pub(super) const MAJOR: u64 = 81;

/// Pictures of one plane, taken by the device.
pub(super) const CAPTURE: u32 = 1;
/// Buffers that the driver owns and the program maps.
pub(super) const MAPPED: u32 = 1;
/// `enum v4l2_field`.
pub(super) mod field {
    pub(in super::super) const NONE: u32 = 1;
    const ANY: u32 = 0;
    const INTERLACED: u32 = 4;
    const INTERLACED_TOP_FIRST: u32 = 8;
    const INTERLACED_BOTTOM_FIRST: u32 = 9;
    /// Those that are whole pictures.
    pub(in super::super) const WHOLE: [u32; 5] = [NONE, ANY, INTERLACED, INTERLACED_TOP_FIRST, INTERLACED_BOTTOM_FIRST];
}
/// Says that the fields of `PixelLayout` after `extended` are set (`V4L2_PIX_FMT_PRIV_MAGIC`).
pub(super) const EXTENDED: u32 = 0xfeed_cafe;

/// What a device can do.
pub(super) mod capability {
    pub(in super::super) const CAPTURE: u32 = 1;
    pub(in super::super) const CAPTURE_PLANES: u32 = 0x1000;
    pub(in super::super) const METADATA: u32 = 0x0080_0000;
    pub(in super::super) const STREAMING: u32 = 0x0400_0000;
    pub(in super::super) const OF_THIS_NODE: u32 = 0x8000_0000;
}

/// A buffer's flag: its picture may be damaged.
pub(super) const DAMAGED: u32 = 0x40;

/// `enum v4l2_colorspace`, `v4l2_ycbcr_encoding`, `v4l2_quantization`: those that make a difference.
pub(super) mod colour {
    pub(in super::super) const SPACE_SMPTE240M: u32 = 2;
    pub(in super::super) const SPACE_REC709: u32 = 3;
    pub(in super::super) const SPACE_JPEG: u32 = 7;
    pub(in super::super) const SPACE_BT2020: u32 = 10;
    pub(in super::super) const SPACE_DCI_P3: u32 = 12;
    pub(in super::super) const ENCODING_DEFAULT: u32 = 0;
    pub(in super::super) const ENCODING_601: u32 = 1;
    pub(in super::super) const ENCODING_709: u32 = 2;
    pub(in super::super) const ENCODING_2020: u32 = 6;
    pub(in super::super) const RANGE_DEFAULT: u32 = 0;
    pub(in super::super) const RANGE_FULL: u32 = 1;
    pub(in super::super) const RANGE_LIMITED: u32 = 2;
}

/// `struct v4l2_capability`.
#[repr(C)]
#[derive(Default)]
pub(super) struct Capabilities {
    pub(super) driver: [u8; 16],
    pub(super) card: [u8; 32],
    pub(super) bus: [u8; 32],
    pub(super) version: u32,
    pub(super) of_device: u32,
    pub(super) of_node: u32,
    pub(super) reserved: [u32; 3],
}

/// `struct v4l2_fmtdesc`.
#[repr(C)]
#[derive(Default)]
pub(super) struct FormatDescription {
    pub(super) index: u32,
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) description: [u8; 32],
    pub(super) code: u32,
    pub(super) media_bus_code: u32,
    pub(super) reserved: [u32; 3],
}

/// `struct v4l2_pix_format`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PixelLayout {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) code: u32,
    pub(super) field: u32,
    pub(super) row_step: u32,
    pub(super) frame_len: u32,
    pub(super) colour_space: u32,
    pub(super) extended: u32,
    pub(super) flags: u32,
    pub(super) colour_encoding: u32,
    pub(super) colour_range: u32,
    pub(super) transfer: u32,
}

/// `struct v4l2_format` of a capturing device; its union is aligned as pointers are, and 200 bytes long.
#[repr(C, align(8))]
#[derive(Default)]
pub(super) struct Format {
    pub(super) kind: u32,
    pub(super) padding: u32,
    pub(super) layout: PixelLayout,
    pub(super) rest: [u64; 19],
}

/// `struct v4l2_requestbuffers`.
#[repr(C)]
#[derive(Default)]
pub(super) struct BufferRequest {
    pub(super) count: u32,
    pub(super) kind: u32,
    pub(super) memory: u32,
    pub(super) capabilities: u32,
    pub(super) flags: u8,
    pub(super) reserved: [u8; 3],
}

/// `struct v4l2_buffer`.
#[repr(C)]
#[derive(Default)]
pub(super) struct Buffer {
    pub(super) index: u32,
    pub(super) kind: u32,
    pub(super) used: u32,
    pub(super) flags: u32,
    pub(super) field: u32,
    pub(super) time: [c_long; 2],
    pub(super) time_code: [u32; 4],
    pub(super) sequence: u32,
    pub(super) memory: u32,
    /// Where it lies in the device; a union as long as a pointer.
    pub(super) offset: u32,
    pub(super) rest_of_offset: u32,
    pub(super) len: u32,
    pub(super) reserved: u32,
    pub(super) request: u32,
}

// The kernel's sizes, which are part of the calls' numbers.
const _: () = {
    assert!(size_of::<Capabilities>() == 104 && size_of::<FormatDescription>() == 64 && size_of::<PixelLayout>() == 48);
    assert!(size_of::<Format>() == 208 && size_of::<BufferRequest>() == 20 && size_of::<Buffer>() == 88);
};

nix::ioctl_read!(capabilities, b'V', 0, Capabilities);
nix::ioctl_readwrite!(describe_format, b'V', 2, FormatDescription);
nix::ioctl_readwrite!(get_format, b'V', 4, Format);
nix::ioctl_readwrite!(set_format, b'V', 5, Format);
nix::ioctl_readwrite!(request_buffers, b'V', 8, BufferRequest);
nix::ioctl_readwrite!(query_buffer, b'V', 9, Buffer);
nix::ioctl_readwrite!(queue_buffer, b'V', 15, Buffer);
nix::ioctl_readwrite!(dequeue_buffer, b'V', 17, Buffer);
nix::ioctl_write_ptr!(start, b'V', 18, c_int);
nix::ioctl_write_ptr!(stop, b'V', 19, c_int);
