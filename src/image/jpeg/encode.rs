//! Writes coefficients as a sound sequential JPEG file. Every Huffman code has eight bits: the symbol's index in its table.

use super::coefficients::{Component, Extent, ZIGZAG, blocks_of_mcus};

/// Sizes of DC differences.
const DC_SYMBOLS: u8 = 16;

/// The symbols of AC: the end of a block, sixteen zeros, and every run and size.
fn ac_symbols() -> Vec<u8> {
    let others = (0..16u8).flat_map(|run| (1..16).map(move |size| run << 4 | size));
    [0x00, 0xf0].into_iter().chain(others).collect()
}

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend([0xff, marker]);
    out.extend(((body.len() + 2) as u16).to_be_bytes());
    out.extend_from_slice(body);
}

/// Bits of entropy-coded data.
#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    buffer: u64,
    left: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        self.buffer = self.buffer << count | u64::from(value & ((1 << count) - 1));
        self.left += count;
        while self.left >= 8 {
            self.left -= 8;
            let byte = (self.buffer >> self.left) as u8;
            self.out.push(byte);
            if byte == 0xff {
                self.out.push(0);
            }
        }
    }

    /// A number in as many bits as its size says.
    fn put_number(&mut self, value: i32, size: u32) {
        if size > 0 {
            self.put(if value > 0 { value } else { value - 1 } as u32, size);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let rest = (8 - self.left % 8) % 8;
        self.put(u32::MAX, rest);
        self.out
    }
}

fn size_of(value: i32) -> u32 {
    i32::BITS - value.unsigned_abs().leading_zeros()
}

/// A file with these components, which the application segments explain.
pub(super) fn encode(size: Extent, components: &[&Component], applications: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff, 0xd8];
    out.extend_from_slice(applications);
    for (number, component) in components.iter().enumerate() {
        // Without a scan all coefficients are zero, whatever the table.
        let table = component.quantization.unwrap_or([1; 64]);
        let is_wide = table.iter().any(|value| *value > 255);
        let mut body = vec![u8::from(is_wide) << 4 | number as u8];
        for place in &ZIGZAG[..64] {
            let bytes = table[*place].to_be_bytes();
            body.extend_from_slice(if is_wide { &bytes } else { &bytes[1..] });
        }
        segment(&mut out, 0xdb, &body);
    }
    let mut frame = vec![8];
    frame.extend((size.down as u16).to_be_bytes());
    frame.extend((size.across as u16).to_be_bytes());
    frame.push(components.len() as u8);
    for (number, component) in components.iter().enumerate() {
        frame.extend([component.id, (component.sampling.across << 4 | component.sampling.down) as u8, number as u8]);
    }
    segment(&mut out, 0xc1, &frame);
    let symbols = [(0..DC_SYMBOLS).collect(), ac_symbols()];
    for (class, symbols) in symbols.iter().enumerate() {
        let mut body = vec![(class as u8) << 4];
        body.extend((1..=16).map(|length| if length == 8 { symbols.len() as u8 } else { 0 }));
        body.extend_from_slice(symbols);
        segment(&mut out, 0xc4, &body);
    }
    let blocks: usize = components.iter().map(|component| component.blocks_of_mcu()).sum();
    let all: Vec<usize> = (0..components.len()).collect();
    // An MCU may have ten blocks at most.
    let groups: Vec<&[usize]> = if blocks > 10 { all.chunks(1).collect() } else { vec![&all] };
    for group in groups {
        let mut head = vec![group.len() as u8];
        head.extend(group.iter().flat_map(|at| [components[*at].id, 0]));
        head.extend([0, 63, 0]);
        segment(&mut out, 0xda, &head);
        out.extend(scan(components, group, &symbols[1]));
    }
    out.extend([0xff, 0xd9]);
    out
}

fn scan(components: &[&Component], group: &[usize], symbols: &[u8]) -> Vec<u8> {
    let mut codes = [0u32; 256];
    symbols.iter().zip(0..).for_each(|(symbol, code)| codes[usize::from(*symbol)] = code);
    let places = blocks_of_mcus(components, group);
    let (mut bits, mut last, mut mcu) = (Bits::default(), [0i16; 4], Vec::new());
    for index in 0..places.count() {
        places.blocks(index, &mut mcu);
        for &(at, place, block) in &mcu {
            let block = &components[place].blocks[block];
            // −32768 has no code.
            let difference = i32::from(block[0].wrapping_sub(last[at])).max(-i32::from(i16::MAX));
            last[at] = last[at].wrapping_add(difference as i16);
            let size = size_of(difference);
            bits.put(size, 8);
            bits.put_number(difference, size);
            let mut run = 0;
            for k in 1..64 {
                let value = i32::from(block[ZIGZAG[k]]).max(-i32::from(i16::MAX));
                if value == 0 {
                    run += 1;
                    continue;
                }
                while run > 15 {
                    bits.put(codes[0xf0], 8);
                    run -= 16;
                }
                let size = size_of(value);
                bits.put(codes[run << 4 | size as usize], 8);
                bits.put_number(value, size);
                run = 0;
            }
            if run > 0 {
                bits.put(codes[0], 8);
            }
        }
    }
    bits.finish()
}
