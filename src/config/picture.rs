//! How pictures become numbers.

/// From RGB bytes to the tower's input.
#[derive(Clone, Debug, PartialEq)]
pub struct PreprocessConfig {
    /// PIL's number of the resampling filter.
    pub resample: u32,
    /// Whose resampling it is.
    pub resize_rule: ResizeRule,
    /// Factor on bytes.
    pub rescale: f64,
    /// Subtracted per channel.
    pub mean: [f32; 3],
    /// Divided by per channel.
    pub deviation: [f32; 3],
}

impl PreprocessConfig {
    /// A level of a channel as the tower takes it, rounded where `transformers` rounds: with Pillow after the factor, with torchvision
    /// once mean and deviation are multiplied by its inverse.
    pub(crate) fn normalized(&self, level: u8, channel: usize) -> f32 {
        let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
        match self.resize_rule {
            ResizeRule::Pillow => ((f64::from(level) * self.rescale) as f32 - mean) / deviation,
            ResizeRule::Torchvision => {
                let inverse = (1.0 / self.rescale) as f32;
                (f32::from(level) - mean * inverse) / (deviation * inverse)
            }
        }
    }

    /// Whether every level becomes a number.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> std::result::Result<(), String> {
        let mut levels = (0..3).flat_map(|channel| (0..=u8::MAX).map(move |level| self.normalized(level, channel)));
        if levels.all(f32::is_finite) {
            return Ok(());
        }
        let Self { rescale, mean, deviation, .. } = self;
        Err(format!(
            "a factor of {rescale:e}, means of {mean:?} and deviations of {deviation:?} make no numbers of pixels"
        ))
    }
}

/// Whose resampling a model's pictures go through. `transformers` takes torchvision where that is installed, and Pillow
/// otherwise; the two differ by a few levels (docs/quantization.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResizeRule {
    /// Pillow 13.
    #[default]
    Pillow,
    /// torchvision on unsigned bytes, antialiased.
    Torchvision,
}

impl ResizeRule {
    /// All rules with their names in files and on command lines.
    pub const NAMES: [(&'static str, Self); 2] = [("pillow", Self::Pillow), ("torchvision", Self::Torchvision)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// A rule by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|row| row.0 == name).map(|row| row.1)
    }
}
