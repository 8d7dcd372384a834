//! The messages that the node reads and writes: fields in the order of their `.msg` definitions.

use anyhow::{Context, Result};
use gemmule::answer::Object;
use gemmule::image::{Frame, PixelFormat, Size};

use crate::cdr::{Reader, Writer};

/// A message type as names on the wire have it.
#[derive(Clone, Copy, Debug)]
pub struct MessageType {
    /// Its name in DDS.
    pub name: &'static str,
    /// The hash of its definition (REP 2016).
    pub hash: &'static str,
}

pub const IMAGE: MessageType = MessageType {
    name: "sensor_msgs::msg::dds_::Image_",
    hash: "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
};
pub const STRING: MessageType = MessageType {
    name: "std_msgs::msg::dds_::String_",
    hash: "RIHS01_df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18",
};
pub const DETECTION_2D_ARRAY: MessageType = MessageType {
    name: "vision_msgs::msg::dds_::Detection2DArray_",
    hash: "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
};

/// `std_msgs/Header`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the picture was taken: seconds and nanoseconds.
    pub stamp: (i32, u32),
    /// The coordinate frame's name.
    pub frame_id: String,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { stamp: (reader.i32()?, reader.u32()?), frame_id: reader.string()?.to_owned() })
    }

    fn write(&self, out: &mut Writer) {
        out.i32(self.stamp.0);
        out.u32(self.stamp.1);
        out.string(&self.frame_id);
    }
}

/// `sensor_msgs/Image`, its pixels where they lie.
pub struct Image<'a> {
    pub header: Header,
    pub width: u32,
    pub height: u32,
    encoding: &'a str,
    step: u32,
    data: &'a [u8],
}

impl<'a> Image<'a> {
    /// # Errors
    /// When the message is damaged.
    pub fn read(message: &'a [u8]) -> Result<Self> {
        let reader = &mut Reader::new(message)?;
        let header = Header::read(reader)?;
        let (height, width, encoding) = (reader.u32()?, reader.u32()?, reader.string()?);
        // Whether pixels of several bytes are big-endian; those known here have one byte a channel.
        reader.u8()?;
        let step = reader.u32()?;
        let len = reader.u32()? as usize;
        let data = reader.bytes(len)?;
        Ok(Self { header, width, height, encoding, step, data })
    }

    /// The pixels.
    ///
    /// # Errors
    /// When the encoding is not known or the size does not fit the data.
    pub fn frame(&self) -> Result<Frame<'a>> {
        let format = pixel_format(self.encoding)
            .with_context(|| format!("images in the encoding '{}' are not supported", self.encoding))?;
        Ok(Frame::new(self.data, Size::new(self.width, self.height), self.step as usize, format)?)
    }
}

/// The format that one of `sensor_msgs/image_encodings.hpp` names.
fn pixel_format(encoding: &str) -> Option<PixelFormat> {
    Some(match encoding {
        "rgb8" => PixelFormat::Rgb8,
        "bgr8" | "8UC3" => PixelFormat::Bgr8,
        "rgba8" => PixelFormat::Rgba8,
        "bgra8" | "8UC4" => PixelFormat::Bgra8,
        "mono8" | "8UC1" => PixelFormat::Mono8,
        "uyvy" | "yuv422" => PixelFormat::Uyvy,
        "yuyv" | "yuv422_yuy2" => PixelFormat::Yuyv,
        _ => return None,
    })
}

/// `std_msgs/String`.
pub fn string(text: &str) -> Vec<u8> {
    let mut out = Writer::default();
    out.string(text);
    out.into_bytes()
}

/// `vision_msgs/Detection2DArray` of objects in an image of `size` (width, height); boxes are in pixels, class ids are labels.
pub fn detections(header: &Header, objects: &[Object], size: Size) -> Vec<u8> {
    let out = &mut Writer::default();
    header.write(out);
    out.length(objects.len());
    for object in objects {
        header.write(out);
        out.length(1);
        out.string(&object.label);
        out.f64(object.score.into());
        // No pose in space is known: the origin, not turned, and no covariance.
        for value in [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0].into_iter().chain([0.0; 36]) {
            out.f64(value);
        }
        let [left, top, right, bottom] = object.bounds.pixels(size.width, size.height);
        for value in [(left + right) / 2.0, (top + bottom) / 2.0, 0.0, right - left, bottom - top] {
            out.f64(value);
        }
        out.string("");
    }
    std::mem::take(out).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As rosbags 0.11.9 writes a 2 × 2 image in the frame "cam", taken at 1 s and 2 ns.
    const ROSBAGS_IMAGE: &str = "0001000001000000020000000400000063616d000200000002000000050000007267623800000000\
                                 060000000c000000000102030405060708090a0b";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn images_of_another_writer_are_read() {
        let message = bytes(ROSBAGS_IMAGE);
        let image = Image::read(&message).unwrap();
        assert_eq!(image.header, Header { stamp: (1, 2), frame_id: "cam".to_owned() });
        assert_eq!(image.frame().unwrap().to_picture().rgb(), (0..12).collect::<Vec<u8>>());
        for len in 0..message.len() {
            assert!(Image::read(&message[..len]).and_then(|image| image.frame().map(|_| ())).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn encodings_are_known_or_an_error() {
        let mut message = bytes(ROSBAGS_IMAGE);
        let at = message.windows(4).position(|window| window == b"rgb8").unwrap();
        message[at..at + 4].copy_from_slice(b"16UC");
        let image = Image::read(&message).unwrap();
        assert!(image.frame().unwrap_err().to_string().contains("'16UC' are not supported"));
    }
}
