//! Films as streams of bytes: raw frames, Motion JPEG, YUV4MPEG2.

use std::collections::VecDeque;
use std::io::{BufRead, Read};

use super::{Frame, FrameShape, Matrix, Picture, PixelFormat, Range, Size};
use crate::{Error, Result};

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamFormat {
    /// Frames of one shape, one behind the other, every row with its whole step.
    Raw(FrameShape),
    /// JPEG pictures one behind the other; what lies between them is skipped.
    Mjpeg,
    /// YUV4MPEG2 (4:2:0, 4:2:2, 4:4:4 or grey), which tells its size itself. Where it does not say how its colours are to be read, these
    /// do, or else its height.
    Y4m {
        /// The weights of red, green and blue.
        matrix: Option<Matrix>,
        /// The numbers that stand for black and white.
        range: Option<Range>,
    },
}

impl StreamFormat {
    /// Bytes of each frame, where all have as many.
    pub fn frame_len(&self) -> Option<usize> {
        match self {
            Self::Raw(shape) => shape.whole_len(),
            _ => None,
        }
    }
}

/// Bytes of a raw frame in a stream; none where there can be no such frame, or it is beyond the limits.
pub(super) fn frame_len(shape: &FrameShape) -> Option<usize> {
    let is_short = shape.size.longer() <= LONGEST_SIDE;
    shape.whole_len().filter(|len| is_short && *len <= LARGEST_FRAME)
}

/// Longest side in pixels and most bytes of one frame.
const LONGEST_SIDE: u32 = 1 << 14;
const LARGEST_FRAME: usize = 1 << 28;
/// Longest line of a YUV4MPEG2 header.
const LONGEST_LINE: u64 = 1 << 12;

/// Frames of a stream, in order.
#[derive(Debug)]
pub struct FrameStream<R> {
    reader: R,
    kind: Kind,
    bytes: Vec<u8>,
    frames: u64,
    /// A JPEG picture's first marker was read already.
    begun: bool,
    /// Bytes that were read too far, and come next.
    pending: VecDeque<u8>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Mjpeg,
    Raw {
        shape: FrameShape,
        /// YUV4MPEG2 puts a line before each frame.
        announced: bool,
    },
}

/// A frame as it lies in a stream, or as a camera has sent it.
#[derive(Debug)]
pub struct StreamFrame {
    pub(super) bytes: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) number: u64,
}

impl StreamFrame {
    /// Its number in the stream, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its pixels.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn to_picture(&self) -> Result<Picture> {
        match self.kind {
            Kind::Mjpeg => Picture::from_bytes(&format!("frame {} of the stream", self.number), &self.bytes),
            Kind::Raw { shape, .. } => Frame::of(&self.bytes, shape).map(|frame| frame.to_picture()),
        }
    }
}

impl<R: BufRead> FrameStream<R> {
    /// A stream. Without `format`, its beginning has to show what it is: Motion JPEG or YUV4MPEG2.
    ///
    /// # Errors
    /// When its beginning cannot be read, is of no kind that is known, or has a size that cannot be.
    pub fn new(mut reader: R, format: Option<StreamFormat>) -> Result<Self> {
        let format = match format {
            Some(format) => format,
            // One byte has to do: a pipe may give no more at first.
            None => match reader.fill_buf().map_err(|error| failed(0, error.to_string()))?.first().copied() {
                // A picture, or a multipart boundary or an HTTP header before one.
                Some(0xff | b'-' | b'\r' | b'\n' | b'H') => StreamFormat::Mjpeg,
                Some(b'Y') => StreamFormat::Y4m { matrix: None, range: None },
                None => return Err(failed(0, "the stream is empty".to_owned())),
                // The rest of a picture, with the next one in the buffer.
                Some(_) if holds_picture(&mut reader)? => StreamFormat::Mjpeg,
                Some(_) => {
                    let reason = "the stream is neither Motion JPEG nor YUV4MPEG2; raw frames need a format and a size";
                    return Err(failed(0, reason.to_owned()));
                }
            },
        };
        let mut stream =
            Self { reader, kind: Kind::Mjpeg, bytes: Vec::new(), frames: 0, begun: false, pending: VecDeque::new() };
        stream.kind = match format {
            StreamFormat::Mjpeg => Kind::Mjpeg,
            StreamFormat::Raw(shape) => Kind::Raw { shape, announced: false },
            StreamFormat::Y4m { matrix, range } => stream.read_y4m_header(matrix, range)?,
        };
        if let Kind::Raw { shape, .. } = stream.kind
            && frame_len(&shape).is_none()
        {
            let FrameShape { format, size, layout, .. } = shape;
            return Err(stream.failed(format!(
                "frames of {size} pixels as {format:?}, rows {} bytes apart, cannot be",
                layout.row_step
            )));
        }
        Ok(stream)
    }

    /// The next frame as it lies in the stream, not decoded yet; none at the end of the stream.
    ///
    /// # Errors
    /// When the stream cannot be read or ends within a frame; nothing more can be read then.
    pub fn next_frame(&mut self) -> Result<Option<StreamFrame>> {
        match self.kind {
            Kind::Mjpeg => {
                if !self.read_jpeg()? {
                    return Ok(None);
                }
            }
            Kind::Raw { shape, announced } => {
                if announced {
                    match self.read_line()? {
                        None => return Ok(None),
                        Some(line) if line == "FRAME" || line.starts_with("FRAME ") => {}
                        Some(line) => {
                            let shown: String = line.chars().take(40).collect();
                            return Err(self.failed(format!("it is damaged: {shown:?} stands in the place of FRAME")));
                        }
                    }
                }
                let len = frame_len(&shape).expect("checked when the stream was made");
                self.bytes.clear();
                // Memory grows with what is there, not with what is announced.
                let read = (&mut self.reader).take(len as u64).read_to_end(&mut self.bytes);
                read.map_err(|error| self.failed(error.to_string()))?;
                match self.bytes.len() {
                    0 if !announced => return Ok(None),
                    found if found < len => return Err(self.failed(format!("it ends after {found} of {len} bytes"))),
                    _ => {}
                }
            }
        }
        self.frames += 1;
        let bytes = std::mem::take(&mut self.bytes);
        Ok(Some(StreamFrame { bytes, kind: self.kind, number: self.frames - 1 }))
    }

    /// How many frames were read.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        failed(self.frames, reason.into())
    }

    /// A line without its end; none at the end of the stream.
    fn read_line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| self.failed(error.to_string()))?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).into_owned())),
            Some(_) => Err(self.failed("it is no YUV4MPEG2 stream, or it is damaged: a line does not end")),
        }
    }

    /// Such as `YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg` (mjpegtools' yuv4mpeg(5), and ffmpeg's XCOLORRANGE). What it says of its range
    /// counts before what was asked for.
    fn read_y4m_header(&mut self, matrix: Option<Matrix>, range: Option<Range>) -> Result<Kind> {
        let line = self.read_line()?.unwrap_or_default();
        let mut fields = line.split(' ');
        if fields.next() != Some("YUV4MPEG2") {
            return Err(self.failed("it is no YUV4MPEG2 stream"));
        }
        let (mut width, mut height, mut colours, mut told) = (None, None, "420", None);
        for field in fields {
            let (name, value) = field.split_at_checked(1).unwrap_or_default();
            match (name, value) {
                ("W", _) => width = value.parse().ok(),
                ("H", _) => height = value.parse().ok(),
                ("C", _) => colours = value,
                ("X", "COLORRANGE=FULL") => told = Some(Range::Full),
                ("X", "COLORRANGE=LIMITED") => told = Some(Range::Limited),
                _ => {}
            }
        }
        let (Some(width), Some(height)) = (width, height) else {
            return Err(self.failed(format!("its header has no size: {line}")));
        };
        let range = told.or(range);
        // Where the colour samples lie between the pixels makes no difference here.
        let format = match colours {
            "420" | "420jpeg" | "420mpeg2" | "420paldv" => PixelFormat::I420,
            "422" => PixelFormat::I422,
            "444" => PixelFormat::I444,
            "mono" if range.is_some() => PixelFormat::Mono8,
            "mono" => {
                return Err(self.failed("it is grey without XCOLORRANGE: say whether its --range is full or limited"));
            }
            other => {
                let reason = format!("colours of the kind {other} are not supported, only 420, 422, 444 and mono");
                return Err(self.failed(reason));
            }
        };
        let Some(mut shape) = FrameShape::tight(format, Size::new(width, height)) else {
            return Err(self.failed(format!("frames of {width} × {height} pixels cannot be")));
        };
        shape.colours.matrix = matrix.unwrap_or(shape.colours.matrix);
        shape.colours.range = range.unwrap_or(shape.colours.range);
        Ok(Kind::Raw { shape, announced: true })
    }

    /// A byte; none at the end of the stream.
    fn byte(&mut self) -> Result<Option<u8>> {
        if let Some(byte) = self.pending.pop_front() {
            return Ok(Some(byte));
        }
        let available = self.reader.fill_buf().map_err(|error| failed(self.frames, error.to_string()))?;
        let byte = available.first().copied();
        self.reader.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    /// Keeps a byte of a JPEG picture.
    fn keep(&mut self, byte: u8) -> Result<()> {
        if self.bytes.len() >= LARGEST_FRAME {
            return Err(self.failed(format!("it has more than {LARGEST_FRAME} bytes")));
        }
        self.bytes.push(byte);
        Ok(())
    }

    /// Reads a picture from its first marker (SOI) to its last (EOI); what is before the first, such as the rest of one that began
    /// before the stream, is passed over. False at the end of the stream.
    ///
    /// Previews within application data have markers of their own, which do not count. Where such a segment's length leads to no
    /// marker and another picture begins in it, the length was wrong: the next picture is read from there, and only this one is lost.
    fn read_jpeg(&mut self) -> Result<bool> {
        let mut before = 0;
        while !std::mem::take(&mut self.begun) {
            match self.byte()? {
                None => return Ok(false),
                Some(byte) => (self.begun, before) = (before == 0xff && byte == 0xd8, byte),
            }
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(&[0xff, 0xd8]);
        let mut before = 0;
        // Bytes of application data that are left, in which markers do not count, and where they began.
        let (mut hidden, mut hidden_from) = (0usize, 0);
        let mut in_scan = false;
        loop {
            let Some(byte) = self.byte()? else {
                let is_rewound = hidden > 0 && self.rewind(hidden_from);
                return if is_rewound { Ok(true) } else { Err(self.failed("the stream ends within it")) };
            };
            self.keep(byte)?;
            if hidden > 0 {
                hidden -= 1;
                before = 0;
                if hidden == 0 && !self.at_marker()? && self.rewind(hidden_from) {
                    return Ok(true);
                }
                continue;
            }
            if std::mem::replace(&mut before, byte) != 0xff {
                continue;
            }
            match byte {
                0xd9 => return Ok(true),
                // Another picture: this one was cut, and shows it when it is decoded.
                0xd8 => {
                    self.bytes.truncate(self.bytes.len() - 2);
                    self.begun = true;
                    return Ok(true);
                }
                // Stuffed data bytes, fill bytes and restart markers.
                0x00 | 0x01 | 0xff | 0xd0..=0xd7 => {}
                0xda => in_scan = true,
                // Application data and comments, where a preview may be; in a scan there is none.
                0xe0..=0xef | 0xfe if !in_scan => {
                    let (Some(high), Some(low)) = (self.byte()?, self.byte()?) else {
                        return Err(self.failed("the stream ends within it"));
                    };
                    self.keep(high)?;
                    self.keep(low)?;
                    hidden = usize::from(u16::from_be_bytes([high, low])).saturating_sub(2);
                    (before, hidden_from) = (0, self.bytes.len());
                }
                _ => {}
            }
        }
    }

    /// Whether the next byte begins a marker; at the stream's end there is none.
    fn at_marker(&mut self) -> Result<bool> {
        if let Some(byte) = self.pending.front() {
            return Ok(*byte == 0xff);
        }
        let available = self.reader.fill_buf().map_err(|error| failed(self.frames, error.to_string()))?;
        Ok(available.first() == Some(&0xff))
    }

    /// Goes back to the first picture that begins at `from` or after it in what was read; false where none does. It never goes back
    /// within bytes that are read a second time, so that none is read more than twice.
    fn rewind(&mut self, from: usize) -> bool {
        if !self.pending.is_empty() {
            return false;
        }
        let found = self.bytes[from..].windows(3).position(|window| window == [0xff, 0xd8, 0xff]);
        let Some(at) = found.map(|at| from + at) else { return false };
        self.pending = self.bytes.split_off(at + 2).into();
        self.bytes.truncate(at);
        self.begun = true;
        true
    }
}

/// Whether a JPEG picture begins in what is there to be read.
fn holds_picture(reader: &mut impl BufRead) -> Result<bool> {
    let available = reader.fill_buf().map_err(|error| failed(0, error.to_string()))?;
    Ok(available.windows(3).any(|window| window == [0xff, 0xd8, 0xff]))
}

fn failed(frame: u64, reason: String) -> Error {
    Error::Picture { name: format!("frame {frame} of the stream"), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(bytes: &[u8], format: Option<StreamFormat>) -> Result<Vec<Picture>> {
        let mut stream = FrameStream::new(bytes, format)?;
        let mut found = Vec::new();
        while let Some(frame) = stream.next_frame()? {
            found.push(frame.to_picture()?);
        }
        assert_eq!(stream.frames(), found.len() as u64);
        Ok(found)
    }

    #[test]
    fn raw_frames_follow_each_other() {
        let raw = |format, size, step| StreamFormat::Raw(FrameShape::v4l2(format, size, step).unwrap());
        let format = raw(PixelFormat::Mono8, Size::new(2, 2), 3);
        let found = pictures(&[1, 2, 0, 3, 4, 0, 5, 6, 0, 7, 8, 0], Some(format)).unwrap();
        assert_eq!(found[1].rgb(), [5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8]);
        let error = pictures(&[1, 2, 0, 3, 4, 0, 5], Some(format)).unwrap_err().to_string();
        assert!(error.contains("frame 1") && error.contains("1 of 6 bytes"), "{error}");
        let huge = raw(PixelFormat::Rgba8, Size::new(1 << 14, 1 << 14), 1 << 16);
        assert!(pictures(&[], Some(huge)).unwrap_err().to_string().contains("cannot be"));
        let long = raw(PixelFormat::Mono8, Size::new(2, 2), usize::MAX);
        assert!(pictures(&[], Some(long)).unwrap_err().to_string().contains("cannot be"));
    }

    #[test]
    fn yuv4mpeg2_tells_its_size() {
        let frame = [16, 235, 16, 235, 128, 128];
        let film =
            [b"YUV4MPEG2 W2 H2 F30:1 Ip C420jpeg XYSCSS=420JPEG\nFRAME\n", &frame[..], b"FRAME Ip\n", &frame].concat();
        let found = pictures(&film, None).unwrap();
        assert_eq!((found.len(), found[0].rgb()), (2, &[0, 0, 0, 255, 255, 255, 0, 0, 0, 255, 255, 255][..]));
        for (header, part) in [
            ("YUV4MPEG2 W2\n", "no size"),
            ("YUV4MPEG2 W2 H2 C411\n", "411"),
            ("YUV4MPEG2 W2 H2 C420p10\n", "420p10"),
            ("YUV4MPEG2 W2 H2 Cmono\n", "grey without"),
            ("YUV4MPEG2 W2 H2\nJUNK\n", "\"JUNK\" stands in the place of FRAME"),
            ("YUV4MPEG2 W2 H2\n\nFRAME\n", "stands in the place of FRAME"),
            ("YUV4MPEG2 W999999 H999999\n", "cannot be"),
            ("YUV4MPEG2 W0 H3\n", "cannot be"),
            ("YUV4MPEG2 W2 H2", "does not end"),
            ("Yes\n", "no YUV4MPEG2"),
        ] {
            let error = pictures(header.as_bytes(), None).unwrap_err().to_string();
            assert!(error.contains(part), "{header}: {error}");
        }
        let grey = pictures(b"YUV4MPEG2 W2 H1 Cmono XCOLORRANGE=FULL\nFRAME\n\x00\xff", None).unwrap();
        assert_eq!(grey[0].rgb(), [0, 0, 0, 255, 255, 255]);
        // Odd sizes, and what the stream says of its range before what is asked for.
        let odd = [b"YUV4MPEG2 W3 H1 C422 XCOLORRANGE=FULL\nFRAME\n", &[0, 255, 7, 128, 128, 128, 128][..]].concat();
        let limited = StreamFormat::Y4m { matrix: Some(Matrix::Bt709), range: Some(Range::Limited) };
        for format in [None, Some(limited)] {
            assert_eq!(pictures(&odd, format).unwrap()[0].rgb(), [0, 0, 0, 255, 255, 255, 7, 7, 7]);
        }
        let cut = &film[..film.len() - 1];
        assert!(pictures(cut, None).unwrap_err().to_string().contains("5 of 6 bytes"));
    }

    #[test]
    fn jpegs_are_parted_by_their_markers() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/jpeg");
        let names = ["420.jpg", "progressive.jpg", "restarts.jpg", "444.jpg"];
        let files = names.map(|name| std::fs::read(folder.join(name)).unwrap());
        // What HTTP servers put between pictures.
        let film = files.join(&b"\r\n--boundary\r\nContent-Type: image/jpeg\r\n\r\n"[..]);
        let found = pictures(&film, None).unwrap();
        assert_eq!(found.len(), names.len());
        for (picture, file) in found.iter().zip(&files) {
            assert_eq!(picture.rgb(), Picture::from_bytes("", file).unwrap().rgb());
        }
        let error = pictures(&film[..film.len() - 2], None).unwrap_err().to_string();
        assert!(error.contains("frame 3") && error.contains("ends within"), "{error}");
        // A damaged picture leaves those behind it.
        let mut broken = film.clone();
        let quantization = broken.windows(2).position(|window| window == [0xff, 0xdb]).unwrap();
        broken[quantization + 4] = 0x77;
        let mut stream = FrameStream::new(&broken[..], None).unwrap();
        assert!(stream.next_frame().unwrap().unwrap().to_picture().is_err());
        let second = stream.next_frame().unwrap().unwrap();
        assert_eq!((second.number(), second.to_picture().unwrap().rgb()), (1, found[1].rgb()));
        // So does one that is cut, and a boundary may come first.
        let cut = [&b"--boundary\r\n"[..], &files[0][..files[0].len() - 300], &files[1]].concat();
        let mut stream = FrameStream::new(&cut[..], None).unwrap();
        let first = stream.next_frame().unwrap().unwrap();
        assert!(first.to_picture().is_err() || first.number() == 0);
        let second = stream.next_frame().unwrap().unwrap();
        assert_eq!((second.number(), second.to_picture().unwrap().rgb()), (1, found[1].rgb()));
        // An HTTP answer's header, or the rest of a picture, may come first.
        let header = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n--b\r\n\r\n";
        for start in [&header[..], &files[0][files[0].len() - 200..]] {
            let found = pictures(&[start, &files[1]].concat(), None).unwrap();
            assert_eq!(found[0].rgb(), pictures(&files[1], None).unwrap()[0].rgb());
        }
        // Whatever a segment's length says, the next picture is found.
        let application = files[0].windows(2).position(|window| window == [0xff, 0xe0]).unwrap();
        for length in [0u16, 1, 2, 5, 17, 400, 5000, u16::MAX] {
            let mut broken = files[0].clone();
            broken[application + 2..application + 4].copy_from_slice(&length.to_be_bytes());
            let film = [broken, files[1].clone(), files[2].clone()].concat();
            let mut stream = FrameStream::new(&film[..], None).unwrap();
            let mut seen = Vec::new();
            while let Ok(Some(frame)) = stream.next_frame() {
                seen.extend(frame.to_picture().map(|picture| picture.rgb().to_vec()));
            }
            for file in &files[1..3] {
                let whole = Picture::from_bytes("", file).unwrap();
                assert!(seen.iter().any(|rgb| *rgb == whole.rgb()), "length {length}");
            }
        }
        assert!(pictures(b"", None).unwrap_err().to_string().contains("empty"));
        assert!(pictures(b"RIFF", None).unwrap_err().to_string().contains("neither"));
    }
}
