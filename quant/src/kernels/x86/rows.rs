//! Row dots: blocks are unpacked in registers as they lie and multiplied with one to four rows of activations,
//! several weight rows at once.
//!
//! A product of bytes takes an unsigned and a signed operand. Codes of up to six bits enter as stored, and what their offset
//! adds is taken off at the end (Σ scale · offset · Σ activations). Codes of eight bits enter as magnitudes, with their sign
//! moved to the activations. Q6_K has a file of its own.

/// Defines `dot_integer` for one instruction set, given `dot_rows`.
macro_rules! define_streams {
    ($features:literal, $blocks:ident) => {
        /// Rows of weights times `TOKENS` rows of activations, `STREAMS` rows at once: one from each of as many parts that the
        /// rows are divided into. Memory gives more to several streams that lie far apart than to one. `out` has the results of a
        /// row of activations `stride` after those of the one before.
        #[target_feature(enable = $features)]
        fn dot_streams<B: $blocks, const STREAMS: usize, const TOKENS: usize>(
            weights: crate::MatrixView<'_>,
            rows: std::ops::Range<usize>,
            x: [QuantizedRow<'_>; TOKENS],
            out: &mut [f32],
            stride: usize,
        ) {
            let (count, part) = (rows.len(), rows.len() / STREAMS);
            let mut put = |row: usize, results: [f32; TOKENS]| {
                for (t, result) in results.into_iter().enumerate() {
                    out[t * stride + row] = result;
                }
            };
            for row in 0..part {
                let streams = std::array::from_fn(|stream| weights.row(rows.start + stream * part + row));
                for (stream, results) in dot_rows::<B, STREAMS, TOKENS>(streams, x).into_iter().enumerate() {
                    put(stream * part + row, results);
                }
            }
            for row in part * STREAMS..count {
                let [results] = dot_rows::<B, 1, TOKENS>([weights.row(rows.start + row)], x);
                put(row, results);
            }
        }

        /// As [`Kernels::dot_integer`](crate::Kernels::dot_integer), of one format. Where activations have more than one group of
        /// rows, all groups are multiplied with so many rows of weights as stay in the first-level cache.
        #[target_feature(enable = $features)]
        fn dot_integer_of<B: $blocks>(
            weights: crate::MatrixView<'_>,
            rows: std::ops::Range<usize>,
            x: &[QuantizedRow<'_>],
            out: &mut [f32],
        ) {
            let stride = rows.len();
            let together = $crate::kernels::x86::registers::rows_together(&weights, x.len(), stride);
            for first in rows.clone().step_by(together.max(1)) {
                let part = first..rows.end.min(first + together);
                for (group, x) in x.chunks(4).enumerate() {
                    let out = &mut out[group * 4 * stride + first - rows.start..];
                    match *x {
                        [a] => dot_streams::<B, 4, 1>(weights, part.clone(), [a], out, stride),
                        [a, b] => dot_streams::<B, 2, 2>(weights, part.clone(), [a, b], out, stride),
                        [a, b, c] => dot_streams::<B, 1, 3>(weights, part.clone(), [a, b, c], out, stride),
                        [a, b, c, d] => dot_streams::<B, 1, 4>(weights, part.clone(), [a, b, c, d], out, stride),
                        _ => unreachable!("chunks of one to four"),
                    }
                }
            }
        }
    };
}
pub(super) use define_streams;

/// Defines `dot_float` and `add_scaled` for one instruction set, given `dot_rows` and `add_rows`, which take how many bytes
/// ahead rows are prefetched.
macro_rules! define_float_rows {
    ($features:literal, $element:ident) => {
        /// As [`Kernels::dot_float`](crate::Kernels::dot_float), with four rows at once that lie far apart, as integer row dots
        /// have them.
        #[target_feature(enable = $features)]
        fn dot_float_of<E: $element>(rows: crate::StridedRows<'_>, x: &[f32], out: &mut [f32]) {
            const STREAMS: usize = 4;
            let part = out.len() / STREAMS;
            let row_bytes = x.len() * E::BYTES;
            let ahead = rows.stride().wrapping_mul($crate::kernels::x86::registers::AHEAD.div_ceil(row_bytes.max(1)));
            for row in 0..part {
                let mut streams = [&[][..]; STREAMS];
                for stream in 0..STREAMS {
                    streams[stream] = rows.row(stream * part + row);
                }
                let results = dot_rows::<E, STREAMS>(streams, ahead, x);
                for stream in 0..STREAMS {
                    out[stream * part + row] = results[stream];
                }
            }
            for (row, out) in out.iter_mut().enumerate().skip(part * STREAMS) {
                [*out] = dot_rows::<E, 1>([rows.row(row)], ahead, x);
            }
        }

        /// As [`Kernels::add_scaled`](crate::Kernels::add_scaled).
        #[target_feature(enable = $features)]
        fn add_scaled_of<E: $element>(factors: &[f32], rows: crate::StridedRows<'_>, out: &mut [f32]) {
            const STREAMS: usize = 4;
            const TOGETHER: usize = 2 * STREAMS;
            let part = factors.len() / TOGETHER * 2;
            let ahead = rows.stride().wrapping_mul(TOGETHER);
            for first in (0..part).step_by(2) {
                // Two rows from each of four parts.
                let at = |index: usize| index / 2 * part + first + index % 2;
                let (mut group, mut group_factors) = ([&[][..]; TOGETHER], [0.0; TOGETHER]);
                for index in 0..TOGETHER {
                    (group[index], group_factors[index]) = (rows.row(at(index)), factors[at(index)]);
                }
                add_rows::<E, TOGETHER>(group_factors, group, ahead, out);
            }
            for row in part * STREAMS..factors.len() {
                add_rows::<E, 1>([factors[row]], [rows.row(row)], ahead, out);
            }
        }
    };
}
pub(super) use define_float_rows;

/// Defines `dot_integer` for one instruction set: `$features`; `$products`, which multiplies 32 unsigned with 32 signed
/// bytes and adds neighbouring fours; and `$two_products`, the sum of two such for codes of four bits.
macro_rules! define_row_dots {
    ($features:literal, $products:path, $two_products:path) => {
        use std::arch::x86_64::*;

        use $crate::kernels::x86::blocks::Blocks;
        use $crate::kernels::x86::registers::{AHEAD, horizontal_sum, keep_in_memory, prefetch};
        use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, SUM_BLOCK};
        use crate::formats::k_quants::Q6K;
        use crate::formats::{Block, MAX_GROUPS};

        /// Products of 32 codes with 32 activations, in eight partial sums.
        ///
        /// # Safety
        /// `block` and `part` as [`Blocks::stored32`] asks.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn block_products<B: Blocks>(block: *const u8, part: usize, x: __m256i) -> __m256 {
            // SAFETY: the caller's promise.
            let sums = unsafe {
                if B::BITS < 8 {
                    $products(B::stored32(block, part), x)
                } else {
                    let codes = B::signed32(block, part);
                    $products(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
                }
            };
            _mm256_cvtepi32_ps(sums)
        }

        /// Sixteen bytes, and the sixteen that begin `apart` bytes after them.
        ///
        /// # Safety
        /// Both are readable.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn two_halves(bytes: *const i8, apart: usize) -> __m256i {
            // SAFETY: the caller's promise.
            unsafe { _mm256_loadu2_m128i(bytes.add(apart).cast(), bytes.cast()) }
        }

        /// Value `part` of both halves of `values`, four times each; `part < 4`.
        #[inline]
        #[target_feature(enable = $features)]
        fn fourfold(values: __m256, part: usize) -> __m256 {
            match part {
                0 => _mm256_permute_ps::<0x00>(values),
                1 => _mm256_permute_ps::<0x55>(values),
                2 => _mm256_permute_ps::<0xaa>(values),
                _ => _mm256_permute_ps::<0xff>(values),
            }
        }

        /// The half-precision numbers at `offset` of eight blocks that follow each other.
        ///
        /// # Safety
        /// Eight blocks are readable.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn halves<B: Blocks>(block: *const u8, offset: usize) -> __m256 {
            let mut bits = [0i16; 8];
            for (index, bits) in bits.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *bits = unsafe { block.add(index * B::BYTES + offset).cast::<i16>().read_unaligned() };
            }
            let [a, b, c, d, e, f, g, h] = bits;
            _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h))
        }

        /// What weight rows times rows of activations have come to.
        struct Sums<const ROWS: usize, const TOKENS: usize> {
            /// Blocks of 32 add to the first only.
            products: [[[__m256; 2]; TOKENS]; ROWS],
            /// Σ scale · Σ activations, or Σ bias · Σ activations: eight blocks at once, and what is left over.
            corrections: [[__m256; TOKENS]; ROWS],
            rest_corrections: [[f32; TOKENS]; ROWS],
        }

        /// `ROWS` weight rows, each times `TOKENS` rows of activations. A result does not depend on `ROWS` or `TOKENS`.
        #[target_feature(enable = $features)]
        fn dot_rows<B: Blocks, const ROWS: usize, const TOKENS: usize>(
            rows: [&[u8]; ROWS],
            x: [QuantizedRow<'_>; TOKENS],
        ) -> [[f32; TOKENS]; ROWS] {
            if B::GROUP == SUM_BLOCK {
                assert!(B::BYTES == Q6K::BYTES, "of unpacked formats Q6_K alone has groups of sixteen");
                return $crate::kernels::x86::rows_q6_k::dot_rows(rows, x);
            }
            let blocks = rows[0].len() / B::BYTES;
            assert!(rows.iter().all(|row| row.len() == blocks * B::BYTES));
            for x in &x {
                let k = blocks * B::LEN;
                assert!(x.codes.len() == k && x.scales.len() * ACTIVATION_BLOCK == k);
                assert!(x.sums.len() * ACTIVATION_BLOCK == k);
            }
            let rows = rows.map(<[u8]>::as_ptr);
            let mut sums = Sums {
                products: [[[_mm256_setzero_ps(); 2]; TOKENS]; ROWS],
                corrections: [[_mm256_setzero_ps(); TOKENS]; ROWS],
                rest_corrections: [[0.0; TOKENS]; ROWS],
            };
            let eights = if B::HALF_SCALES { blocks / 8 * 8 } else { 0 };
            // SAFETY: every block that is added is one of the rows', and activations have `LEN / 32` blocks for each weight block
            // (asserted above).
            unsafe {
                for index in (0..eights).step_by(8) {
                    add_eight_blocks::<B, ROWS, TOKENS>(&mut sums, rows, &x, index);
                }
                for index in eights..blocks {
                    if B::LEN == 32 {
                        add_block::<B, ROWS, TOKENS>(&mut sums, rows, &x, index);
                    } else {
                        add_large_block::<B, ROWS, TOKENS>(&mut sums, rows, &x, index);
                    }
                }
            }
            let mut out = [[0.0; TOKENS]; ROWS];
            for r in 0..ROWS {
                for t in 0..TOKENS {
                    let [first, second] = sums.products[r][t];
                    out[r][t] = horizontal_sum(_mm256_add_ps(first, second));
                    if B::BITS <= 5 {
                        let correction = horizontal_sum(sums.corrections[r][t]) + sums.rest_corrections[r][t];
                        out[r][t] += if B::BIASED { correction } else { -f32::from(B::OFFSET) * correction };
                    }
                }
            }
            out
        }

        /// Adds eight blocks of 32 from `index` on, whose scales are read together.
        ///
        /// # Safety
        /// There are so many of each row of weights and of activations. (A prefetch reads nothing and may point anywhere.)
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn add_eight_blocks<B: Blocks, const ROWS: usize, const TOKENS: usize>(
            sums: &mut Sums<ROWS, TOKENS>,
            rows: [*const u8; ROWS],
            x: &[QuantizedRow<'_>; TOKENS],
            index: usize,
        ) {
            let mut factors = [[[0.0f32; 8]; TOKENS]; ROWS];
            // SAFETY: the caller's promise.
            unsafe {
                for r in 0..ROWS {
                    let first = rows[r].add(index * B::BYTES);
                    prefetch(first, 8 * B::BYTES, AHEAD);
                    let scales = halves::<B>(first, 0);
                    for t in 0..TOKENS {
                        let activations = _mm256_loadu_ps(x[t].scales.as_ptr().add(index));
                        _mm256_storeu_ps(factors[r][t].as_mut_ptr(), _mm256_mul_ps(scales, activations));
                        if B::BITS <= 5 {
                            let by = if B::BIASED { halves::<B>(first, 2) } else { scales };
                            let activations = _mm256_loadu_ps(x[t].sums.as_ptr().add(index));
                            sums.corrections[r][t] = _mm256_fmadd_ps(by, activations, sums.corrections[r][t]);
                        }
                    }
                }
                if let Some(nibbles) = B::NIBBLES {
                    let mask = _mm256_set1_epi8(15);
                    // Blocks `part` and `part + 4` together, in one half of a register each.
                    for part in 0..4 {
                        for t in 0..TOKENS {
                            let codes = x[t].codes.as_ptr().add((index + part) * 32);
                            let (low, high) = (two_halves(codes, 4 * 32), two_halves(codes.add(16), 4 * 32));
                            for r in 0..ROWS {
                                let block = rows[r].add((index + part) * B::BYTES + nibbles);
                                let packed = two_halves(block.cast(), 4 * B::BYTES);
                                let low_codes = _mm256_and_si256(packed, mask);
                                let high_codes = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask);
                                let products = $two_products(low_codes, low, high_codes, high);
                                let products = _mm256_cvtepi32_ps(products);
                                let factor = fourfold(_mm256_loadu_ps(factors[r][t].as_ptr()), part);
                                let sum = &mut sums.products[r][t][0];
                                *sum = _mm256_fmadd_ps(products, factor, *sum);
                            }
                        }
                    }
                    return;
                }
                for part in 0..8 {
                    for t in 0..TOKENS {
                        let codes = _mm256_loadu_si256(x[t].codes.as_ptr().add((index + part) * 32).cast());
                        for r in 0..ROWS {
                            let products = block_products::<B>(rows[r].add((index + part) * B::BYTES), 0, codes);
                            let factor = _mm256_broadcast_ss(&factors[r][t][part]);
                            let sum = &mut sums.products[r][t][0];
                            *sum = _mm256_fmadd_ps(products, factor, *sum);
                        }
                    }
                }
            }
        }

        /// Adds a block of 32.
        ///
        /// # Safety
        /// Each row of weights and of activations has it.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn add_block<B: Blocks, const ROWS: usize, const TOKENS: usize>(
            sums: &mut Sums<ROWS, TOKENS>,
            rows: [*const u8; ROWS],
            x: &[QuantizedRow<'_>; TOKENS],
            index: usize,
        ) {
            let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
            // SAFETY: the caller's promise.
            unsafe {
                for r in 0..ROWS {
                    let block = rows[r].add(index * B::BYTES);
                    B::read_scales(block, &mut scales, &mut biases);
                    for t in 0..TOKENS {
                        let codes = _mm256_loadu_si256(x[t].codes.as_ptr().add(index * 32).cast());
                        let factor = _mm256_set1_ps(scales[0] * *x[t].scales.get_unchecked(index));
                        let products = block_products::<B>(block, 0, codes);
                        sums.products[r][t][0] = _mm256_fmadd_ps(products, factor, sums.products[r][t][0]);
                        if B::BITS <= 5 {
                            let by = if B::BIASED { biases[0] } else { scales[0] };
                            sums.rest_corrections[r][t] += by * *x[t].sums.get_unchecked(index);
                        }
                    }
                }
            }
        }

        /// Adds a block of 256, eight groups of 32.
        ///
        /// # Safety
        /// Each row of weights has it, and each row of activations its eight. (A prefetch reads nothing and may point anywhere.)
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn add_large_block<B: Blocks, const ROWS: usize, const TOKENS: usize>(
            sums: &mut Sums<ROWS, TOKENS>,
            rows: [*const u8; ROWS],
            x: &[QuantizedRow<'_>; TOKENS],
            index: usize,
        ) {
            let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
            let mut factors = [[[0.0f32; 8]; TOKENS]; ROWS];
            // SAFETY: the caller's promise.
            unsafe {
                for r in 0..ROWS {
                    let block = rows[r].add(index * B::BYTES);
                    prefetch(block, B::BYTES, AHEAD);
                    B::read_scales(block, &mut scales, &mut biases);
                    let (scales, biases) = (_mm256_loadu_ps(scales.as_ptr()), _mm256_loadu_ps(biases.as_ptr()));
                    for t in 0..TOKENS {
                        let activations = _mm256_loadu_ps(x[t].scales.as_ptr().add(index * 8));
                        _mm256_storeu_ps(factors[r][t].as_mut_ptr(), _mm256_mul_ps(scales, activations));
                        let activations = _mm256_loadu_ps(x[t].sums.as_ptr().add(index * 8));
                        let by = if B::BIASED { biases } else { scales };
                        sums.corrections[r][t] = _mm256_fmadd_ps(by, activations, sums.corrections[r][t]);
                    }
                }
                keep_in_memory(&mut factors);
                for r in 0..ROWS {
                    let block = rows[r].add(index * B::BYTES);
                    for part in 0..8 {
                        for t in 0..TOKENS {
                            let codes = x[t].codes.as_ptr().add((index * 8 + part) * 32);
                            let products = block_products::<B>(block, part, _mm256_loadu_si256(codes.cast()));
                            let factor = _mm256_set1_ps(factors[r][t][part]);
                            // Two chains of additions halve the time that a row waits for.
                            let sum = &mut sums.products[r][t][part % 2];
                            *sum = _mm256_fmadd_ps(products, factor, *sum);
                        }
                    }
                }
            }
        }

        $crate::kernels::x86::rows::define_streams!($features, Blocks);

        /// As [`Kernels::dot_integer`](crate::Kernels::dot_integer).
        #[target_feature(enable = $features)]
        pub(super) fn dot_integer(
            weights: crate::MatrixView<'_>,
            rows: std::ops::Range<usize>,
            x: &[QuantizedRow<'_>],
            out: &mut [f32],
        ) {
            crate::formats::with_block!(weights.format(), B => if B::ROW_PRODUCTS {
                dot_integer_of::<B>(weights, rows, x, out);
            } else {
                crate::kernels::portable::dot_integer(weights, rows, x, out);
            }, else unreachable!("the front door lets quantized formats through only"));
        }
    };
}
pub(super) use define_row_dots;
