//! Conversion of YUV (brightness and colour apart) to red, green and blue.

/// The standard whose weights make brightness (Y) out of red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Matrix {
    /// ITU-R BT.601: standard definition, and most cameras.
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
    /// ITU-R BT.2020, non-constant luminance.
    Bt2020,
}

impl Matrix {
    /// All matrices with the names that command lines use.
    pub const NAMES: [(&'static str, Self); 3] =
        [("bt601", Self::Bt601), ("bt709", Self::Bt709), ("bt2020", Self::Bt2020)];

    /// The weights of red and blue.
    fn weights(self) -> (f64, f64) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Which numbers stand for black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Range {
    /// Brightness from 16 to 235, colours from 16 to 240.
    Limited,
    /// All from 0 to 255.
    Full,
}

impl Range {
    /// Both ranges with the names that command lines use.
    pub const NAMES: [(&'static str, Self); 2] = [("limited", Self::Limited), ("full", Self::Full)];
}

/// How YUV numbers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colours {
    /// The weights of red, green and blue.
    pub matrix: Matrix,
    /// The numbers that stand for black and white.
    pub range: Range,
}

/// Rows of the highest pictures of standard definition.
const STANDARD_ROWS: u32 = 576;

impl Colours {
    /// What video players assume for a picture of `height` rows that does not say: BT.601 up to 576 rows, BT.709 above, limited range.
    pub fn of_height(height: u32) -> Self {
        let matrix = if height > STANDARD_ROWS { Matrix::Bt709 } else { Matrix::Bt601 };
        Self { matrix, range: Range::Limited }
    }
}

/// Bits behind the binary point of the factors.
const PRECISION: i32 = 16;

/// Factors from YUV to RGB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversion {
    black: i32,
    luma: i32,
    red: i32,
    green: [i32; 2],
    blue: i32,
}

impl Conversion {
    pub(super) fn new(colours: Colours) -> Self {
        let fixed = |factor: f64| (factor * f64::from(1 << PRECISION)).round() as i32;
        let (black, luma, chroma) = match colours.range {
            Range::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0, 1.0, 1.0),
        };
        // V is (R − Y) / (2 · (1 − K)), where K is the weight of red; U is the same with blue.
        let (red, blue) = colours.matrix.weights();
        let (to_red, to_blue) = (2.0 * (1.0 - red) * chroma, 2.0 * (1.0 - blue) * chroma);
        let green = 1.0 - red - blue;
        Self {
            black,
            luma: fixed(luma),
            red: fixed(to_red),
            green: [fixed(to_blue * blue / green), fixed(to_red * red / green)],
            blue: fixed(to_blue),
        }
    }

    pub(super) fn pixel(&self, luma: u8, u: u8, v: u8) -> [u8; 3] {
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        let y = (i32::from(luma) - self.black) * self.luma + (1 << (PRECISION - 1));
        let green = u * self.green[0] + v * self.green[1];
        [y + v * self.red, y - green, y + u * self.blue].map(|sum| (sum >> PRECISION).clamp(0, 255) as u8)
    }
}
