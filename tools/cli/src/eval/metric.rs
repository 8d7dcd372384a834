//! How answers are compared.

use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Metric {
    /// VQAv2's accuracy over ten annotators, with its normalization.
    Vqa,
    /// The answer equals a right one, apart from case and surrounding spaces (GQA, AI2D).
    Exact,
    /// Average normalized Levenshtein similarity (DocVQA).
    Anls,
    /// Numbers may be off by 5 % (ChartQA).
    Relaxed,
    /// CIDEr-D of captions; 10 is the most.
    Cider,
    /// Objects found by their boxes, and COCO's average precision.
    Boxes,
    /// Objects found by their masks, and COCO's average precision.
    Masks,
}

/// A measure of one answer by the right ones.
pub(super) type TextMeasure = fn(&str, &[String]) -> f64;

impl Metric {
    /// The measure of texts, and its name; none for what is measured over all answers.
    pub(super) fn text_measure(self) -> Option<(&'static str, TextMeasure)> {
        match self {
            Self::Vqa => Some(("VQA accuracy", gemmule_metrics::vqa_accuracy)),
            Self::Exact => Some(("exact match", gemmule_metrics::exact_match)),
            Self::Anls => Some(("ANLS", gemmule_metrics::anls)),
            Self::Relaxed => Some(("relaxed accuracy", gemmule_metrics::relaxed_accuracy)),
            Self::Cider | Self::Boxes | Self::Masks => None,
        }
    }
}
