//! Every metadata key and tensor name that Gemmule reads or writes.

#![allow(missing_docs)] // each constant is the key it is named after

pub const ARCHITECTURE: &str = "general.architecture";
pub const ALIGNMENT: &str = "general.alignment";
pub const NAME: &str = "general.name";
pub const TYPE: &str = "general.type";
pub const FILE_TYPE: &str = "general.file_type";
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";

/// Architecture of the single file and of the text half of a pair: PaliGemma 1, PaliGemma 2.
pub const PALIGEMMA: &str = "paligemma";
pub const PALIGEMMA2: &str = "paligemma2";
pub const GEMMA: &str = "gemma";
pub const GEMMA2: &str = "gemma2";
/// Architecture of the vision half of a pair.
pub const CLIP: &str = "clip";

/// Behind the text half's architecture and a dot, such as `gemma2.context_length`.
pub mod text {
    pub const CONTEXT_LENGTH: &str = "context_length";
    pub const EMBEDDING_LENGTH: &str = "embedding_length";
    pub const BLOCK_COUNT: &str = "block_count";
    pub const FEED_FORWARD_LENGTH: &str = "feed_forward_length";
    pub const HEAD_COUNT: &str = "attention.head_count";
    pub const HEAD_COUNT_KV: &str = "attention.head_count_kv";
    pub const KEY_LENGTH: &str = "attention.key_length";
    pub const VALUE_LENGTH: &str = "attention.value_length";
    pub const RMS_EPSILON: &str = "attention.layer_norm_rms_epsilon";
    pub const ATTENTION_SOFTCAP: &str = "attn_logit_softcapping";
    pub const FINAL_SOFTCAP: &str = "final_logit_softcapping";
    pub const SLIDING_WINDOW: &str = "attention.sliding_window";
    pub const ATTENTION_SCALE: &str = "attention.scale";
    pub const ROPE_BASE: &str = "rope.freq_base";
    pub const VOCABULARY: &str = "vocab_size";
}

pub mod vision {
    pub const HAS_ENCODER: &str = "clip.has_vision_encoder";
    pub const PROJECTOR_TYPE: &str = "clip.projector_type";
    pub const USE_GELU: &str = "clip.use_gelu";
    pub const IMAGE_SIZE: &str = "clip.vision.image_size";
    pub const PATCH_SIZE: &str = "clip.vision.patch_size";
    pub const EMBEDDING_LENGTH: &str = "clip.vision.embedding_length";
    pub const FEED_FORWARD_LENGTH: &str = "clip.vision.feed_forward_length";
    pub const BLOCK_COUNT: &str = "clip.vision.block_count";
    pub const PROJECTION: &str = "clip.vision.projection_dim";
    pub const HEAD_COUNT: &str = "clip.vision.attention.head_count";
    pub const EPSILON: &str = "clip.vision.attention.layer_norm_epsilon";
    pub const IMAGE_MEAN: &str = "clip.vision.image_mean";
    pub const IMAGE_STD: &str = "clip.vision.image_std";
}

pub mod tokenizer {
    pub const MODEL: &str = "tokenizer.ggml.model";
    pub const PRE: &str = "tokenizer.ggml.pre";
    pub const TOKENS: &str = "tokenizer.ggml.tokens";
    pub const SCORES: &str = "tokenizer.ggml.scores";
    pub const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
    pub const BOS: &str = "tokenizer.ggml.bos_token_id";
    pub const EOS: &str = "tokenizer.ggml.eos_token_id";
    pub const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
    pub const PADDING: &str = "tokenizer.ggml.padding_token_id";
    pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
    pub const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
    pub const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
    pub const HUGGINGFACE: &str = "tokenizer.huggingface.json";
}

/// Keys of our own, for what the others' keys leave open.
pub mod own {
    /// u32: the token that stands for one image position.
    pub const IMAGE_TOKEN: &str = "paligemma.image_token_id";
    /// string: what the file was converted from, where it lies in a cache.
    pub const SOURCE: &str = "paligemma.source";
    /// u32 array: every token that ends an answer.
    pub const EOS_TOKENS: &str = "paligemma.eos_token_ids";
    /// u32: PIL's number of the resampling filter (2 bilinear, 3 bicubic).
    pub const RESAMPLE: &str = "paligemma.resample";
    /// string: whose resampling it is: pillow or torchvision.
    pub const RESIZE_RULE: &str = "paligemma.resize_rule";
    /// f64: factor from 0…255 to the range that mean and deviation refer to.
    pub const RESCALE: &str = "paligemma.rescale_factor";
    /// bool array, one per layer: whether it has the sliding window.
    pub const SLIDING_LAYERS: &str = "paligemma.sliding_layers";
    /// u32: the vision MLP's inner dimension with its zero padding.
    pub const VISION_PADDED_FEED_FORWARD: &str = "paligemma.vision_padded_feed_forward_length";
    /// string, JSON: settings of `generation_config.json` that change answers and are obeyed.
    pub const GENERATION: &str = "paligemma.generation";
    /// string, JSON: those that change what transformers' `generate` answers and are not obeyed, for `inspect`.
    pub const GENERATION_IGNORED: &str = "paligemma.generation_ignored";
    /// string: the types that the converter was told to use, or has chosen, for `inspect`.
    pub const CONVERSION: &str = "paligemma.conversion";
    /// string: the statistics that matrices were rounded by, for `inspect`.
    pub const CALIBRATION: &str = "paligemma.calibration";
}

/// Statistics of a model's inputs, as llama.cpp's `llama-imatrix` writes them, and what Gemmule adds.
pub mod imatrix {
    /// The value of [`TYPE`](super::TYPE).
    pub const IMATRIX: &str = "imatrix";
    /// string array: what was read.
    pub const DATASETS: &str = "imatrix.datasets";
    /// u32: how many parts of it.
    pub const CHUNK_COUNT: &str = "imatrix.chunk_count";
    /// u32: tokens of a part.
    pub const CHUNK_SIZE: &str = "imatrix.chunk_size";
    /// f32: how many times a text token counts as much as an image token.
    pub const TEXT_WEIGHT: &str = "gemmule.calibration.text_weight";
    /// string: what has to be the same for more to be added.
    pub const SETTINGS: &str = "gemmule.calibration.settings";
    /// string array, such as `blk.0.attn_k.weight=blk.0.attn_q.weight`: a matrix whose inputs are those of another.
    pub const SHARED: &str = "gemmule.calibration.shared";

    /// Behind a matrix's name, `[columns][1]`: sums of the squares of its inputs.
    pub const SQUARES: &str = ".in_sum2";
    /// Behind a matrix's name, `[1][1]`: how many rows they are of.
    pub const COUNT: &str = ".counts";
    /// As [`SQUARES`], of text tokens alone and not weighted.
    pub const TEXT_SQUARES: &str = ".text_in_sum2";
    /// As [`COUNT`], of text tokens alone and not weighted.
    pub const TEXT_COUNT: &str = ".text_counts";
    /// Behind a matrix's name, `[3][blocks]`: the columns of each block of inputs whose products are known, the samples that they are of, and the
    /// sum over those samples of what their products off the diagonal come to, squared.
    pub const BLOCKS: &str = ".in_blocks";

    /// Behind a matrix's name, `[1][1]`: the divergence (Kullback-Leibler) of answers, in nats a token, for each unit of the matrix's error: the mean
    /// square of what rounding changes in its outputs, as a share of theirs.
    pub const SENSITIVITY: &str = ".sensitivity";

    /// Behind a matrix's name, `[256][256][tiles]`: sums of the products of a block's inputs, the tiles on and above the diagonal, row by row, with zeros behind
    /// the last column.
    pub fn products(block: usize) -> String {
        format!(".in_products.{block}")
    }
}

pub mod tensor {
    pub const TOKEN_EMBEDDING: &str = "token_embd.weight";
    pub const OUTPUT_NORM: &str = "output_norm.weight";
    pub const PATCH_WEIGHT: &str = "v.patch_embd.weight";
    pub const PATCH_BIAS: &str = "v.patch_embd.bias";
    pub const POSITION: &str = "v.position_embd.weight";
    pub const PROJECTOR: &str = "mm.input_projection";
    pub const POST_NORM: &str = "v.post_ln";

    /// A decoder layer's tensor, such as `blk.3.attn_q.weight`.
    pub fn layer(index: usize, part: &str) -> String {
        format!("blk.{index}.{part}.weight")
    }

    /// The decoder of masks, which `segment` answers name by codes; our own names.
    pub mod mask {
        pub const CODEBOOK: &str = "mask.codebook";
        pub const INPUT: &str = "mask.input";
        pub const OUTPUT: &str = "mask.output";

        /// A residual block's convolution without `.weight` or `.bias`.
        pub fn block(block: usize, part: usize) -> String {
            format!("mask.blk.{block}.{part}")
        }

        /// A transposed convolution without `.weight` or `.bias`.
        pub fn up(index: usize) -> String {
            format!("mask.up.{index}")
        }
    }

    /// A vision layer's part without `.weight` or `.bias`, such as `v.blk.3.ln1`.
    pub fn vision(index: usize, part: &str) -> String {
        format!("v.blk.{index}.{part}")
    }
}
